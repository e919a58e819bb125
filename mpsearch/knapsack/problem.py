"""The scaled problem: what a solver gets instead of raw Ω.

Ω spans 1e-12 to 1e6 and BOPS reach 1e13, where floating-point solvers return wrong answers as
optimal. So every row starts at zero, costs are counted in units that an upper bound (the best
assignment known so far) turns into at most 2**60, and choices that no better assignment can
contain are gone.

What a solver is: one object with a name and a `solve`; found by entry point.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mpsearch.knapsack.instance import Instance

COST_BITS = 60


@dataclass(frozen=True, eq=False)
class Problem:
    """Minimise the sum of costs[l, c(l)] with every sum of weights[r, l, c(l)] <= limits[r].

    Entries and limits are at most about 2**60, but the sum over an assignment that breaks a limit
    may pass 2**63.
    """

    allowed: NDArray[np.bool_]
    """bool [L, C], e.g. [54, 4]: which choices a layer may take."""
    costs: NDArray[np.int64]
    """int64 [L, C] >= 0."""
    weights: NDArray[np.int64]
    """int64 [R, L, C] >= 0."""
    limits: NDArray[np.int64]
    """int64 [R]."""
    cost_limit: int
    """The cost of an assignment that is already known, or a sum that no assignment exceeds: answers
    above it are of no interest."""
    columns: tuple[str, ...] = ()
    """Names of the R limited columns; limits that cannot bind have been dropped."""

    @cached_property
    def unit_costs(self) -> NDArray[np.float64]:
        """Costs as floats in units of cost_limit: [L, C] in 0 … 1 or little more."""
        return self.costs / max(self.cost_limit, 1)

    @cached_property
    def unit_weights(self) -> NDArray[np.float64]:
        """Weights as floats in units of their limits: [R, L, C] in 0 … 1."""
        return self.weights / self.limits[:, None, None]

    def is_feasible(self, chosen: NDArray[Any]) -> bool:
        rows = np.arange(len(self.allowed))
        if not self.allowed[rows, chosen].all():
            return False
        picked = self.weights[:, rows, chosen]
        if (picked.sum(axis=1, dtype=np.float64) > 2.0 * self.limits).any():
            return False  # by far; the sum of integers might wrap around
        return bool((picked.sum(axis=1) <= self.limits).all())

    def cost(self, chosen: NDArray[Any]) -> int:
        return sum(self.costs[np.arange(len(self.allowed)), chosen].tolist())


def scale(
    instance: Instance, upper: int | None, round_up: bool = False, drop_dominated: bool = True
) -> tuple[Problem, int]:
    """The problem below the exact total Ω `upper` (None: none known), and its cost shift t.

    A cost stands for `cost << t` units of the instance's omega, rounded down: the optimum here,
    shifted back, is a lower bound. Weights that do not fit are rounded down too (a relaxation), or
    up (`round_up`: every answer is feasible, but the optimum may be missed). Dominated choices go
    unless other things than the sum of costs are asked: the second best, or cross terms.
    """
    base = instance.base
    lowest = instance.row_minimum(instance.omega)
    excess = np.where(instance.allowed, instance.omega - lowest[:, None], 0)
    if upper is None:
        span = sum(excess.max(axis=1).tolist())
        allowed = instance.allowed.copy()
    else:
        span = upper - base[0]
        allowed = instance.allowed & (excess <= span).astype(bool)
    shift = max(0, span.bit_length() - COST_BITS)
    costs = (np.where(allowed, excess, 0) >> shift).astype(np.int64)

    kept, weights, limits = [], [], []
    for position, matrix in enumerate(instance.resources):
        slack = instance.limits[position] - base[1 + position]
        lowest = instance.row_minimum(matrix)
        excess = np.where(instance.allowed, matrix - lowest[:, None], 0)
        if sum(excess.max(axis=1).tolist()) <= slack:
            continue  # cannot bind
        allowed &= (excess <= slack).astype(bool)
        unit = _unit(excess, slack)
        rounded = -(-excess // unit) if round_up else excess // unit
        kept.append(instance.columns[position])
        weights.append(np.where(allowed, rounded, 0).astype(np.int64))
        limits.append(slack // unit)
    stacked = np.array(weights, dtype=np.int64).reshape(-1, *allowed.shape)
    if drop_dominated:
        allowed = allowed & ~dominated(allowed, np.concatenate([stacked, costs[None]]))
    problem = Problem(
        allowed=allowed,
        costs=np.where(allowed, costs, 0),
        weights=np.where(allowed, stacked, 0),
        limits=np.maximum(np.array(limits, dtype=np.int64), 1),
        cost_limit=span >> shift,
        columns=tuple(kept),
    )
    return problem, shift


def dominated(allowed: NDArray[np.bool_], tables: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[L, C]: choices that another one of the layer beats or equals in every table [D, L, C].

    Of equal choices the first one is not dominated, so that no layer loses its last choice.
    """
    dominated = np.zeros_like(allowed)
    choices = allowed.shape[1]
    for other in range(choices):
        for choice in range(choices):
            if choice == other:
                continue
            worse = allowed[:, other] & allowed[:, choice] & ~dominated[:, other]
            for table in tables:
                worse &= table[:, other] <= table[:, choice]
            dominated[:, choice] |= worse
    return dominated


def _unit(excess: NDArray[Any], slack: int) -> int:
    """What to divide a row by: its common divisor, or what it takes to fit int64 with room."""
    divisor = int(np.gcd.reduce(excess, axis=None)) or 1
    return max(divisor, 1 << max(0, slack.bit_length() - COST_BITS))


GROUP = "mpsearch.solvers"

Claim = Literal["optimal", "feasible", "infeasible", "unknown"]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a solver says; nothing of it is believed before it is checked."""

    chosen: NDArray[np.int64] | None
    """Indices [L] into the choices; None without an assignment."""
    claim: Claim
    """`optimal`, `feasible`, `infeasible` or `unknown`."""
    bound: float | None = None
    """A cost that no assignment is below; None: none is known."""


class Solver(Protocol):
    """An object of this shape under the entry-point group `mpsearch.solvers` is a solver.

    `capabilities` are words for `mpsearch solvers`: e.g. "proves optimality", "time limit".
    """

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def capabilities(self) -> tuple[str, ...]: ...

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        """Minimise; `time_limit` in seconds or None; unknown options are an InputError."""
        ...

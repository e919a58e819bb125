"""Exact search by dynamic programming with dominance, Lagrangian bounds and a shrinking core.

Layers are taken one after another; a state is a partial assignment's cost and weights. A state is
dropped when another one is no worse in everything (Nemhauser and Ullmann, 1969), or when its bound
at one of several Lagrangian prices shows that it cannot end below the best cost known. Layers and
choices that the bound fixes beforehand never enter (reduced-cost fixing; Pisinger 1995 for the
multiple-choice knapsack). Costs and weights are integers: no tolerance decides anything.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.dominance import nondominated
from mpsearch.dual import Dual, bounds, maximise
from mpsearch.errors import InputError
from mpsearch.problem import Problem
from mpsearch.solver import Answer

Ints = NDArray[np.int64]
MEMORY_CODES = 60_000_000  # back-pointers kept at most, 4 bytes each
LATE_BEAM = 64  # states kept per layer once the time is over


@dataclass(frozen=True, eq=False)
class Search:
    """chosen: the best assignment found or given, or None; bound: no assignment costs less.

    `complete` says that nothing was dropped for want of time or memory; then the cost of `chosen`
    is the optimum, and None means that there is no feasible assignment.
    """

    chosen: Ints | None
    bound: int
    complete: bool
    states: int


@dataclass(frozen=True)
class DynamicProgramming:
    """Exact, numpy only; `max_states` per layer bounds memory, then the gap is reported."""

    name: str = "dp"
    description: str = "dominance DP with Lagrangian bounds (numpy only)"
    capabilities: tuple[str, ...] = ("exact", "any number of limits", "time limit", "bound")

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        """Options: max_states, an integer (default: by memory)."""
        states = max_states_of(options)
        deadline = None if time_limit is None else time.monotonic() + time_limit
        found = search(problem, None, deadline, states)
        if found.chosen is None:
            return Answer(None, "infeasible" if found.complete else "unknown", found.bound)
        return Answer(found.chosen, "optimal" if found.complete else "feasible", found.bound)


SOLVER = DynamicProgramming()


def max_states_of(options: Mapping[str, Any]) -> int | None:
    """The option `max_states`, or None; anything else is an InputError."""
    unknown = set(options) - {"max_states"}
    if unknown:
        raise InputError(f"solver dp has no option {min(unknown)!r}; it has max_states")
    if "max_states" not in options:
        return None
    text = str(options["max_states"])
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"got max_states={text}; expected a whole number of at least 1")
    return int(text)


def search(
    problem: Problem,
    incumbent: Ints | None = None,
    deadline: float | None = None,
    max_states: int | None = None,
    dual: Dual | None = None,
) -> Search:
    """Find an assignment that costs less than the incumbent, or prove that there is none."""
    best, chosen = problem.cost_limit + 1, None
    if incumbent is not None and problem.is_feasible(incumbent):
        best, chosen = problem.cost(incumbent), incumbent
    if not problem.allowed.any(axis=1).all():
        return Search(chosen, best, True, 0)
    dual = dual or maximise(problem)
    for found in dual.incumbents:
        if problem.cost(found) < best:
            best, chosen = problem.cost(found), found
    return _Core(problem, dual.prices, best, chosen, deadline, max_states).run()


class _Core:
    """The layers that the bound leaves open, and the states over them."""

    def __init__(
        self,
        problem: Problem,
        prices: NDArray[np.float64],
        best: int,
        chosen: Ints | None,
        deadline: float | None,
        max_states: int | None,
    ) -> None:
        self.problem, self.best, self.chosen = problem, best, chosen
        self.prices, self.deadline = prices, deadline
        self.reduced = bounds(problem, prices)  # [K, L, C]
        self.least = self.reduced.min(axis=2)  # [K, L]
        self.given = prices @ problem.limits.astype(np.float64)  # [K]
        magnitude = np.where(np.isfinite(self.reduced), self.reduced, 0).max(axis=2).sum(axis=1)
        # Doubles may be off by this much; only states beyond it are dropped.
        ulps = 8 * (problem.allowed.shape[0] + len(problem.limits) + 4) * 2.0**-53
        self.margin = ulps * (magnitude + self.given + problem.cost_limit)
        self.dropped = np.inf  # the least bound among states dropped without proof
        self.states = 0
        self.max_states = max_states or int(
            np.clip(MEMORY_CODES // len(problem.allowed), 2_000, 200_000)
        )

    def run(self) -> Search:
        start = float((self.least.sum(axis=1) - self.given - self.margin).max())
        if start > self.best - 1:
            return self._result()
        keep = self._fix(self.problem.allowed)
        # Layers whose choices differ most first: they are decided while states are few.
        count = keep.sum(axis=1)
        second = np.sort(np.where(keep, self.reduced[0] - self.least[0][:, None], np.inf), axis=1)
        urgency = np.where(count > 1, second[:, min(1, second.shape[1] - 1)], np.inf)
        order = np.argsort(-urgency, kind="stable")
        self._sweep(order, keep)
        return self._result()

    def _result(self) -> Search:
        complete = self.dropped >= self.best
        bound = self.best if complete else int(max(np.floor(self.dropped), 0))
        return Search(self.chosen, bound, complete, self.states)

    def _fix(self, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Choices that some assignment below the best cost may still contain, [L, C]."""
        rest = self.least.sum(axis=1) - self.given - self.margin  # [K]
        bound = (rest[:, None, None] + self.reduced - self.least[:, :, None]).max(axis=0)
        keep: NDArray[np.bool_] = allowed & (bound <= self.best - 1)
        return keep

    def _sweep(self, order: Ints, keep: NDArray[np.bool_]) -> None:
        problem, limits = self.problem, self.problem.limits
        resources = len(limits)
        # suffix[k, i]: what the layers from i on add to the bound; completion: their minimisers
        minimiser = self.reduced.argmin(axis=2)  # [K, L]
        rows = np.arange(len(order))
        suffix = _suffix(self.least[:, order])
        rest_cost = _suffix(problem.costs[rows, minimiser][:, order])  # [K, L + 1]
        rest_weight = np.stack(
            [_suffix(problem.weights[r][rows, minimiser][:, order]) for r in range(resources)]
            or [np.zeros((0,))],
        )
        points = np.zeros((resources + 1, 1), dtype=np.int64)  # weights…, cost
        codes: list[NDArray[np.int32]] = []
        width = problem.allowed.shape[1]
        for step, layer in enumerate(order):
            options = np.flatnonzero(keep[layer])
            late = self.deadline is not None and time.monotonic() > self.deadline
            parts, back = [], []
            for choice in options:
                add = np.append(problem.weights[:, layer, choice], problem.costs[layer, choice])
                parts.append(points + add[:, None])
                back.append(np.arange(points.shape[1], dtype=np.int32) * width + choice)
            if not parts:
                return
            points, code = np.concatenate(parts, axis=1), np.concatenate(back)
            bound = self._bound(points, suffix[:, step + 1])
            fit = (points[:-1] <= limits[:, None]).all(axis=0) & (bound <= self.best - 1)
            points, code, bound = points[:, fit], code[fit], bound[fit]
            if len(options) > 1 and points.shape[1] > 1:
                front = nondominated(points)
                points, code, bound = points[:, front], code[front], bound[front]
            cap = min(self.max_states, LATE_BEAM) if late else self.max_states
            if points.shape[1] > cap:
                by_bound = np.argsort(bound, kind="stable")
                self.dropped = min(self.dropped, float(bound[by_bound[cap]]))
                points, code = points[:, by_bound[:cap]], code[by_bound[:cap]]
            if not points.shape[1]:
                return
            self.states += points.shape[1]
            codes.append(code)
            if len(options) > 1 or step == len(order) - 1:
                self._complete(points, step, order, codes, rest_cost, rest_weight, minimiser)

    def _bound(self, points: NDArray[Any], suffix: NDArray[np.float64]) -> NDArray[np.float64]:
        """The best of the K Lagrangian bounds of every state, below the truth by the margin."""
        constant = suffix - self.given - self.margin
        values = self.prices @ points[:-1].astype(np.float64) + points[-1] + constant[:, None]
        best: NDArray[np.float64] = values.max(axis=0)
        return best

    def _complete(
        self,
        points: Ints,
        step: int,
        order: Ints,
        codes: list[NDArray[np.int32]],
        rest_cost: Ints,
        rest_weight: Ints,
        minimiser: Ints,
    ) -> None:
        """Finish every state by each price's minimisers: a cheaper feasible one is the new best."""
        limits = self.problem.limits
        for k in range(len(self.prices)):
            cost = points[-1] + rest_cost[k, step + 1]
            good = cost < self.best
            for r in range(len(limits)):
                good &= points[r] + rest_weight[r, k, step + 1] <= limits[r]
            where = np.flatnonzero(good)
            if len(where):
                state = int(where[cost[where].argmin()])
                self.best = int(cost[state])
                self.chosen = self._trace(state, step, order, codes, minimiser[k])

    def _trace(
        self,
        state: int,
        step: int,
        order: Ints,
        codes: list[NDArray[np.int32]],
        rest: Ints,
    ) -> Ints:
        """Follow the back-pointers of a state; layers after `step` take the minimisers."""
        chosen = rest.astype(np.int64)
        width = self.problem.allowed.shape[1]
        for position in range(step, -1, -1):
            state, choice = divmod(int(codes[position][state]), width)
            chosen[order[position]] = choice
        return chosen


def _suffix(values: NDArray[Any]) -> NDArray[Any]:
    """[K, L] -> [K, L + 1]: sums of the columns from each position on."""
    sums = np.zeros((values.shape[0], values.shape[1] + 1), dtype=values.dtype)
    sums[:, :-1] = np.cumsum(values[:, ::-1], axis=1)[:, ::-1]
    return sums

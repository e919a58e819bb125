"""The Lagrangian dual of the multiple-choice knapsack: bounds, prices and good assignments.

For prices p >= 0 on the limits, q(p) = sum over layers of min over choices of (cost + p . weight),
less p . limits, is a lower bound on every feasible cost (Fisher, Management Science 1981; its
maximum is the LP bound). The maximum over a handful of prices is found by bisection (one limit) or
cutting planes (more), which need no step sizes and, for so few prices, no LP solver.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.knapsack.problem import Problem
from mpsearch.solvers.cutting_planes import Floats, Master

ENOUGH = 1e-9  # relative distance from the maximum at which the search for prices ends


@dataclass(frozen=True, eq=False)
class Dual:
    """prices [K, R], best first, in cost units per weight unit; incumbents: feasible [L] arrays."""

    prices: Floats
    incumbents: tuple[NDArray[np.int64], ...]


def maximise(problem: Problem, keep: int = 12, steps: int = 250) -> Dual:
    """Approximately maximise q and keep the best prices met on the way.

    Any price gives a valid bound, so nothing here needs to be exact.
    """
    search = _Search(problem)
    limits = len(problem.limits)
    if limits == 0:
        search.evaluate(np.zeros(0))
    elif limits == 1:
        search.bisect(steps=60)
    else:
        search.cutting_planes(steps=steps)
    order = np.argsort(-np.array(search.values), kind="stable")
    chosen: list[Floats] = []
    for position in order:
        price = search.prices[position]
        if all(np.abs(price - other).max() > 1e-9 * (1 + other.max()) for other in chosen):
            chosen.append(price)
        if len(chosen) == keep or limits == 0:
            break
    scale = problem.cost_limit / np.maximum(problem.limits, 1)
    prices = np.array(chosen).reshape(len(chosen), limits) * scale
    incumbents = sorted(search.feasible.values(), key=problem.cost)[:3]
    return Dual(prices, tuple(_fill(problem, found) for found in incumbents))


class _Search:
    """q and its subgradient, in units where every limit and the cost limit are 1."""

    def __init__(self, problem: Problem) -> None:
        costs = np.where(problem.allowed, problem.unit_costs, np.inf)
        self.problem = problem
        self.tables = np.concatenate([problem.unit_weights, costs[None]])
        self.tables = self.tables.reshape(len(self.tables), -1)  # [R + 1, L * C]
        self.first = np.arange(len(problem.allowed)) * problem.allowed.shape[1]
        self.prices: list[Floats] = []
        self.values: list[float] = []
        self.feasible: dict[float, NDArray[np.int64]] = {}

    def evaluate(self, price: Floats) -> tuple[float, Floats, float]:
        """q(price), the subgradient (by how much the minimiser exceeds each limit), its cost."""
        reduced = np.append(price, 1.0) @ self.tables
        best = reduced.reshape(self.problem.allowed.shape).argmin(axis=1)
        sums = self.tables.take(self.first + best, axis=1).sum(axis=1)
        excess, cost = sums[:-1] - 1, float(sums[-1])
        value = cost + float(price @ excess)
        self.prices.append(price)
        self.values.append(value)
        if (excess <= 1e-9).all() and cost not in self.feasible and self.problem.is_feasible(best):
            self.feasible[cost] = best
        return value, excess, cost

    def bisect(self, steps: int) -> None:
        """One limit: the subgradient's sign says on which side of the price the maximum is."""
        low, high = 0.0, 1.0
        if self.evaluate(np.array([low]))[1][0] <= 0:
            return
        while self.evaluate(np.array([high]))[1][0] > 0 and high < 1e18:
            low, high = high, high * 8
        for _ in range(steps):
            middle = (low + high) / 2
            if high - low < 1e-13 * high:
                return
            if self.evaluate(np.array([middle]))[1][0] > 0:
                low = middle
            else:
                high = middle

    def cutting_planes(self, steps: int) -> None:
        """Several limits: q lies below the plane of every minimiser met; go where those allow most.

        Kelley's method (1960): 10 to 30 steps for two or three limits, whatever the layers.
        """
        best = -np.inf
        price = np.zeros(len(self.problem.limits))
        master: Master | None = None
        for _ in range(steps):
            value, excess, cost = self.evaluate(price)
            best = max(best, value)
            if master is None:
                if (excess <= 0).all():
                    return  # the cheapest choices fit
                master = Master(excess, cost)
            else:
                master.add(excess, cost)
            above, price = master.solve()
            if above - best <= ENOUGH * abs(above):
                return


def _fill(problem: Problem, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Spend the slack: repeat the single change that saves most cost while the limits hold."""
    chosen = chosen.copy()
    rows = np.arange(len(chosen))
    used = problem.weights[:, rows, chosen].sum(axis=1)
    for _ in range(4 * len(chosen)):
        current = problem.costs[rows, chosen]
        saving = np.where(problem.allowed, current[:, None] - problem.costs, 0)
        change = problem.weights - problem.weights[:, rows, chosen][:, :, None]
        fits = (used[:, None, None] + change <= problem.limits[:, None, None]).all(axis=0)
        saving = np.where(fits, saving, 0)
        best = int(saving.argmax())
        layer, choice = divmod(best, saving.shape[1])
        if saving[layer, choice] <= 0:
            break
        used = used + change[:, layer, choice]
        chosen[layer] = choice
    return chosen


def bounds(problem: Problem, prices: Floats) -> Any:
    """Reduced costs [K, L, C] at each price, infinite where not allowed."""
    reduced = problem.costs + np.tensordot(prices, problem.weights.astype(np.float64), axes=1)
    return np.where(problem.allowed, reduced, np.inf)

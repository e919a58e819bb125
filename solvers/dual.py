"""The Lagrangian dual of the multiple-choice knapsack: bounds, prices and good assignments.

For prices p >= 0 on the limits, q(p) = sum over layers of min over choices of (cost + p . weight),
less p . limits, is a lower bound on every feasible cost (Fisher, Management Science 1981; its
maximum is the LP bound). The maximum over a handful of prices is found by bisection (one limit) or
cutting planes (more), which need no step sizes and, for so few prices, no LP solver.

The master problem of the cutting-plane method, solved by a simplex with R + 1 rows.

Of the Lagrangian dual function q only planes above it are known: q(p) <= cost_j + p . excess_j for
every minimiser j met so far. The highest point under them with 0 <= p <= BOX is a linear program;
here its dual is solved: a convex mix of the minimisers that keeps the limits at least cost
(Dantzig and Wolfe, 1960), whose basis has one row per limit and one for the mix.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.knapsack.problem import Problem

Floats = NDArray[np.float64]

BOX = 1e6  # no price is larger, in units where limits and costs are 1
PIVOTS = 60  # per solve; stopping early only makes the next price worse


class Master:
    """Planes [J], added one by one; between solves the basis is kept."""

    def __init__(self, excess: Floats, cost: float) -> None:
        n = len(excess)
        # Columns: a slack per limit, what breaks it at the price BOX, then the minimisers.
        self.columns = np.zeros((n + 1, 64))
        self.costs = np.zeros(64)
        self.columns[:n, :n] = np.eye(n)
        self.columns[:n, n : 2 * n] = -np.eye(n)
        self.costs[n : 2 * n] = BOX
        self.count = 2 * n
        self.basis = np.append(np.where(excess > 0, n, 0) + np.arange(n), 2 * n)
        self.add(excess, cost)

    def add(self, excess: Floats, cost: float) -> None:
        """One more plane: by how much its minimiser exceeds the limits, and its cost."""
        if self.count == len(self.costs):
            self.columns = np.concatenate([self.columns, np.zeros_like(self.columns)], axis=1)
            self.costs = np.concatenate([self.costs, np.zeros_like(self.costs)])
        self.columns[:-1, self.count] = excess
        self.columns[-1, self.count] = 1.0
        self.costs[self.count] = cost
        self.count += 1

    def solve(self) -> tuple[float, Floats]:
        """The highest value under all planes and the prices [R] where it is."""
        columns, costs = self.columns[:, : self.count], self.costs[: self.count]
        tolerance = 1e-12 * max(1.0, float(np.abs(costs[2 * len(columns) - 2 :]).max()))
        dual = np.zeros(len(columns))
        for _ in range(PIVOTS):
            try:
                inverse = np.linalg.inv(columns[:, self.basis])
            except np.linalg.LinAlgError:
                break
            dual = costs[self.basis] @ inverse
            reduced = costs - dual @ columns
            enter = int(reduced.argmin())
            if reduced[enter] >= -tolerance:
                break
            share = inverse[:, -1]  # the right-hand side is 0 for the limits, 1 for the mix
            direction = inverse @ columns[:, enter]
            up = direction > 1e-12
            if not up.any():
                break
            ratio = np.full(len(share), np.inf)
            ratio[up] = share[up] / direction[up]
            self.basis[int(ratio.argmin())] = enter
        return float(dual[-1]), np.clip(-dual[:-1], 0.0, BOX)


ENOUGH = 1e-9  # relative distance from the maximum at which the search for prices ends
NEAREST = 2  # of the best prices for one limit: more would differ in their last digits
SPREAD = (0.5, 0.8, 0.95, 1.05, 1.25, 2.0)  # times the best: what a few small layers are worth,
# which fill up what the large ones leave of a limit


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
    if limits == 1:
        keep = min(keep, NEAREST)
    for position in order:
        price = search.prices[position]
        if all(np.abs(price - other).max() > 1e-9 * (1 + other.max()) for other in chosen):
            chosen.append(price)
        if len(chosen) == keep or limits == 0:
            break
    if limits == 1:
        chosen += [chosen[0] * factor for factor in SPREAD]
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

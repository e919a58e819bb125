"""Shadow prices: what one more unit of a limited resource is worth in Ω.

For prices p >= 0, q(p) = Σ_l min_c (Ω[l, c] + p . w[l, c]) - p . limits is a lower bound on every
assignment within the limits, and q(p) - p . d one within limits + d, whatever d (Everett,
Operations Research 1963; Fisher, Management Science 1981). At the maximum of q, the LP bound, p is
the slope of that bound: the marginal price. All of it is computed on integers, without rounding.

What one per cent more or less of a limit changes, searched for, beside what its price says.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np

from mpsearch.knapsack.instance import Instance
from mpsearch.knapsack.problem import COST_BITS, Problem
from mpsearch.search.solving import solve
from mpsearch.solvers.dual import maximise
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.exact import IntArray
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import COUNT_UNITS, is_size

TIES = 8  # per limit: how many near-ties are tried as the ones that fix the prices


@dataclass(frozen=True, eq=False)
class Prices:
    """values: one price per row, in units of Ω per unit of the row; bound: q(values).

    reduced: Python integers [L, C], (Ω + p . w) * denominator. Units are the instance's own.
    """

    values: tuple[Fraction, ...]
    bound: Fraction
    reduced: IntArray
    denominator: int


@dataclass(frozen=True, eq=False)
class _Rows:
    """Ω and the limited rows as Python integers, each row of layers starting at zero."""

    instance: Instance
    omega: IntArray
    weights: tuple[IntArray, ...]
    slacks: tuple[int, ...]


def shadow_prices(instance: Instance, omega: int, rows: tuple[int, ...], optimum: int) -> Prices:
    """The prices of `rows`, given which resource row carries Ω and the optimal total Ω.

    The limits must be feasible. A row that does not bind in the LP gets exactly 0. Where the LP
    has several optimal prices, one of them is returned.
    """
    cells = _Rows(
        instance,
        _above_minimum(instance, instance.resources[omega]),
        tuple(_above_minimum(instance, instance.resources[row]) for row in rows),
        tuple(instance.limits[row] - instance.base[1 + row] for row in rows),
    )
    base = instance.base[1 + omega]
    binding = [
        row
        for row, (weights, slack) in enumerate(zip(cells.weights, cells.slacks, strict=True))
        if sum(weights.max(axis=1).tolist()) > slack
    ]
    best = _maximise(cells, binding, optimum - base)
    tolerance = Fraction(max(optimum - base, 1), 10**12)
    for row in sorted(binding, key=lambda row: best[row] * cells.slacks[row]):
        fewer = [other for other in binding if other != row]
        without = _maximise(cells, fewer, optimum - base)
        if _bound(cells, without) >= _bound(cells, best) - tolerance:
            best, binding = without, fewer
    best = max(best, _vertex(cells, best), key=lambda prices: _bound(cells, prices))
    reduced, denominator = _reduced(cells, best)
    return Prices(best, base + _bound(cells, best), reduced, denominator)


def _above_minimum(instance: Instance, matrix: IntArray) -> IntArray:
    """[L, C] less each layer's least allowed entry, as Python integers; zero where not allowed."""
    lowest = instance.row_minimum(matrix).astype(object)
    return np.where(instance.allowed, matrix.astype(object) - lowest[:, None], 0)


def _maximise(cells: _Rows, rows: list[int], excess: int) -> tuple[Fraction, ...]:
    """The best prices found by `mpsearch.solvers.dual`; zero for rows that are left out."""
    nothing = (Fraction(0),) * len(cells.weights)
    if not rows:
        return nothing
    span = sum(cells.omega.max(axis=1).tolist())
    cost_shift = max(0, span.bit_length() - COST_BITS)
    shifts = [
        max(0, sum(cells.weights[row].max(axis=1).tolist()).bit_length() - COST_BITS)
        for row in rows
    ]
    weights = [
        (cells.weights[row] >> shift).astype(np.int64)
        for row, shift in zip(rows, shifts, strict=True)
    ]
    limits = [max(cells.slacks[row] >> shift, 1) for row, shift in zip(rows, shifts, strict=True)]
    candidates = [nothing]
    for unit in {max(span >> cost_shift, 1), max(excess >> cost_shift, 1)}:
        problem = Problem(
            allowed=cells.instance.allowed,
            costs=(cells.omega >> cost_shift).astype(np.int64),
            weights=np.array(weights),
            limits=np.array(limits, dtype=np.int64),
            cost_limit=unit,
        )
        found = maximise(problem).prices[0].tolist()
        prices = list(nothing)
        for row, shift, price in zip(rows, shifts, found, strict=True):
            prices[row] = Fraction(max(price, 0.0)) * (1 << cost_shift) / (1 << shift)
        candidates.append(tuple(prices))
    return max(candidates, key=lambda prices: _bound(cells, prices))


def _reduced(cells: _Rows, prices: tuple[Fraction, ...]) -> tuple[IntArray, int]:
    """(Ω + p . w) * denominator, [L, C] Python integers."""
    denominator = lcm(*(price.denominator for price in prices))
    total = cells.omega * denominator
    for price, weights in zip(prices, cells.weights, strict=True):
        if price:
            total = total + weights * int(price * denominator)
    return total, denominator


def _bound(cells: _Rows, prices: tuple[Fraction, ...]) -> Fraction:
    """q less the least total Ω, exactly."""
    reduced, denominator = _reduced(cells, prices)
    lowest = sum(cells.instance.row_minimum(reduced).tolist())
    paid = sum((p * s for p, s in zip(prices, cells.slacks, strict=True)), Fraction(0))
    return Fraction(lowest, denominator) - paid


def _vertex(cells: _Rows, prices: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    """The exact prices near `prices` at which as many layers as prices waver between choices."""
    active = [row for row, price in enumerate(prices) if price]
    reduced, denominator = _reduced(cells, prices)
    high = int(reduced.max()) + 1
    order = np.where(cells.instance.allowed, reduced, high).argsort(axis=1, kind="stable")
    ties: list[tuple[Fraction, list[Fraction]]] = []
    for layer, (first, *others) in enumerate(order.tolist()):
        for second in others:
            if not cells.instance.allowed[layer, second]:
                break
            step = [int(w[layer, first] - w[layer, second]) for w in cells.weights]
            scale = sum(abs(prices[row] * step[row]) for row in active)
            if not scale:
                continue
            gap = Fraction(int(reduced[layer, second] - reduced[layer, first]), denominator)
            saved = Fraction(int(cells.omega[layer, second] - cells.omega[layer, first]))
            ties.append((gap / scale, [*(Fraction(step[row]) for row in active), saved]))
    ties.sort(key=lambda tie: tie[0])
    solved = _solve([equation for _, equation in ties[: TIES * len(active)]], len(active))
    if solved is None or min(solved, default=Fraction(0)) < 0:
        return prices
    exact = [Fraction(0)] * len(prices)
    for row, value in zip(active, solved, strict=True):
        exact[row] = value
    return tuple(exact)


def _solve(equations: list[list[Any]], unknowns: int) -> list[Fraction] | None:
    """The first `unknowns` independent equations [a..., b], a . x = b, by elimination."""
    kept: list[list[Fraction]] = []
    pivots: list[int] = []
    for equation in equations:
        row = list(equation)
        for pivot, other in zip(pivots, kept, strict=True):
            row = [a - row[pivot] * b for a, b in zip(row, other, strict=True)]
        pivot = next((column for column in range(unknowns) if row[column]), -1)
        if pivot < 0:
            continue
        row = [value / row[pivot] for value in row]
        kept = [[a - other[pivot] * b for a, b in zip(other, row, strict=True)] for other in kept]
        kept.append(row)
        pivots.append(pivot)
        if len(kept) == unknowns:
            return [kept[pivots.index(column)][-1] for column in range(unknowns)]
    return None


@dataclass(frozen=True)
class Marginal:
    """A limited column's price, and the true changes of the least Ω.

    price: Ω per byte, BOP, second, …, of the LP bound; 0 where the limit does not bind in the LP.
    unit: the amount that `per_unit` prices and how it is written, e.g. 1024 and `KB`. more and
    less: optimum at limit + step and limit - step, less the optimum; None where nothing is
    feasible, or the search ran out of time.
    """

    column: str
    limit: int | float
    price: float
    unit: int
    unit_name: str
    step: int | float
    more: float | None
    less: float | None

    @property
    def per_unit(self) -> float:
        """Ω that one more unit is worth."""
        return self.price * self.unit


def marginals(
    table: LayerTable,
    instance: Instance,
    omega: int,
    rows: tuple[int, ...],
    prices: Prices,
    solution: Solution,
    limits: Mapping[str, int | float],
    pins: Mapping[str, Choice] | None,
    exclude: Mapping[str, Collection[Choice]] | None,
    time_limit: float | None,
) -> tuple[Marginal, ...]:
    """One for each limited row; the step is 1 % of the limit, at least 1 on integer columns."""

    def change(column: str, limit: int | float) -> float | None:
        moved = Budget({**limits, column: limit})
        other = solve(table, moved, "auto", pins, exclude, time_limit, explain=False)
        if other.status != "optimal" or solution.status != "optimal":
            return None
        assert other.objective is not None
        assert solution.objective is not None
        return float(Fraction(repr(other.objective)) - Fraction(repr(solution.objective)))

    found = []
    for row, price in zip(rows, prices.values, strict=True):
        column = instance.columns[row]
        limit = limits[column]
        step = max(1, limit // 100) if isinstance(limit, int) else limit / 100
        unit, unit_name = _unit(column, limit)
        scale = Fraction(10) ** (instance.digits[1 + row] - instance.digits[1 + omega])
        found.append(
            Marginal(
                column=column,
                limit=limit,
                price=float(price * scale),
                unit=unit,
                unit_name=unit_name,
                step=step,
                more=change(column, limit + step),
                less=change(column, limit - step),
            )
        )
    return tuple(found)


def _unit(column: str, limit: int | float) -> tuple[int, str]:
    """A KB for sizes from 1 KB on; else the largest of 1, K, M, G and T that the limit reaches."""
    if is_size(column):
        return (1024, "KB") if limit >= 1024 else (1, "B")
    fitting = [(size, name) for name, size in COUNT_UNITS.items() if size <= max(limit, 1)]
    size, name = max(fitting)
    return size, name or "1"

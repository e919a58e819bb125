"""What one per cent more or less of a limit changes, searched for, beside what its price says."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction

from mpsearch.explaining.prices import Prices
from mpsearch.knapsack.instance import Instance
from mpsearch.search.solving import solve
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import COUNT_UNITS, is_size


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
        other = solve(table, moved, "auto", pins, exclude, time_limit)
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

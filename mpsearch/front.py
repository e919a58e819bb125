"""The exact Pareto front of total Ω against one resource, in one pass of dominance DP."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.choice import Choice
from mpsearch.dominance import nondominated
from mpsearch.errors import InputError
from mpsearch.exact import exact_totals, to_float
from mpsearch.front_bounds import bound_set
from mpsearch.instance import Instance
from mpsearch.table import LayerTable

MAX_STATES = 2_000_000  # against one resource
MAX_STATES_LIMITED = 60_000  # with further limits: dominance in three coordinates is slower
MANY = 20_000  # from here on bounds are worth their time
MEMORY_CODES = 200_000_000  # back-pointers, 4 bytes each


@dataclass(frozen=True, eq=False)
class Front:
    """Non-dominated assignments, by rising resource and falling Ω.

    omega: float [P]; totals: every resource column, [P]; assignments: int8 [P, L], indices into
    `choices` for `layers`; exact: no point is missing (totals Ω that agree to 14 digits count as
    equal). measured: e.g. accuracy and loss, NaN where a point was not measured.
    """

    resource: str
    layers: tuple[str, ...]
    choices: tuple[Choice, ...]
    omega: NDArray[np.float64]
    totals: Mapping[str, NDArray[Any]]
    assignments: NDArray[np.int8]
    exact: bool
    limits: Mapping[str, int | float] = field(default_factory=dict)
    table_digest: str = ""
    measured: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.omega)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """[P, C]: how many layers have each choice."""
        numbers = [
            np.count_nonzero(self.assignments == c, axis=1) for c in range(len(self.choices))
        ]
        return np.stack(numbers, axis=1) if numbers else np.zeros((len(self), 0), dtype=np.int64)

    def assignment(self, point: int) -> dict[str, Choice]:
        """Choice by layer name of one point."""
        indices = self.assignments[point].tolist()
        return {name: self.choices[c] for name, c in zip(self.layers, indices, strict=True)}

    def best_within(self, limit: float) -> int | None:
        """The point of least Ω whose resource total is within the limit; None if there is none."""
        position = int(np.searchsorted(self.totals[self.resource], limit, side="right")) - 1
        return position if position >= 0 else None

    def thin(self, points: int) -> NDArray[np.int64]:
        """Indices of at most this many points for reading, both ends among them.

        Half are spread evenly by resource total and half by rank: where a few large layers decide
        the size, the points lie in clusters, and even steps of size would skip over them.
        """
        if points < 2:
            raise InputError(f"got --points {points}; expected at least 2")
        if points >= len(self):
            return np.arange(len(self))
        values = self.totals[self.resource].astype(np.float64)
        wanted = np.linspace(values[0], values[-1], max(2, points // 2))
        by_total = np.unique(np.searchsorted(values, wanted, side="right") - 1)
        by_rank = np.linspace(0, len(self) - 1, points - len(by_total) + 2).round().astype(np.int64)
        return np.union1d(by_total, by_rank[1:-1])


def front(
    table: LayerTable,
    resource: str = "size_bytes",
    limits: Mapping[str, int | float] | None = None,
    pins: Mapping[str, Choice] | None = None,
    exclude: Mapping[str, Collection[Choice]] | None = None,
    max_states: int | None = None,
) -> Front:
    """All non-dominated (Ω, resource) points of a table, further columns limited from above.

    After each layer only states that no other one beats in Ω, resource and limited columns are
    kept (Nemhauser and Ullmann, 1969). More than `max_states` of them (default: 2,000,000, with
    further limits 60,000) are thinned, and the front then says that it is not exact: its points
    are feasible, some are missing. Empty where the limits are infeasible.
    """
    limits = dict(limits or {})
    table.column(resource)
    instance = Instance.build(table, limits, pins, exclude, extra_columns=table.columns)
    chosen, exact = _sweep(instance, instance.columns.index(resource), max_states)
    return _evaluate(table, instance, resource, chosen, exact, limits)


def _sweep(instance: Instance, main: int, max_states: int | None) -> tuple[NDArray[np.int8], bool]:
    """Choices [P, L] of the surviving states, and whether none was dropped for want of room."""
    order = [index for index in range(len(instance.columns)) if index != main] + [main]
    weights = []
    slack = []
    for index in order:
        lowest = instance.row_minimum(instance.resources[index])
        excess = np.where(instance.allowed, instance.resources[index] - lowest[:, None], 0)
        room = instance.limits[index] - instance.base[1 + index]
        if index != main and sum(excess.max(axis=1).tolist()) <= room:
            continue  # cannot bind
        unit = int(np.gcd.reduce(excess, axis=None)) or 1
        weights.append(_as_words(excess // unit))
        slack.append(room // unit)
    lowest = instance.row_minimum(instance.omega)
    costs = _as_words(np.where(instance.allowed, instance.omega - lowest[:, None], 0))
    # Layers with few effects first keeps states few for long; ties share sums.
    spread = costs.astype(np.float64).max(axis=1)
    sequence = np.argsort(-spread, kind="stable")
    most = max_states or (MAX_STATES if len(weights) == 1 else MAX_STATES_LIMITED)
    cap = max(1, min(most, MEMORY_CODES // max(len(sequence), 1)))

    rows = [np.zeros(1, dtype=matrix.dtype) for matrix in (*weights[:-1], costs, weights[-1])]
    tables = [*weights[:-1], costs, weights[-1]]
    ceilings = [*slack[:-1], None, slack[-1]]
    codes: list[NDArray[np.int32]] = []
    width = instance.allowed.shape[1]
    bounds = None
    exact = True
    for step, layer in enumerate(sequence):
        options = np.flatnonzero(instance.allowed[layer])
        count = len(rows[0])
        if bounds is None and len(weights) > 1 and count > MANY:
            bounds = bound_set(instance.allowed, costs, weights, slack, sequence)
        points = [
            (row[None, :] + table[layer, options][:, None]).ravel()
            for row, table in zip(rows, tables, strict=True)
        ]
        code = (
            np.arange(count, dtype=np.int32) * width + options[:, None].astype(np.int32)
        ).ravel()
        fit = np.ones(len(code), dtype=bool)
        for row, ceiling in zip(points, ceilings, strict=True):
            if ceiling is not None:
                fit &= row <= ceiling
        if bounds is not None:
            fit &= bounds.alive(step + 1, points[-2], [*points[:-2], points[-1]])
        if not fit.all():
            points = [row[fit] for row in points]
            code = code[fit]
        if len(options) > 1:
            kept = _front_of(points)
            if len(kept) > cap:
                kept = kept[np.linspace(0, len(kept) - 1, cap).astype(np.int64)]
                exact = False
            points = [row[kept] for row in points]
            code = code[kept]
        rows = points
        codes.append(code)
    chosen = _trace(codes, sequence, width)
    if bounds is not None:  # known to be feasible and good: a thinned front needs them
        chosen = np.concatenate([chosen, bounds.good.astype(np.int8)])
    return chosen, exact


def _front_of(points: list[NDArray[Any]]) -> NDArray[np.int64]:
    """Non-dominated states; two coordinates, the usual case, without copying to one array."""
    if len(points) == 2:
        costs, weights = points
        order = np.lexsort((costs, weights))
        sorted_costs = costs[order]
        record = np.ones(len(order), dtype=bool)
        record[1:] = sorted_costs[1:] < np.minimum.accumulate(sorted_costs)[:-1]
        return order[record]
    if all(row.dtype == np.int64 for row in points):
        return nondominated(np.stack(points))
    ranks = [np.unique(row, return_inverse=True)[1] for row in points]
    return nondominated(np.stack(ranks))


def _as_words(matrix: NDArray[Any]) -> NDArray[Any]:
    """int64 where all sums fit, else doubles (relative accuracy 1e-16 per layer)."""
    if matrix.dtype != object:
        return matrix
    if sum(matrix.max(axis=1).tolist()) < 1 << 62:
        return matrix.astype(np.int64)
    return matrix.astype(np.float64)


def _trace(
    codes: list[NDArray[np.int32]], sequence: NDArray[np.int64], width: int
) -> NDArray[np.int8]:
    """Follow all back-pointers at once: [P, L]."""
    count = len(codes[-1])
    chosen = np.zeros((count, len(sequence)), dtype=np.int8)
    state = np.arange(count)
    for code, layer in zip(reversed(codes), sequence[::-1], strict=True):
        state, choice = np.divmod(code[state], width)
        chosen[:, layer] = choice
    return chosen


def _evaluate(
    table: LayerTable,
    instance: Instance,
    resource: str,
    chosen: NDArray[np.int8],
    exact: bool,
    limits: Mapping[str, int | float],
) -> Front:
    """Exact totals of every point; what is dominated once rounded to doubles goes."""
    omega = _totals(instance.omega, instance.digits[0], chosen).astype(np.float64)
    main = instance.columns.index(resource)
    weight = _totals(instance.resources[main], instance.digits[1 + main], chosen)
    ranks = [np.unique(values, return_inverse=True)[1] for values in (omega, weight)]
    kept = nondominated(np.stack(ranks))
    chosen = chosen[kept]
    totals = {
        column: _totals(instance.resources[position], instance.digits[1 + position], chosen)
        for position, column in enumerate(instance.columns)
    }
    decision = {name: n for n, group in enumerate(instance.members) for name in group}
    return Front(
        resource=resource,
        layers=table.layer_names,
        choices=table.choices,
        omega=omega[kept],
        totals={column: totals[column] for column in table.columns},
        assignments=chosen[:, [decision[name] for name in table.layer_names]],
        exact=exact,
        limits=dict(limits),
        table_digest=table.digest,
    )


def _totals(matrix: NDArray[Any], digits: int, chosen: NDArray[np.int8]) -> NDArray[Any]:
    """Exact sums, int64 without decimals, else rounded once to doubles."""
    sums = exact_totals(matrix, chosen)
    if digits == 0:
        return np.array(sums, dtype=np.int64)
    return np.array([to_float(total, digits) for total in sums], dtype=np.float64)

"""The exact Pareto front of total Ω against one resource, in one pass of dominance DP."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError
from mpsearch.knapsack.instance import Instance
from mpsearch.pareto.hull import EPSILON, LARGE, hull_front
from mpsearch.pareto.limited import limited_sweep
from mpsearch.pareto.sweep import Room, records, sweep, totals
from mpsearch.running.notebook import html_table
from mpsearch.tables.choice import Choice, counted
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import format_amount

if TYPE_CHECKING:
    import pandas as pd

    import mpsearch

_SHOWN = 12  # points in a notebook
MEMORY = 1_000_000_000
LIMITED = 60_000  # states with further limits, where more would take minutes, unless asked for


@dataclass(frozen=True, eq=False)
class Front:
    """Non-dominated assignments (points), by rising resource and falling Ω."""

    resource: str
    """The column that the front is against: `size_bytes`."""
    layers: tuple[str, ...]
    """L names, in the table's order."""
    choices: tuple[Choice, ...]
    """C of them, in the table's order."""
    omega: NDArray[np.float64]
    """Total Ω of each point, float [P]."""
    totals: Mapping[str, NDArray[Any]]
    """Every resource column's total of each point, [P]."""
    assignments: NDArray[np.int8]
    """int8 [P, L], indices into `choices` for `layers`."""
    epsilon: float = 0.0
    """Every assignment within the limits has a point with no more of the resource and at most 1 +
    epsilon times its Ω; 0.0 on an exact front, where no point is missing (totals Ω that agree to 14
    digits count as equal)."""
    limits: Mapping[str, int | float] = field(default_factory=dict)
    """Limited key -> upper limit, which every point keeps; empty: none."""
    table_digest: str = ""
    """Of the table that it is of; empty: not known."""
    measured: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Column, accuracy, agreement or loss, -> its value [P], NaN where a point was not measured;
    empty: none was."""
    at_least: Mapping[str, int | float] = field(default_factory=dict)
    """Limited key -> lower limit, which every point keeps; empty: none."""
    search: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What else was asked, by option of `mpsearch front`: `{"pin": ("conv1=w8a8",)}`."""
    measurement: Mapping[str, Any] = field(default_factory=dict)
    """On which network and data points were measured; empty: none was."""
    table: LayerTable | None = None
    """The table that it is of, and in memory what that was profiled from; None: not known."""

    if TYPE_CHECKING:  # bound by the package

        def measure(
            self, points: int | str = 12, *, at: Any = (), **settings: Any
        ) -> "mpsearch.Front":
            """`evaluate --front` of this one."""
            raise NotImplementedError

        def plot(self, path: Any = None) -> Any:
            """`front --plot` of this one."""
            raise NotImplementedError

    def __len__(self) -> int:
        return len(self.omega)

    def __repr__(self) -> str:
        return f"Front({'; '.join(self._lines())})"

    def _lines(self) -> list[str]:
        if not len(self):
            return ["no points: the limits are infeasible"]
        ends = (format_amount(self.resource, self.totals[self.resource][end]) for end in (0, -1))
        kind = "exact" if self.exact else f"within a factor {1 + self.epsilon:.6g}"
        found = self.measured.get(self.score)
        measured = 0 if found is None else int(np.count_nonzero(~np.isnan(found)))
        return [
            f"{len(self)} points of Ω against {self.resource}, {' to '.join(ends)}; {kind}",
            *([f"{measured} of them measured"] if measured else []),
        ]

    def _repr_html_(self) -> str:
        """For notebooks: some of the points, spread over the front."""
        rows = []
        for point in self.thin(_SHOWN).tolist() if len(self) else []:
            cells = [f"{self.omega[point]:.4g}"]
            cells += [format_amount(name, values[point]) for name, values in self.totals.items()]
            if self.score in self.measured:
                value = self.measured[self.score][point]
                cells.append("" if np.isnan(value) else f"{100 * value:.2f} %")
            rows.append([*cells, counted(self.assignment(point).values())])
        measured = [self.score] if self.score in self.measured else []
        return html_table(self._lines(), ["Ω", *self.totals, *measured, "layers"], rows)

    def to_pandas(self) -> "pd.DataFrame":
        """One row for each point, as front.csv has it: Ω, totals, layers at each choice, and what
        was measured."""
        import pandas as pd

        counts = {str(c): self.counts[:, place] for place, c in enumerate(self.choices)}
        return pd.DataFrame({"omega": self.omega, **self.totals, **counts, **self.measured})

    @property
    def score(self) -> str:
        """Which column says how good measured points are: without labels `agreement`."""
        return "agreement" if "agreement" in self.measured else "accuracy"

    @property
    def exact(self) -> bool:
        """Whether no non-dominated point is missing."""
        return self.epsilon == 0

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """[P, C]: how many layers have each choice."""
        numbers = [
            np.count_nonzero(self.assignments == c, axis=1) for c in range(len(self.choices))
        ]
        return np.stack(numbers, axis=1) if numbers else np.zeros((len(self), 0), dtype=np.int64)

    @property
    def used(self) -> tuple[Choice, ...]:
        """The choices that some layer has at some point, ascending."""
        return tuple(self.choices[place] for place in np.unique(self.assignments).tolist())

    def assignment(self, point: int) -> dict[str, Choice]:
        """Choice by layer name of one point."""
        indices = self.assignments[point].tolist()
        return {name: self.choices[c] for name, c in zip(self.layers, indices, strict=True)}

    def part(self, kept: Any) -> "Front":
        """Some of its points, ascending, as numpy indexes them: a slice, a mask, numbers."""
        return replace(
            self,
            omega=self.omega[kept],
            totals={name: values[kept] for name, values in self.totals.items()},
            assignments=self.assignments[kept],
            measured={name: values[kept] for name, values in self.measured.items()},
        )

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
    max_memory: int | None = None,
    at_least: Mapping[str, int | float] | None = None,
    epsilon: float | None = None,
) -> Front:
    """All non-dominated (Ω, resource) points of a table within limits (see mpsearch.tables.budget).

    After each layer only states that no other one beats in Ω, resource and limited columns are
    kept (Nemhauser and Ullmann, 1969), and with further limits those that bounds leave a chance.
    Where more states than fit `max_memory` bytes (or than `max_states`) remain, some are dropped
    (default: 1 GB, and with further limits no more than 60,000 states per layer):
    the points are feasible, some are missing, and `epsilon` says how much that can matter. Empty
    where the limits are infeasible.

    epsilon: keep only as many points as are within the factor 1 + epsilon of the best Ω at every
    amount of the resource; the front says what is proven. None: all of them, but from 1,000
    decisions on without further limits, memory or states 0.01: exact ones take too long there, and
    corners of the layers' hulls are taken (mpsearch.pareto.hull). InputError where it is not above
    zero.
    """
    if epsilon is not None and not 0 < epsilon < np.inf:
        raise InputError(f"got epsilon {epsilon:g}; expected a number above zero, such as 0.01")
    limits = dict(limits or {})
    table.resource(resource)
    at_least = dict(at_least or {})
    instance = Instance.build(
        table, limits, pins, exclude, table.columns, at_least, paid=(resource,)
    )
    main = instance.columns.index(resource)
    if instance.is_empty:
        chosen, proven = np.zeros((len(instance.members), 0), dtype=np.int8), 0.0
    else:
        chosen, proven = _sweep(instance, main, max_states, max_memory, epsilon)
    found = _evaluate(table, instance, resource, chosen, proven, limits)
    found = replace(found, at_least=at_least)
    if epsilon is None or found.epsilon >= epsilon:
        return found
    return _within(found, (1 + epsilon) / (1 + found.epsilon) - 1)


def _within(found: Front, epsilon: float) -> Front:
    """The points that a factor of 1 + epsilon needs, among those of a front."""
    kept = [0] if len(found) else []
    worst, end = 1.0, len(found) - 1
    while kept and kept[-1] < end:
        known = found.omega[kept[-1]]
        # the last point that is not cheaper than by the factor: it need not be there
        last = int(np.searchsorted(-found.omega, -known / (1 + epsilon), side="right")) - 1
        following = min(last + 1, end)
        if following - 1 > kept[-1]:
            worst = max(worst, float(known / found.omega[following - 1]))
        kept.append(following)
    if len(kept) == len(found):
        return found
    return replace(found.part(kept), epsilon=(1 + found.epsilon) * worst * (1 + 1e-12) - 1)


def _sweep(
    instance: Instance,
    main: int,
    max_states: int | None,
    max_memory: int | None,
    epsilon: float | None,
) -> tuple[NDArray[np.int8], float]:
    """Choices [L, P] of the surviving states, and ε: 0.0 where none was dropped for its room."""
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
        excess, room = excess // unit, room // unit
        most = sum(excess.max(axis=1).tolist())
        unit = 1 if most < 1 << 62 else 1 << (most.bit_length() - 60)  # limits stay in int64
        weights.append(_as_words(excess, unit))
        slack.append(-(-room // unit))
    lowest = instance.row_minimum(instance.omega)
    excess = np.where(instance.allowed, instance.omega - lowest[:, None], 0)
    # As integers Ω may take 2,160 bits; then its own unit, in which every Ω is a double, is used.
    span = sum(excess.max(axis=1).tolist()) + instance.base[0]
    unit = 1 if span.bit_length() <= 1000 else 10 ** instance.digits[0]
    costs = _as_words(excess, unit)
    most = max_states
    if len(weights) > 1 and max_memory is None:
        most = max_states or LIMITED
    room_for = Room(max_memory or MEMORY, most)
    base = _float(instance.base[0], unit)
    large = len(instance.members) >= LARGE and max_memory is None and max_states is None
    if large and len(weights) == 1:
        factor = EPSILON if epsilon is None else epsilon
        return hull_front(instance.allowed, costs, weights[0], slack[0], base, factor)
    if len(weights) == 1:
        return sweep(instance.allowed, costs, weights[0], slack[0], room_for, base)
    return limited_sweep(instance.allowed, costs, weights, slack, room_for, base)


def _as_words(matrix: NDArray[Any], unit: int = 1) -> NDArray[Any]:
    """int64 where all sums fit, else doubles (relative accuracy 1e-16 per layer), in this unit."""
    if matrix.dtype != object:
        return matrix
    if unit == 1 and sum(matrix.max(axis=1).tolist()) < 1 << 62:
        return matrix.astype(np.int64)
    words: NDArray[np.float64] = np.vectorize(_float, otypes=[np.float64])(matrix, unit)
    return words


def _float(value: int, unit: int) -> float:
    return float(Fraction(value, unit))


def _evaluate(
    table: LayerTable,
    instance: Instance,
    resource: str,
    chosen: NDArray[np.int8],
    epsilon: float,
    limits: Mapping[str, int | float],
) -> Front:
    """Exact totals of every point; what is dominated once rounded to doubles goes."""
    main = instance.columns.index(resource)
    sums = totals([instance.omega, *instance.resources], list(instance.digits), chosen)
    omega = sums[0].astype(np.float64)
    order = np.lexsort((omega, sums[1 + main]))
    kept = order[records(sums[1 + main][order], omega[order])]
    by_column = {
        column: sums[1 + position][kept]
        for position, column in enumerate(instance.columns)
        if instance.mosts[position] is None
    }
    decision = {name: n for n, group in enumerate(instance.members) for name in group}
    rows = [decision[name] for name in table.layer_names]
    if rows != list(range(len(chosen))):
        chosen = chosen[rows]
    if not np.array_equal(kept, np.arange(len(omega))):
        chosen = chosen[:, kept]
    return Front(
        resource=resource,
        layers=table.layer_names,
        choices=table.choices,
        omega=omega[kept],
        totals={column: by_column[column] for column in table.columns},
        assignments=chosen.T,
        epsilon=epsilon,
        limits=dict(limits),
        table_digest=table.digest,
    )

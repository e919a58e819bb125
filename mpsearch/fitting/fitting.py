"""The least Ω among the assignments whose memory, as the C export places it, is small enough.

The knapsack gets the steps of the network as limits (`limits`), which no assignment that fits
breaks. What it answers is planned; where it does not fit, it is cut off and the knapsack is asked
again. So the first answer that fits is the best one that does, as far as the solver proves it.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from mpsearch.errors import InputError
from mpsearch.fitting.limits import Limit, cut, footprints, step_limits, with_columns
from mpsearch.fitting.memory import Lives, Moment, Planned
from mpsearch.fitting.sizes import Sizes
from mpsearch.tables.budget import Budget, Minimand
from mpsearch.tables.choice import Choice
from mpsearch.tables.solution import Smallest, Solution
from mpsearch.tables.table import LayerTable

RAM = "ram_bytes"
SECONDS = 60.0  # of cutting, where no time limit is given
_FLOAT_BITS = 32
_DESCENTS = 3

Excludes = Mapping[str, Collection[Choice]]


class Asking(Protocol):
    """`search.solving.solve` with everything that stays the same from one call to the next."""

    def __call__(
        self, table: LayerTable, budget: Budget, *, exclude: Excludes, minimize: Minimand,
        time_limit: float | None,
    ) -> Solution: ...  # fmt: skip


@dataclass(frozen=True)
class Holding:
    """The smallest memory that an assignment takes, and what holds it."""

    size: int
    is_proven: bool
    """Whether no assignment takes less."""
    least: int
    """What no assignment goes below."""
    moment: Moment


@dataclass(frozen=True)
class Fitted:
    """A solution whose totals have `ram_bytes`."""

    solution: Solution
    lives: Lives | None
    cuts: int
    holding: Holding | None = None
    """Where nothing fits."""


@dataclass
class Fitting:
    """One table, its network's memory, and the solver that is asked."""

    table: LayerTable
    planned: Planned
    ask: Asking
    pins: Mapping[str, Choice]
    exclude: Excludes
    minimize: Minimand = field(default_factory=Minimand)
    sizes: Sizes = field(init=False)

    def __post_init__(self) -> None:
        self.sizes = Sizes(
            self.planned, _allowed(self.table, self.planned, self.pins, self.exclude)
        )

    def fit(self, budget: Budget, most: int, time_limit: float | None = None) -> Fitted:
        """The best assignment within `budget` and `most` bytes of RAM."""
        started = time.monotonic()
        deadline = started + (SECONDS if time_limit is None else time_limit)
        limits = [*step_limits(self.sizes, most), *footprints(self.sizes)]
        cuts = 0
        while True:
            solution = self._asked(budget, limits, time_limit, deadline)
            if not solution.choices:
                break
            lives = self.planned.lives(solution.choices)
            if lives.peak_bytes <= most:
                return Fitted(self._finished(solution, budget, most, started), lives, cuts)
            if time.monotonic() > deadline:
                return self._unfinished(solution, budget, most, started, cuts)
            cuts += 1
            limits.append(cut(self.sizes, solution.choices, most, cuts))
        holding = self.smallest() if solution.status == "infeasible" else None
        finished = self._finished(solution, budget, most, started)
        if holding is not None:
            finished = self._explained(finished, budget, most, holding)
        return Fitted(finished, None, cuts, holding)

    def _asked(
        self, budget: Budget, limits: Sequence[Limit], time_limit: float | None, deadline: float,
    ) -> Solution:  # fmt: skip
        table, more = with_columns(self.table, self.sizes, limits)
        wider = Budget({**budget.limits, **more}, budget.at_least)
        left = None if time_limit is None else max(0.0, deadline - time.monotonic())
        return self.ask(table, wider, exclude=self._unfit, minimize=self.minimize, time_limit=left)

    @property
    def _unfit(self) -> Excludes:
        """What is excluded, and choices in float, which have no integer form."""
        floats = {choice for choice in self.table.choices if _is_float(choice)}
        return {**self.exclude, "": {*self.exclude.get("", ()), *floats}}

    def _finished(self, solution: Solution, budget: Budget, most: int, started: float) -> Solution:
        """With the table's columns and the memory, and without those of steps."""
        kept = {*self.table.columns, *budget.limits, *budget.at_least}
        totals = {key: value for key, value in solution.totals.items() if key in kept}
        if solution.choices:
            totals[RAM] = self.planned.lives(solution.choices).peak_bytes
        return replace(
            solution,
            totals=totals,
            limits={**budget.limits, RAM: most},
            seconds=time.monotonic() - started,
        )

    def _unfinished(
        self, relaxed: Solution, budget: Budget, most: int, started: float, cuts: int
    ) -> Fitted:
        """Out of time: the best within less memory, of which places take the rest; the bound stays
        that of the last answer."""
        tight = most
        for _ in range(8):
            limits = [*step_limits(self.sizes, tight), *footprints(self.sizes)]
            solution = self._asked(budget, limits, 1.0, time.monotonic() + 1.0)
            if not solution.choices:
                break
            lives = self.planned.lives(solution.choices)
            if lives.peak_bytes <= most:
                gap = None
                if solution.objective is not None and relaxed.bound is not None:
                    gap = solution.objective - relaxed.bound
                    gap = gap / abs(solution.objective) if solution.objective else 0.0
                solution = replace(
                    solution, status="feasible", bound=relaxed.bound, gap=gap, smallest={}
                )
                return Fitted(self._finished(solution, budget, most, started), lives, cuts)
            tight -= max(1, lives.peak_bytes - most)
        nothing = replace(
            relaxed, status="no-solution", choices={}, objective=None, gap=None, totals={},
            omega=None, smallest={},
        )  # fmt: skip
        return Fitted(self._finished(nothing, budget, most, started), None, cuts)

    def _explained(
        self, solution: Solution, budget: Budget, most: int, holding: Holding
    ) -> Solution:
        """Infeasible: the smallest memory, alone and with the other limits."""
        others = self._asked(budget, footprints(self.sizes), None, 0.0)
        if not others.choices:  # infeasible without any limit on memory
            smallest: dict[str, Smallest] = dict(others.smallest)
            smallest[RAM] = Smallest(holding.size, None)
            return replace(solution, smallest=smallest)
        if not (budget.limits or budget.at_least):
            return replace(solution, smallest={RAM: Smallest(holding.size, holding.size)})
        found = self.planned.lives(others.choices).peak_bytes
        low, high = max(most, holding.size - 1), found
        for _ in range(12):
            if high - low <= 1:
                break
            tried = self.fit_quietly(budget, (low + high) // 2)
            low, high = (low, tried) if tried is not None else ((low + high) // 2, high)
        return replace(solution, smallest={RAM: Smallest(holding.size, high)})

    def fit_quietly(self, budget: Budget, most: int) -> int | None:
        """The memory of an assignment within `most`; None where none is found soon."""
        limits = [*step_limits(self.sizes, most), *footprints(self.sizes)]
        for number in range(1, 20):
            solution = self._asked(budget, limits, 2.0, time.monotonic() + 2.0)
            if not solution.choices:
                return None
            lives = self.planned.lives(solution.choices)
            if lives.peak_bytes <= most:
                return lives.peak_bytes
            limits.append(cut(self.sizes, solution.choices, most, number))
        return None

    def smallest(self) -> Holding:
        """The least memory of any assignment: from the fewest bits everywhere, layer by layer."""
        least = max(
            (sum(part.least for part in parts) for parts in self.sizes.functions.values()),
            default=0,
        )
        chosen = dict.fromkeys(self.sizes.classes, 0)
        best = self.sizes.lives(chosen)
        for _ in range(_DESCENTS):
            before = best.peak_bytes
            for name, classes in self.sizes.classes.items():
                for number in range(len(classes)):
                    if best.peak_bytes <= least:
                        break
                    lives = self.sizes.lives({**chosen, name: number})
                    if lives.peak_bytes < best.peak_bytes:
                        chosen, best = {**chosen, name: number}, lives
            if best.peak_bytes == before:
                break
        return Holding(best.peak_bytes, best.peak_bytes <= least, least, best.fullest)


def _is_float(choice: Choice) -> bool:
    return _FLOAT_BITS in (choice.w_bits, choice.a_bits)


def _allowed(
    table: LayerTable, planned: Planned, pins: Mapping[str, Choice], exclude: Excludes
) -> dict[str, list[Choice]]:
    """What every layer may have, in integers. Raises InputError for a layer that may have nothing,
    and for layers that table and network do not share."""
    wanted = set(planned.layers)
    if not wanted <= set(table.layer_names):
        name = min(wanted - set(table.layer_names))
        raise InputError(
            f"{table.source} has no layer {name!r}, which the lifetimes beside it know",
            "profile the model again: the two are of different networks",
        )
    members: dict[str, list[int]] = {}
    for number, layer in enumerate(table.layers):
        members.setdefault(layer.group or f"layer {layer.name}", []).append(number)
    found = {}
    for group in members.values():
        left = set(table.choices)
        for number in group:
            name = table.layer_names[number]
            rows = zip(table.choices, table.row_index[number].tolist(), strict=True)
            left &= {choice for choice, row in rows if row >= 0}
            left -= {*exclude.get("", ()), *exclude.get(name, ())}
            if name in pins:
                left &= {pins[name]}
        for number in group:
            name = table.layer_names[number]
            integer = sorted(choice for choice in left if not _is_float(choice))
            if left and not integer:
                raise InputError(
                    f"layer {name!r} may only be in float ({min(left)}); --ram is about integers: "
                    "let it have 2 to 8 or 16 bits"
                )
            if name in wanted:
                found[name] = integer or sorted(table.choices)[:1]
    return found

"""The least Ω among the assignments whose memory, as the C export places it, is small enough.

The knapsack gets the steps of the network as limits (`limits`), which no assignment that fits
breaks. What it answers is planned; where it does not fit, it is cut off and the knapsack is asked
again. So the first answer that fits is the best one that does, as far as the solver proves it.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Protocol

from mpsearch.errors import InputError
from mpsearch.fitting.limits import (
    Limit,
    cut,
    footprints,
    smallest_possible,
    step_limits,
    with_columns,
)
from mpsearch.fitting.memory import Lives, Moment, Planned
from mpsearch.fitting.sizes import Sizes
from mpsearch.tables.budget import Budget, Minimand
from mpsearch.tables.choice import Choice
from mpsearch.tables.solution import Smallest, Solution, Useful
from mpsearch.tables.stored_widths import in_integers
from mpsearch.tables.table import LayerTable

RAM, FLASH = "ram_bytes", "flash_bytes"
SECONDS = 60.0  # of cutting, where no time limit is given
_SMALLEST = 5.0  # seconds for the smallest memory that there is
_IDLE = 0.5  # to find where a limit that does not bind would: a line that nobody asked for
_TIGHTER = 8

Excludes = Mapping[str, Collection[Choice]]


class Asking(Protocol):
    """`search.solving.solve` with everything that stays the same from one call to the next."""

    def __call__(
        self,
        table: LayerTable,
        budget: Budget,
        *,
        exclude: Excludes,
        minimize: Minimand,
        time_limit: float | None,
        explain: bool,
    ) -> Solution: ...


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

    def fit(
        self, budget: Budget, most: int, time_limit: float | None = None, idle: bool = True
    ) -> Fitted:
        """The best assignment within `budget` and `most` bytes of RAM. idle: look where less RAM
        would make a difference, if this makes none."""
        started = time.monotonic()
        deadline = started + (SECONDS if time_limit is None else time_limit)
        solution, lives, cuts = self._search(budget, most, deadline, time_limit)
        if lives is None and solution.choices:
            solution, lives = self._within_less(solution, budget, most)
        holding = None
        if solution.status == "infeasible":
            holding, smallest = self._explained(budget)
            solution = replace(solution, smallest=smallest)
        kept = {*self.table.columns, *budget.limits, *budget.at_least}
        totals = {key: value for key, value in solution.totals.items() if key in kept}
        if lives is not None:
            totals[RAM] = lives.peak_bytes
            useful = self._not_binding(budget, solution, lives) if idle else None
            solution = replace(solution, not_binding={} if useful is None else {RAM: useful})
        seconds = time.monotonic() - started
        solution = replace(
            solution, totals=totals, limits={**budget.limits, RAM: most}, seconds=seconds
        )
        return Fitted(solution, lives, cuts, holding)

    def _search(
        self, budget: Budget, most: int, deadline: float, time_limit: float | None = None
    ) -> tuple[Solution, Lives | None, int]:
        """(the best that fits or does until the deadline, its memory where it fits, cuts)."""
        limits = [*step_limits(self.sizes, most), *footprints(self.sizes)]
        for cuts in count():
            left = None if time_limit is None else max(0.0, deadline - time.monotonic())
            solution = self._asked(budget, limits, left)
            if not solution.choices:
                return solution, None, cuts
            lives = self.planned.lives(solution.choices)
            if lives.peak_bytes <= most:
                return solution, lives, cuts
            if time.monotonic() > deadline:
                return solution, None, cuts
            limits.append(cut(self.sizes, solution.choices, most, cuts + 1))
        raise AssertionError

    def _asked(
        self,
        budget: Budget,
        limits: Sequence[Limit],
        time_limit: float | None,
        explain: bool = False,
    ) -> Solution:
        table, more = with_columns(self.table, self.sizes, limits)
        return self.ask(
            table,
            Budget({**budget.limits, **more}, budget.at_least),
            exclude=self._unfit,
            minimize=self.minimize,
            time_limit=time_limit,
            explain=explain,
        )

    @property
    def _unfit(self) -> Excludes:
        """What is excluded, and choices that have no integer form."""
        others = {choice for choice in self.table.choices if not in_integers(choice)}
        return {**self.exclude, "": {*self.exclude.get("", ()), *others}}

    def _within_less(
        self, relaxed: Solution, budget: Budget, most: int
    ) -> tuple[Solution, Lives | None]:
        """Out of time: the best within less memory, of which places take the rest; the bound stays
        that of the last answer."""
        tight = most
        for _ in range(_TIGHTER):
            limits = [*step_limits(self.sizes, tight), *footprints(self.sizes)]
            solution = self._asked(budget, limits, 1.0)
            if not solution.choices:
                break
            lives = self.planned.lives(solution.choices)
            if lives.peak_bytes <= most:
                gap = None
                if solution.objective is not None and relaxed.bound is not None:
                    size = abs(solution.objective)
                    gap = (solution.objective - relaxed.bound) / size if size else 0.0
                return replace(solution, status="feasible", bound=relaxed.bound, gap=gap), lives
            tight -= lives.peak_bytes - most
        nothing = replace(
            relaxed,
            status="no-solution",
            choices={},
            objective=None,
            gap=None,
            totals={},
            omega=None,
        )
        return nothing, None

    def _not_binding(self, budget: Budget, solution: Solution, lives: Lives) -> Useful | None:
        """Where less memory would make a difference, if what there is makes none; by bisection.
        None where that is not proven in `_IDLE` seconds."""
        if solution.status != "optimal":
            return None
        deadline = time.monotonic() + _IDLE
        free = self._asked(budget, footprints(self.sizes), _IDLE)
        if free.status != "optimal" or free.objective != solution.objective:
            return None
        holding = self.smallest(budget, max(0.0, deadline - time.monotonic()), True)
        if holding is None or not holding.is_proven:
            return None
        low, high = holding.size, lives.peak_bytes
        while low < high:
            tried, there, _ = self._search(budget, (low + high) // 2, deadline, _IDLE)
            if tried.status not in ("optimal", "infeasible") or (tried.choices and there is None):
                return None
            if there is not None and tried.objective == free.objective:
                high = there.peak_bytes
            else:
                low = (low + high) // 2 + 1
        return Useful(holding.size, high)

    def _explained(self, budget: Budget) -> tuple[Holding | None, dict[str, Smallest]]:
        """Where nothing fits: the smallest memory and what holds it; alone and with the others."""
        found: dict[str, Smallest] = {}
        holding = self.smallest(Budget())
        within = self.smallest(budget) if budget.limits or budget.at_least else holding
        if within is None:  # infeasible whatever the memory
            limited = {*budget.limits, *(f">={key}" for key in budget.at_least)}
            others = self._asked(budget, footprints(self.sizes), None, explain=True)
            found = {key: one for key, one in others.smallest.items() if key in limited}
        if holding is not None:
            found[RAM] = Smallest(holding.size, None if within is None else within.size)
        return holding, found

    def smallest(
        self, budget: Budget, seconds: float = _SMALLEST, bounded: bool = False
    ) -> Holding | None:
        """The least memory of any assignment within a budget, by bisection; None where nothing is
        within it. bounded: a question that is asked has no more seconds either."""
        deadline = time.monotonic() + seconds
        limit = seconds if bounded else None
        solution = self._asked(budget, footprints(self.sizes), limit)
        if not solution.choices:
            return None
        best, least = self.planned.lives(solution.choices), smallest_possible(self.sizes)
        while least < best.peak_bytes and time.monotonic() < deadline:
            tried = (least + best.peak_bytes - 1) // 2
            solution, lives, _ = self._search(budget, tried, deadline, limit)
            if lives is not None:
                best = lives
            elif solution.status == "infeasible":
                least = tried + 1
            else:
                break
        return Holding(best.peak_bytes, best.peak_bytes <= least, least, best.fullest)


def without_memory(solution: Solution, target: str | None) -> tuple[Solution, dict[str, Any]]:
    """A fitted solution as of its table alone, and what assignment.json says of its memory."""
    memory: dict[str, Any] = {"target": target}
    for key in (RAM, FLASH):
        if key in solution.limits:
            name = key.removesuffix("_bytes")
            memory |= {key: solution.totals[key], f"{name}_limit": solution.limits[key]}
    totals = {key: value for key, value in solution.totals.items() if key not in (RAM, FLASH)}
    limits = {key: value for key, value in solution.limits.items() if key not in (RAM, FLASH)}
    return replace(solution, totals=totals, limits=limits), memory


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
            integer = sorted(filter(in_integers, left))
            if left and not integer:
                only = min(left)
                what = "in another tool's format" if only.label else "in float"
                what = "with groups of weights" if only.group_size else what
                raise InputError(
                    f"layer {name!r} may only be {what} ({only}); --ram is about integers: "
                    "let it have 2 to 8 or 16 bits"
                )
            if name in wanted:
                found[name] = integer or sorted(table.choices)[:1]
    return found

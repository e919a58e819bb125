"""The best assignment whose code and constants a microcontroller's flash holds.

Which kernels are used is a fixed charge: for every set of kernels of layers, the best assignment
that needs no others and whose constants fit what their code leaves; and the best of these.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from mpsearch.exporters.c.code_bytes import Flash
from mpsearch.fitting.fitting import FLASH, RAM, Excludes, Fitted, Fitting
from mpsearch.fitting.flash import charges
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.solution import Smallest, Solution

SIZE = "size_bytes"


def fit_in_flash(
    fitting: Fitting, budget: Budget, most: int, flash: Flash, room: int,
    time_limit: float | None = None,
) -> Fitted:  # fmt: skip
    """As `Fitting.fit`, and within `room` bytes of flash. The totals have `flash_bytes`."""
    known = charges(fitting.sizes, flash)
    limits = {**budget.limits, RAM: most, FLASH: room}
    found: list[Fitted] = []
    failed: list[Fitted] = []
    for functions in known.sets():
        left = room - known.of(functions)
        if left < 0:
            continue
        within = {**budget.limits, SIZE: min(left, budget.limits.get(SIZE, left))}
        part = Fitting(
            fitting.table, fitting.planned, fitting.ask, fitting.pins,
            _both(fitting.exclude, known.outside(functions)), fitting.minimize,
        )  # fmt: skip
        # where the RAM of one set does not bind, that of another may
        fitted = part.fit(Budget(within, budget.at_least), most, time_limit, idle=False)
        (found if fitted.solution.choices else failed).append(fitted)
    if not found:
        least = min(known.of(one) + _fewest(fitting, known.outside(one)) for one in known.sets())
        return _nothing(failed, limits, least)
    best = min(found, key=lambda one: one.solution.objective or 0.0)
    solution = best.solution
    proven = all(one.solution.status == "optimal" for one in found)
    proven = proven and all(one.solution.status == "infeasible" for one in failed)
    if not proven:
        bounds = [one.solution.bound for one in found if one.solution.bound is not None]
        solution = replace(solution, status="feasible", bound=min(bounds, default=None))
    used = known.of(known.used(solution.choices)) + int(solution.totals[SIZE])
    totals = {**solution.totals, FLASH: used}
    return replace(best, solution=replace(solution, totals=totals, limits=limits))


def _both(exclude: Excludes, more: Mapping[str, Collection[Choice]]) -> Excludes:
    names = exclude.keys() | more.keys()
    return {name: {*exclude.get(name, ()), *more.get(name, ())} for name in names}


def _fewest(fitting: Fitting, outside: Mapping[str, Collection[Choice]]) -> int:
    """Bytes of layers that none of these choices goes below."""
    sizes, total = fitting.table.column(SIZE), 0
    for name, allowed in fitting.sizes.choices.items():
        rows = [
            fitting.table.row_of(name, choice)
            for choice in allowed if choice not in outside.get(name, ())
        ]  # fmt: skip
        total += min((int(sizes[row]) for row in rows), default=0)
    return total


def _nothing(failed: list[Fitted], limits: Mapping[str, int | float], least: int) -> Fitted:
    """What the smallest code and constants take together; the memory's own reason where it is
    that."""
    fits = least <= limits[FLASH]
    if failed and fits:
        reason = failed[-1]
        smallest = {FLASH: Smallest(least, None)} | dict(reason.solution.smallest)
        smallest.pop(SIZE, None)
        return replace(reason, solution=replace(reason.solution, limits=limits, smallest=smallest))
    return Fitted(
        Solution(
            "infeasible", {}, None, None, None, 0.0, "lagrangian", {}, limits,
            {FLASH: Smallest(least, None)},
        ),
        None,
        0,
    )  # fmt: skip

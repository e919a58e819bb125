"""`mpsearch solve --ram`: the least Ω that a device's memory holds."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mpsearch.exporters.c.code_bytes import flash_of
from mpsearch.exporters.c.targets import find_target
from mpsearch.fitting.fitting import FLASH, Fitted, Fitting
from mpsearch.fitting.in_flash import fit_in_flash
from mpsearch.fitting.memory import Moment, Planned
from mpsearch.integer.template import template_from_json
from mpsearch.refining.candidates import Asked
from mpsearch.search.solving import solve as solve_table
from mpsearch.tables.budget import Minimand
from mpsearch.tables.provenance import LIFETIMES, load_provenance
from mpsearch.tables.units import LARGEST_SIZE, format_feasible, parse_bytes

if TYPE_CHECKING:
    from mpsearch.commands.solve import SolveRequest

_SHOWN = 6  # tensors of a step


def solve_fitted(
    request: "SolveRequest", asked: Asked, minimand: Minimand, options: Mapping[str, str]
) -> Fitted:
    """The best assignment within the budget and --ram. Raises InputError for a table without
    lifetimes, a network without integer form, and an unknown --target."""
    most = LARGEST_SIZE if request.ram is None else parse_bytes(request.ram)
    room = None if request.flash is None else parse_bytes(request.flash)
    family = find_target(request.target).family
    document = load_provenance(request.table_path).get(LIFETIMES)
    template = template_from_json(document, request.table_path)
    ask = partial(
        solve_table,
        solver=request.solver,
        pins=asked.pins,
        options=options,
        max_distinct=asked.max_distinct,
    )
    fitting = Fitting(
        asked.table, Planned.of(template, family), ask, asked.pins, asked.exclude, minimand
    )
    if room is None:
        return fitting.fit(asked.budget, most, request.time_limit)
    flash = flash_of(str(request.target))
    return fit_in_flash(fitting, asked.budget, most, flash, room, request.time_limit)


def to_document(fitted: Fitted) -> dict[str, Any]:
    """What --json adds: the fullest step, and where nothing fits the smallest memory."""
    document: dict[str, Any] = {"cuts": fitted.cuts}
    if fitted.lives is not None:
        document["ram_bytes"] = fitted.lives.peak_bytes
        document["fullest"] = _moment(fitted.lives.fullest)
    if fitted.holding is not None:
        document["smallest"] = {
            "ram_bytes": fitted.holding.size,
            "proven": fitted.holding.is_proven,
            "no_less_than": fitted.holding.least,
            "fullest": _moment(fitted.holding.moment),
        }
    return document


def _moment(moment: Moment) -> dict[str, Any]:
    return {
        "step": moment.title,
        "bytes": moment.size,
        "parts": [{"tensors": list(part.names), "bytes": part.size} for part in moment.parts],
    }


def lines_of(fitted: Fitted) -> list[str]:
    """Which step takes the most of what was found; or what keeps the memory from being smaller."""
    if fitted.lives is not None:
        lines = [f"RAM is fullest in {_words(fitted.lives.fullest)}"]
        if FLASH in fitted.solution.totals:
            lines.append(
                "flash_bytes is a forecast, at most: constants, the most that factors and tables "
                "may take, and the code that the target's firmware may need"
            )
        return lines
    holding = fitted.holding
    if holding is None:
        return []
    proof = (
        "no assignment takes less" if holding.is_proven
        else f"the smallest found; none takes less than {holding.least:,} B"
    )  # fmt: skip
    return [
        f"  {format_feasible('ram_bytes', holding.size)} of RAM is needed ({proof}), by "
        f"{_words(holding.moment)}"
    ]


def _words(moment: Moment) -> str:
    parts: Sequence[Any] = sorted(moment.parts, key=lambda part: -part.size)
    words = [f"{' over '.join(part.names[::-1])} {part.size:,} B" for part in parts[:_SHOWN]]
    if len(parts) > _SHOWN:
        words.append(f"{len(parts) - _SHOWN} more")
    return f"{moment.title}: {', '.join(words)}"

"""`solve` within the memory of a device: tensors in RAM, code and constants in flash."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from mpsearch.errors import InputError
from mpsearch.exporters.c.code_bytes import flash_of
from mpsearch.exporters.c.targets import find_target
from mpsearch.fitting.fitting import FLASH, RAM, Fitting, without_memory
from mpsearch.fitting.in_flash import fit_in_flash
from mpsearch.fitting.memory import Planned
from mpsearch.integer.template import template_from_json
from mpsearch.python.limits import amount_text
from mpsearch.refining.candidates import Asked
from mpsearch.search.solving import solve as solve_table
from mpsearch.tables.budget import Minimand
from mpsearch.tables.provenance import LIFETIMES
from mpsearch.tables.solution import Solution
from mpsearch.tables.units import LARGEST_SIZE, parse_bytes


def solve_within_memory(
    asked: Asked,
    minimand: Minimand,
    ram: str | int | None,
    flash: str | int | None,
    target: str | None,
    solver: str,
    time_limit: float | None,
    options: Mapping[str, Any],
) -> Solution:
    """The best assignment within `ram` and `flash` bytes, as `mpsearch solve --ram` finds it.

    Raises InputError for a table whose provenance has no lifetimes of tensors, a network without
    integer form, an unknown target, and flash without one.
    """
    if flash is not None and target is None:
        raise InputError(
            "flash counts code, which differs from processor to processor; give target too, such "
            'as target="cortex-m4"'
        )
    most = LARGEST_SIZE if ram is None else parse_bytes(amount_text("ram", RAM, ram))
    table = asked.table
    template = template_from_json(table.provenance.get(LIFETIMES), table.source)
    ask = partial(
        solve_table, solver=solver, pins=asked.pins, options=options,
        max_distinct=asked.max_distinct,
    )  # fmt: skip
    planned = Planned.of(template, find_target(target).family)
    fitting = Fitting(table, planned, ask, asked.pins, asked.exclude, minimand)
    if flash is None:
        fitted = fitting.fit(asked.budget, most, time_limit)
    else:
        room = parse_bytes(amount_text("flash", FLASH, flash))
        fitted = fit_in_flash(fitting, asked.budget, most, flash_of(str(target)), room, time_limit)
    if not fitted.solution.choices:
        return fitted.solution
    _, memory = without_memory(fitted.solution, target)
    return replace(fitted.solution, records={"memory": memory})

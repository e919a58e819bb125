"""What if: the best assignment under the same limits once some layers are pinned."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from mpsearch.explaining.explaining import Excludes, Pins, check_table, indices
from mpsearch.knapsack.instance import Instance
from mpsearch.search.solving import solve
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable


@dataclass(frozen=True)
class WhatIf:
    """The optimum with further pins: omega is its Ω less the assignment's, None if there is none.

    changed: layer -> its choices before and after; changes: column -> by how much totals move.
    """

    pins: Mapping[str, Choice]
    solution: Solution
    omega: float | None = None
    changed: Mapping[str, tuple[Choice, Choice]] = field(default_factory=dict)
    changes: Mapping[str, int | float] = field(default_factory=dict)


def what_if(
    table: LayerTable,
    assignment: Assignment,
    change: Pins,
    pins: Pins | None = None,
    exclude: Excludes | None = None,
    time_limit: float | None = None,
) -> WhatIf:
    """The best assignment under the same limits with the pins of `change` added, all at once.

    A pin in `change` replaces one for the same layer. Among equally good assignments it is not
    said that the one with the fewest changed layers is found, except that an optimum which has the
    pinned choices already stays as it is.
    """
    check_table(table, assignment)
    together = {**(pins or {}), **change}
    solution = solve(table, Budget(assignment.limits), "auto", together, exclude, time_limit)
    if not solution.choices:
        return WhatIf(change, solution)
    before, after = assignment.layers, solution.choices
    omega = _difference(table, "omega", before, after)
    instance = Instance.build(table, assignment.limits, assignment.layers)
    if omega == 0 and instance.is_feasible(indices(table, instance, assignment)):
        agrees = all(before[layer] == choice for layer, choice in together.items())
        after = before if agrees else after
    return WhatIf(
        pins=change,
        solution=solution,
        omega=float(omega),
        changed={
            layer: (before[layer], after[layer])
            for layer in table.layer_names
            if before[layer] != after[layer]
        },
        changes={
            column: int(moved) if moved.denominator == 1 else float(moved)
            for column in table.columns
            for moved in [_difference(table, column, before, after)]
        },
    )


def _difference(table: LayerTable, column: str, before: Pins, after: Pins) -> Fraction:
    """Total after less total before, exactly in the table's decimals."""
    values = table.column(column)
    return sum(
        (
            Fraction(repr(values[table.row_of(layer, after[layer])].item()))
            - Fraction(repr(values[table.row_of(layer, before[layer])].item()))
            for layer in table.layer_names
            if before[layer] != after[layer]
        ),
        Fraction(0),
    )

"""Whether an assignment's file says what its layer table says."""

import math

from mpsearch.tables.assignment import Assignment
from mpsearch.tables.table import LayerTable


def recomputed_totals(assignment: Assignment, table: LayerTable) -> dict[str, int | float]:
    """Column -> exact total of the assignment, from the table alone.

    Raises InputError when the two do not have the same layers and choices.
    """
    return {column: table.total(assignment.layers, column) for column in table.columns}


def contradictions(assignment: Assignment, table: LayerTable) -> tuple[str, ...]:
    """Totals that assignment.json states otherwise than the table, one phrase each.

    Integer totals must be equal; others to 1e-9 relative, as files round them to doubles. A column
    that only one of the two has is no contradiction. Raises InputError as `recomputed_totals` does.
    """
    found = []
    for column, value in recomputed_totals(assignment, table).items():
        stated = assignment.totals.get(column, value)
        whole = isinstance(value, int) and isinstance(stated, int)
        if stated != value and (whole or not math.isclose(stated, value, rel_tol=1e-9)):
            found.append(f"{column} is {stated} in the assignment and {value} from the table")
    return tuple(found)

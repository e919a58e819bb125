"""What can be limited: a column's total, its peak over layers, how many layers have a choice.

A limit is named by a key:

    size_bytes            the total of a column
    max:activation_bytes  the largest value that any one layer has in a column
    count:w8, count:w4a8  how many layers have 8-bit weights, or exactly this choice
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError
from mpsearch.tables.choice import Choice, fits, named
from mpsearch.tables.table import LayerTable

PEAK = "max:"
COUNT = "count:"


def column_of(key: str) -> str:
    """The name that says how a value of this key is read and printed: `max:x_bytes` -> x_bytes."""
    return key.removeprefix(PEAK)


def values_of(table: LayerTable, key: str) -> NDArray[Any]:
    """One value per row of the table, e.g. [216]; InputError for an unknown column
    or choice, and for a metric."""
    if not key.startswith(COUNT):
        column = column_of(key)
        return table.omega if column == "omega" else table.resource(column)
    text = key.removeprefix(COUNT)
    wanted = named(text)
    if wanted is None:
        raise InputError(f"got the limit {key!r}; expected count:w8 or count:w4a8")
    same = np.array([fits(c, wanted) for c in table.choices], dtype=bool)[table.choice_index]
    if not same.any():
        known = ", ".join(map(str, table.choices))
        raise InputError(f"{table.source} has no choice {text}; it has {known}")
    return same.astype(np.int64)


def total_of(table: LayerTable, choices: Mapping[str, Choice], key: str) -> int | float:
    """What an assignment takes of a key, exactly: a sum, a peak or a count."""
    if not key.startswith((PEAK, COUNT)):
        return table.total(choices, key)
    values = values_of(table, key)
    taken = [values[table.row_of(layer, choice)].item() for layer, choice in choices.items()]
    found: int | float = max(taken) if key.startswith(PEAK) else sum(taken)
    return found


def totals_of(
    table: LayerTable, choices: Mapping[str, Choice], *limited: Mapping[str, int | float]
) -> dict[str, int | float]:
    """What an assignment takes of every resource column and of every limited key."""
    keys = dict.fromkeys([*table.columns, *(key for limits in limited for key in limits)])
    return {key: total_of(table, choices, key) for key in keys if key != "omega"}

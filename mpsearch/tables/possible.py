"""Whether a table's numbers and rows can be."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpsearch.errors import InputError
from mpsearch.tables.choice import LARGEST_BITS
from mpsearch.tables.csv_columns import is_metric

if TYPE_CHECKING:
    from mpsearch.tables.table import LayerTable

LARGEST = 1e308  # of a total: doubles end at 1.8e308


def check(table: "LayerTable", places: Sequence[str]) -> None:
    """Raise InputError for numbers and rows that cannot be; `places[n]` says where row n stands."""
    for name in (*table.resources, *table.metrics):
        if is_metric(name) != (name in table.metrics):
            raise InputError(
                f"{table.source}: got {name!r} among the "
                f"{'metrics' if name in table.metrics else 'resources'}; expected metrics, and "
                "nothing else, to be called omega_NAME"
            )
    columns = {"omega": table.omega, "omega_stderr": table.omega_stderr, **table.resources}
    for name, values in (columns | dict(table.metrics)).items():
        signed = name in table.metrics
        wrong = np.flatnonzero(~np.isfinite(values) | ((values < 0) & (not signed)))
        if len(wrong):
            n = int(wrong[0])
            raise InputError(
                f"{places[n]}: {name} of layer {table.layers[table.layer_index[n]].name!r} is "
                f"{values[n]}; expected a finite number{'' if signed else ' that is not negative'}"
            )
        most = np.zeros(len(table.layers))
        np.maximum.at(most, table.layer_index, np.abs(values.astype(np.float64)))
        with np.errstate(over="ignore"):
            total = most.sum()
        if total > LARGEST:
            raise InputError(
                f"{table.source}: {name} could add up to more than {LARGEST:g}, where doubles end; "
                "give the column in a larger unit"
            )
    own = np.array([not choice.label for choice in table.choices], dtype=bool)[table.choice_index]
    for name, bits in (("w_bits", table.w_bits), ("a_bits", table.a_bits)):
        wrong = np.flatnonzero(own & ((bits < 1) | (bits > LARGEST_BITS)))
        if len(wrong):
            raise InputError(
                f"{places[wrong[0]]}: {name} is {bits[wrong[0]]}; expected 1 to {LARGEST_BITS}"
            )
    keys = table.layer_index * len(table.choices) + table.choice_index
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    twice = np.flatnonzero(first[inverse] != np.arange(len(keys)))
    if len(twice):
        n = int(twice[0])
        earlier = places[first[inverse[n]]].rpartition(" ")[2]
        raise InputError(
            f"{places[n]}: a second row for layer {table.layers[table.layer_index[n]].name!r} at "
            f"{table.choices[table.choice_index[n]]} (the first one is {earlier}); keep one"
        )
    empty = set(range(len(table.layers))) - set(table.layer_index.tolist())
    if empty:
        raise InputError(f"{table.source}: layer {table.layers[min(empty)].name!r} has no row")

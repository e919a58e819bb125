"""Choices that a table lacks: what they would take of size and BOPS, by its own numbers."""

from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np

from mpsearch.tables.choice import Choice
from mpsearch.tables.stored_widths import FLOAT, packed_bytes
from mpsearch.tables.table import LayerTable, Row

KNOWN = {"size_bytes", "bops"}


def fixed_bytes(table: LayerTable) -> dict[str, int] | None:
    """Bytes of each layer that no bits change: biases and scales, by the table's own sizes. None
    where these are not weights times bits and something."""
    if "size_bytes" not in table.columns:
        return None
    sizes, fixed = table.resources["size_bytes"], {}
    for layer in table.layers:
        over = {
            int(sizes[table.row_of(layer.name, one)]) - packed_bytes(layer.weights, one.w_bits)
            for one in table.choices_of(layer.name)
            if one.w_bits != FLOAT and not one.group_size  # whose scales are more with less in one
        }
        if not layer.weights or len(over) != 1 or min(over) < 0:
            return None
        fixed[layer.name] = over.pop()
    return fixed


def with_choices(
    table: LayerTable, choices: Iterable[Choice], limited: Collection[str]
) -> LayerTable | None:
    """The table with these choices in every layer, as `mpsearch profile` would count their size and
    BOPS; Ω and other columns are 0. None where that is not known of what is limited, and for a
    table that was fitted to a tool, which may not take them."""
    if table.tool is not None:
        return None
    fixed = fixed_bytes(table)
    known = KNOWN - ({"size_bytes"} if fixed is None else set())
    if not _has_plain_bops(table):
        known -= {"bops"}
    if not known.issuperset(limited):
        return None
    rows, choices = [*table.rows()], [*choices]
    for layer in table.layers:
        there = table.choices_of(layer.name)
        for one in choices:
            if one in there:
                continue
            size = (0 if fixed is None else fixed[layer.name]) + packed_bytes(
                layer.weights, one.w_bits
            )
            counted = {"size_bytes": size, "bops": layer.macs * one.w_bits * one.a_bits}
            resources = {column: counted.get(column, 0) for column in table.columns}
            rows.append(
                Row(layer.name, one, 0.0, 0.0, resources, dict.fromkeys(table.metrics, 0.0))
            )
    if len(rows) == len(table):
        return table
    return replace(LayerTable.from_rows(table.layers, rows), source=table.source)


def _has_plain_bops(table: LayerTable) -> bool:
    """Whether BOPS are MACs times both bits; so also where there are none."""
    macs = np.array([layer.macs for layer in table.layers])[table.layer_index]
    counted = macs * table.w_bits * table.a_bits
    return "bops" not in table.columns or bool((table.resources["bops"] == counted).all())

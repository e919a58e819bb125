"""Pins and excludes as text: `conv1=w8a8`, `w2a2`, `conv1=w4a4`, and what a layer may have."""

from collections.abc import Sequence

from mpsearch.errors import InputError
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable


def parse_pins(texts: Sequence[str]) -> dict[str, Choice]:
    """`["conv1=w8a8"]` -> {"conv1": Choice(8, 8)}."""
    pins: dict[str, Choice] = {}
    for text in texts:
        layer, equals, choice = text.rpartition("=")
        if not equals or not layer:
            raise InputError(f"got --pin {text!r}; expected LAYER=CHOICE such as conv1=w8a8")
        if layer in pins and pins[layer] != Choice.parse(choice):
            raise InputError(f"layer {layer!r} is pinned twice: {pins[layer]} and {choice}")
        pins[layer] = Choice.parse(choice)
    return pins


def parse_excludes(
    texts: Sequence[str], allows: Sequence[str] = (), table: LayerTable | None = None
) -> dict[str, set[Choice]]:
    """`["w2a2", "conv1=w4a4"]` -> {"": {w2a2}, "conv1": {w4a4}}; "" is every layer.

    `allows`, such as `["conv1=w4a8,w8a8"]`, exclude whatever else the table has for the layer.
    """
    excludes: dict[str, set[Choice]] = {}
    for text in texts:
        layer, _, choice = text.rpartition("=")
        excludes.setdefault(layer, set()).add(Choice.parse(choice))
    for text in allows:
        layer, equals, names = text.rpartition("=")
        if not equals or not layer or table is None:
            raise InputError(f"got --allow {text!r}; expected LAYER=CHOICE,CHOICE")
        wanted = {Choice.parse(name) for name in names.split(",")}
        for one in wanted:
            table.row_of(layer, one)  # raises for an unknown layer or a choice that it lacks
        excludes.setdefault(layer, set()).update(set(table.choices) - wanted)
    return excludes

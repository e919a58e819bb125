"""`profile.csv`: reading with an exact place for every complaint, writing without loss."""

import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpsearch.choice import Choice
from mpsearch.errors import InputError
from mpsearch.files import read_limited, write_atomic
from mpsearch.table import Layer, LayerTable, as_column, check, indexed, is_metric

LEADING = ("layer", "kind", "group", "weights", "macs", "w_bits", "a_bits", "omega", "omega_stderr")
_DIGITS = 19
LARGEST_MIB = 256
REQUIRED = ("layer", "w_bits", "a_bits", "omega")


def read_csv(path: str | os.PathLike[str]) -> LayerTable:
    """Read a table; only layer, w_bits, a_bits, omega and one resource column are required."""
    name = os.fspath(path)
    header, rows, lines = _cells(Path(path), name)
    places = [f"{name}, line {line}" for line in lines]
    column = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
    metrics = [title for title in header if is_metric(title)]
    extra = [title for title in header if title not in LEADING and not is_metric(title)]

    def numbers(title: str, kind: Callable[[str], Any], expected: str) -> list[Any]:
        try:
            return [kind(text) for text in column[title]]
        except (ValueError, OverflowError):
            for text, place in zip(column[title], places, strict=True):
                _number(text, kind, f"{place}: {title}", expected)
            raise

    def optional(title: str, kind: Callable[[str], Any], expected: str) -> list[Any]:
        if title not in column:
            return [kind("0")] * len(rows)
        column[title] = [text or "0" for text in column[title]]
        return numbers(title, kind, expected)

    layers, index = _layers(
        column["layer"],
        column.get("kind", [""] * len(rows)),
        column.get("group", [""] * len(rows)),
        optional("weights", _whole, "a whole number"),
        optional("macs", _whole, "a whole number"),
        places,
    )
    bits = (numbers(title, _bits, "a whole number of bits") for title in ("w_bits", "a_bits"))
    choices, choice_index = indexed(list(map(Choice, *bits)))
    table = LayerTable(
        layers=layers,
        layer_index=np.array(index, dtype=np.int64),
        choices=choices,
        choice_index=choice_index,
        omega=np.array(numbers("omega", float, "a number"), dtype=np.float64),
        omega_stderr=np.array(optional("omega_stderr", float, "a number"), dtype=np.float64),
        resources={title: as_column(numbers(title, _value, "a number")) for title in extra},
        metrics={
            title: np.array(numbers(title, float, "a number"), dtype=np.float64)
            for title in metrics
        },
        source=name,
    )
    check(table, places)
    return table


def write_csv(table: LayerTable, path: str | os.PathLike[str]) -> None:
    """Write the columns in the documented order, floats by their shortest exact decimal."""
    columns = columns_of(table)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_atomic(path, text.getvalue())


def columns_of(table: LayerTable) -> dict[str, list[Any]]:
    """Column name -> cells, as the CSV file has them."""
    layers = [table.layers[position] for position in table.layer_index]
    return {
        "layer": [layer.name for layer in layers],
        "kind": [layer.kind for layer in layers],
        "group": [layer.group for layer in layers],
        "weights": [layer.weights for layer in layers],
        "macs": [layer.macs for layer in layers],
        "w_bits": table.w_bits.tolist(),
        "a_bits": table.a_bits.tolist(),
        "omega": table.omega.tolist(),
        "omega_stderr": table.omega_stderr.tolist(),
        **{name: values.tolist() for name, values in table.metrics.items()},
        **{name: values.tolist() for name, values in table.resources.items()},
    }


def _cells(path: Path, name: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows and line numbers of a file that is a table by its shape."""
    if not path.exists():
        raise InputError(
            f"there is no table {name}; make one with `mpsearch profile model.pt`, or name yours"
        )
    if path.is_dir():
        raise InputError(f"{name} is a folder; expected a table such as profile.csv")
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        text = read_limited(path, LARGEST_MIB, "a table").decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [title.strip() for title in next(reader, [])]
        for cells in reader:
            if cells:
                rows.append(cells)
                lines.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name} is not a CSV table ({error}); expected profile.csv") from None
    if not header:
        raise InputError(f"{name} is empty; expected a table such as profile.csv")
    missing = [title for title in REQUIRED if title not in header]
    if missing:
        found = ", ".join(header[:8])[:80]
        raise InputError(f"{name} lacks the column(s) {', '.join(missing)}; it has: {found!r}")
    twice = [title for title in header if header.count(title) > 1]
    if twice or "" in header:
        raise InputError(f"{name} has the column {(twice or [''])[0]!r} twice or without a name")
    if all(title in LEADING or is_metric(title) for title in header):
        raise InputError(f"{name} has no resource column such as size_bytes or bops")
    if not rows:
        raise InputError(f"{name} has a header and no rows")
    for cells, line in zip(rows, lines, strict=True):
        if len(cells) != len(header):
            raise InputError(
                f"{name}, line {line}: got {len(cells)} cells, expected {len(header)}; "
                "is the file cut off?"
            )
    return header, rows, lines


def _layers(
    names: Sequence[str],
    kinds: Sequence[str],
    groups: Sequence[str],
    weights: Sequence[int],
    macs: Sequence[int],
    places: Sequence[str],
) -> tuple[tuple[Layer, ...], list[int]]:
    """Distinct layers in the order of their first row, and every row's layer."""
    position: dict[str, int] = {}
    layers: list[Layer] = []
    index: list[int] = []
    for place, *cells in zip(places, names, kinds, groups, weights, macs, strict=True):
        layer = Layer(*cells)
        if not layer.name:
            raise InputError(f"{place}: the layer has no name")
        number = position.setdefault(layer.name, len(layers))
        if number == len(layers):
            if layer.weights < 0 or layer.macs < 0:
                raise InputError(f"{place}: weights and macs cannot be negative")
            layers.append(layer)
        elif layers[number] != layer:
            raise InputError(
                f"{place}: kind, group, weights or macs of layer {layer.name!r} differ from its "
                "first row"
            )
        index.append(number)
    return tuple(layers), index


def _bits(text: str) -> int:
    return int(text) if len(text) < 5 else int("not a number of bits")


def _whole(text: str) -> int:
    return int(text) if len(text) <= _DIGITS else int("more than 19 digits")


def _value(text: str) -> int | float:
    """An exact int where the text is one; `1e9` and `0.5` are floats."""
    short = len(text) <= _DIGITS  # more does not fit 64 bits
    return int(text) if short and text.lstrip("-").isdecimal() else float(text)


def _number(text: str, kind: Callable[[str], Any], where: str, expected: str) -> None:
    try:
        kind(text)
    except (ValueError, OverflowError):
        shown = repr(text) if len(text) <= 60 else f"{text[:60]!r}..."
        raise InputError(f"{where} is {shown}; expected {expected}") from None

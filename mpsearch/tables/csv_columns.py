"""`profile.csv`: reading with an exact place for every complaint, writing without loss."""

import csv
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError
from mpsearch.files.whole import like_file, read_limited, write_atomic
from mpsearch.tables.choice import LARGEST_BITS, Choice

LayerCells = tuple[str, str, str, int, int, tuple[int, ...]]
LEADING = (
    "layer", "kind", "group", "weights", "macs", "shape", "choice", "w_bits", "a_bits", "omega",
    "omega_stderr",
)  # fmt: skip
_DIGITS = 19
LARGEST_MIB = 256
LARGEST_SHAPE = 8  # dimensions


@dataclass(frozen=True)
class Columns:
    """Of every row a place for complaints and its numbers; `layers`: distinct ones, as cells (name,
    kind, group, weights, macs, shape)."""

    source: str
    places: list[str]
    layers: list[LayerCells]
    layer_index: NDArray[np.int64]
    choices: tuple[Choice, ...]
    choice_index: NDArray[np.int64]
    omega: NDArray[np.float64]
    omega_stderr: NDArray[np.float64]
    resources: dict[str, NDArray[Any]]
    metrics: dict[str, NDArray[np.float64]]
    named: bool
    """Whether there is a column `choice`."""


def parse_columns(text: str, name: str) -> Columns:
    """The columns of a CSV file with this text, which is called `name` in messages; only layer,
    choice or w_bits and a_bits, omega and one resource column are required."""
    return columns_of(*split_cells(text, name), name)


def columns_of(
    header: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[int], name: str
) -> Columns:
    """The same of cells that `split_cells` gave, with our names in the header."""
    _check_header(header, rows, name)
    check_lengths(header, rows, lines, name)
    places = [f"{name}, line {line}" for line in lines]
    column = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
    metrics = [title for title in header if is_metric(title)]
    extra = [title for title in header if title not in LEADING and not is_metric(title)]

    def numbers(title: str, kind: Callable[[str], Any], expected: str) -> list[Any]:
        texts = column[title]
        try:
            distinct = dict.fromkeys(texts)
            if 2 * len(distinct) > len(texts):
                return [kind(text) for text in texts]
            known = {text: kind(text) for text in distinct}
            return [known[text] for text in texts]
        except (ValueError, OverflowError):
            for text, place in zip(column[title], places, strict=True):
                _number(text, kind, f"{place}: {title}", expected)
            raise

    def optional(
        title: str, kind: Callable[[str], Any], expected: str, absent: str = "0"
    ) -> list[Any]:
        if title not in column:
            return [kind(absent)] * len(rows)
        column[title] = [text or absent for text in column[title]]
        return numbers(title, kind, expected)

    layers, index = _layers(
        column["layer"],
        column.get("kind", [""] * len(rows)),
        column.get("group", [""] * len(rows)),
        optional("weights", _whole, "a whole number"),
        optional("macs", _whole, "a whole number"),
        optional("shape", _shape, "lengths such as 64x3x3x3", ""),
        places,
    )
    if "choice" in column:
        bits = (optional(title, _parts, "bits such as 4 or 4.5") for title in ("w_bits", "a_bits"))
        choices, choice_index = _called(places, column["choice"], *bits)
    else:
        bits = (numbers(title, _bits, "a whole number of bits") for title in ("w_bits", "a_bits"))
        pairs = list(zip(*bits, strict=True))
        of_pair = {pair: Choice(*pair) for pair in dict.fromkeys(pairs)}
        choices, _ = indexed(list(of_pair.values()))
        number = {pair: choices.index(choice) for pair, choice in of_pair.items()}
        choice_index = np.array([number[pair] for pair in pairs], dtype=np.int64)
    return Columns(
        source=name,
        places=places,
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
        named="choice" in column,
    )


def write_columns(columns: Mapping[str, Sequence[Any]], path: str | os.PathLike[str]) -> None:
    """Write columns by name in one step, floats by their shortest exact decimal."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_atomic(path, text.getvalue())


def indexed(
    choices: Sequence[Choice],
) -> tuple[tuple[Choice, ...], NDArray[np.int64]]:
    """The distinct choices, ascending, and which of them each one is."""
    distinct = tuple(sorted(set(choices)))
    position = {choice: number for number, choice in enumerate(distinct)}
    return distinct, np.array([position[choice] for choice in choices], dtype=np.int64)


def as_column(values: Sequence[int | float]) -> NDArray[Any]:
    """int64 where every value is an integer, else float64."""
    if all(isinstance(value, int) or float(value).is_integer() for value in values):
        integers = [int(value) for value in values]
        if all(abs(value) < 2**62 for value in integers):
            return np.array(integers, dtype=np.int64)
    return np.array(values, dtype=np.float64)


def is_metric(column: str) -> bool:
    """Whether a column of this name holds what a metric says: `omega_kl`, not `omega_stderr`."""
    return column.startswith("omega_") and column != "omega_stderr"


def table_text(path: str | os.PathLike[str]) -> str:
    """The text of a file that may be a table. Raises InputError where there is none."""
    name, path = os.fspath(path), Path(path)
    if not path.exists():
        raise InputError(
            f"there is no table {name}{like_file(path)}",
            "make one with `mpsearch profile model.pt`, or name yours",
        )
    if path.is_dir():
        raise InputError(f"{name} is a folder; expected a table such as profile.csv")
    try:
        return read_limited(path, LARGEST_MIB, "a table").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not a CSV table ({error}); expected profile.csv") from None


def split_cells(
    text: str, name: str, delimiter: str = ","
) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows and line numbers of a text that is a table by its shape."""
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header = [title.strip() for title in next(filter(None, reader), [])]
        for cells in reader:
            if cells:
                rows.append(cells)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{name} is not a CSV table ({error}); expected profile.csv") from None
    if not header:
        raise InputError(f"{name} is empty; expected a table such as profile.csv")
    return header, rows, lines


def check_lengths(
    header: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[int], name: str
) -> None:
    """Raise InputError for a row that has not as many cells as the header."""
    for cells, line in zip(rows, lines, strict=True):
        if len(cells) != len(header):
            raise InputError(
                f"{name}, line {line}: got {len(cells)} cells, expected {len(header)}; "
                "is the file cut off?"
            )


def lacking(header: Sequence[str]) -> list[str]:
    """Which columns a header lacks that no table is without, but for those of resources."""
    bits = ("choice",) if "choice" in header else ("w_bits", "a_bits")
    return [title for title in ("layer", *bits, "omega") if title not in header]


def _check_header(header: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> None:
    missing = lacking(header)
    if missing:
        found = ", ".join(header[:8])[:80]
        raise InputError(f"{name} lacks the column(s) {', '.join(missing)}; it has: {found!r}")
    twice = [title for title in header if header.count(title) > 1]
    if twice or "" in header:
        raise InputError(f"{name} has the column {(twice or [''])[0]!r} twice or without a name")
    counted = any(title not in LEADING and not is_metric(title) for title in header)
    if not counted and "shape" not in header:  # what a tool takes follows from shapes
        raise InputError(
            f"{name} has no resource column such as size_bytes or bops, nor a column shape"
        )
    if not rows:
        raise InputError(f"{name} has a header and no rows")


def _layers(
    names: Sequence[str],
    kinds: Sequence[str],
    groups: Sequence[str],
    weights: Sequence[int],
    macs: Sequence[int],
    shapes: Sequence[tuple[int, ...]],
    places: Sequence[str],
) -> tuple[list[LayerCells], list[int]]:
    """Distinct layers in the order of their first row, and every row's layer."""
    position: dict[str, int] = {}
    layers: list[LayerCells] = []
    index: list[int] = []
    cells = zip(names, kinds, groups, weights, macs, shapes, strict=True)
    for place, layer in zip(places, cells, strict=True):
        name = layer[0]
        if not name:
            raise InputError(f"{place}: the layer has no name")
        number = position.setdefault(name, len(layers))
        if number == len(layers):
            if min(layer[3:5]) < 0:
                raise InputError(f"{place}: weights and macs cannot be negative")
            if layer[5] and layer[3] and math.prod(layer[5]) != layer[3]:
                text = "x".join(map(str, layer[5]))
                raise InputError(
                    f"{place}: layer {name!r} has {layer[3]} weights and the shape {text}, "
                    f"which is {math.prod(layer[5])}"
                )
            layers.append(layer)
        elif layers[number] != layer:
            raise InputError(
                f"{place}: kind, group, weights, macs or shape of layer {name!r} differ from its "
                "first row"
            )
        index.append(number)
    return layers, index


def _called(
    places: Sequence[str],
    names: Sequence[str],
    w_bits: Sequence[float],
    a_bits: Sequence[float],
) -> tuple[tuple[Choice, ...], NDArray[np.int64]]:
    """The distinct choices of the rows, ascending, and which of them each one is."""
    known: dict[tuple[str, float, float], Choice] = {}
    first: dict[str, tuple[Choice, str]] = {}
    cells = list(zip(names, w_bits, a_bits, strict=True))
    for place, key in zip(places, cells, strict=True):
        if key in known:
            continue
        try:
            choice = known[key] = Choice.called(*key)
        except ValueError as error:
            raise InputError(f"{place}: choice {error}") from None
        other, there = first.setdefault(choice.name, (choice, place))
        if (other.w_bits, other.a_bits) != (choice.w_bits, choice.a_bits):
            raise InputError(
                f"{place}: {choice} has w_bits {choice.w_bits:g} and a_bits {choice.a_bits:g}; "
                f"{there} says {other.w_bits:g} and {other.a_bits:g}"
            )
    return indexed([known[key] for key in cells])


def _bits(text: str) -> int:
    return int(text) if len(text) < 5 else int("not a number of bits")


def _parts(text: str) -> int | float:
    """Bits that may be a fraction; 0: not said."""
    value = _value(text)
    if not 0 <= value <= LARGEST_BITS:
        raise ValueError(text)
    return value


def _shape(text: str) -> tuple[int, ...]:
    """`64x3x3x3`; empty: not known."""
    lengths = tuple(map(_whole, text.lower().split("x"))) if text else ()
    if len(lengths) > LARGEST_SHAPE or any(length < 1 for length in lengths):
        raise ValueError(text)
    return lengths


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

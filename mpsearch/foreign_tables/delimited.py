"""CSV and TSV with any column names: which is which is said beside the file.

    {"layer": "name", "choice": "type", "omega": "kld", "size_bytes": "bytes"}
    {"layer": "name", "w_bits": "bpw", "weights": "params", "omega": "-accuracy"}

Where columns are named, the others of the file are left out, but for those that have our names.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from mpsearch.errors import InputError, did_you_mean
from mpsearch.foreign_tables.reader import SIZE, Asked, Source, alone, bits_name
from mpsearch.tables.csv_columns import (
    LEADING,
    check_lengths,
    columns_of,
    is_metric,
    lacking,
    split_cells,
)
from mpsearch.tables.table import LayerTable

OURS = (*LEADING, SIZE, "bops")
_EXAMPLE = "--columns layer=name,choice=type,omega=kld,size_bytes=bytes"
_SIGNS = "\t;|,"


class Delimited:
    """The reader of last resort."""

    name = "CSV"
    description = (
        "CSV and TSV with any column names: --columns layer=name,choice=type,omega=kld,"
        "size_bytes=bytes; omega=-accuracy where larger is better"
    )

    def recognises(self, source: Source) -> bool:
        """Whatever is no JSON may be one."""
        return source.document is None

    def read(self, sources: Sequence[Source], asked: Asked) -> LayerTable:
        """The table of the columns that are named, or have our names."""
        source = alone(sources)
        name = source.name
        cells = split_cells(source.text, name, delimiter_of(source.text))
        header, rows, lines = cells
        header = list(header)
        if asked.columns:
            kept = _kept(header, asked.columns, name)
            check_lengths(header, rows, lines, name)
            rows = [[row[place] for place in kept.values()] for row in rows]
            header = list(kept)
            if asked.columns.get("omega", "").startswith("-"):
                _turn(rows, header.index("omega"))
        missing = [one for one in lacking(header) if one not in ("w_bits", "a_bits")]
        if missing or not {"w_bits", "choice"} & set(header):
            missing += [] if {"w_bits", "choice"} & set(header) else ["choice"]
            known = ", ".join(cells[0][:8])[:80]
            raise InputError(
                f"{name} lacks the column(s) {', '.join(missing)}; it has: {known!r}",
                f"say which is which: {_EXAMPLE}",
            )
        check_lengths(header, rows, lines, name)
        _complete(header, rows, lines, name, asked)
        table = LayerTable.of_columns(columns_of(header, rows, lines, name), {})
        return replace(table, partial=True)


def delimiter_of(text: str) -> str:
    """What separates cells: of the signs in the first line the first of tab, `;`, `|`, and `,`."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return next((sign for sign in _SIGNS if sign in first), ",")


def is_ours(text: str) -> bool:
    """Whether a file has the columns of a layer table, separated by commas."""
    first = text.partition("\n")[0]
    return not lacking([title.strip().strip('"') for title in first.split(",")])


def _kept(header: Sequence[str], columns: Mapping[str, str], name: str) -> dict[str, int]:
    """Column of ours -> its place in the file."""
    found = {
        title: place
        for place, title in enumerate(header)
        if (title in OURS or is_metric(title)) and title not in columns
    }
    for ours, theirs in columns.items():
        wanted = theirs.removeprefix("-") if ours == "omega" and theirs not in header else theirs
        if wanted not in header:
            known = ", ".join(header[:12])[:120]
            raise InputError(
                f"{name} has no column {wanted!r}{did_you_mean(wanted, header)}; it has: {known!r}"
            )
        found[ours] = header.index(wanted)
    return found


def _turn(rows: Sequence[list[str]], place: int) -> None:
    """Larger is better: Ω is what is missing to the largest. What is no number stays."""
    numbers = [number for row in rows if math.isfinite(number := _float(row[place]))]
    largest = max(numbers, default=0.0)
    for row in rows:
        number = _float(row[place])
        if math.isfinite(number):
            row[place] = repr(largest - number)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _complete(
    header: list[str],
    rows: Sequence[list[str]],
    lines: Sequence[int],
    name: str,
    asked: Asked,
) -> None:
    """Add what follows: shapes, the choice of bits alone, bytes of bits and weights."""

    def add(title: str, cell_of: Callable[[list[str]], str]) -> None:
        for row, line in zip(rows, lines, strict=True):
            try:
                row.append(cell_of(row))
            except ValueError as error:
                raise InputError(f"{name}, line {line}: {error}") from None
        header.append(title)

    layer = header.index("layer")
    if asked.shapes and "shape" not in header:
        add("shape", lambda row: "x".join(map(str, asked.shapes.get(row[layer], ()))))
    if "choice" not in header and "a_bits" not in header:
        bits = header.index("w_bits")
        add("choice", lambda row: bits_name(_bits(row[bits])).name)
    others = [one for one in header if one not in LEADING and not is_metric(one)]
    if others or "w_bits" not in header or not {"weights", "shape"} & set(header):
        return
    bits = header.index("w_bits")
    weights = header.index("weights") if "weights" in header else -1
    shape = header.index("shape") if "shape" in header else -1

    def size(row: list[str]) -> str:
        text = row[weights] if weights >= 0 else ""
        count = _whole(text) if text else _product(row[shape] if shape >= 0 else "")
        if not count:
            raise ValueError(
                f"layer {row[layer][:60]!r} has no size, and weights or shape are not known"
            )
        return str(math.ceil(count * _bits(row[bits]) / 8))

    add(SIZE, size)


def _bits(text: str) -> float:
    bits = _float(text)
    if not 0 < bits <= 64:
        raise ValueError(f"w_bits is {text[:60]!r}; expected bits such as 4 or 4.5")
    return bits


def _whole(text: str) -> int:
    if not (text.isdecimal() and text.isascii() and len(text) < 19):
        raise ValueError(f"weights is {text[:60]!r}; expected a whole number")
    return int(text)


def _product(text: str) -> int:
    return math.prod(map(_whole, text.lower().split("x"))) if text else 0

"""CSV and TSV with any column names: which is which is said beside the file.

    {"layer": "name", "choice": "type", "omega": "kld", "size_bytes": "bytes"}
    {"layer": "name", "w_bits": "bpw", "weights": "params", "omega": "-accuracy"}

Where columns are named, the others of the file are left out, but for those that have our names.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from itertools import compress

from mpsearch.errors import InputError, did_you_mean
from mpsearch.foreign_tables.reader import SIZE, Asked, Source, alone, bits_name
from mpsearch.tables.choice import named
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
_SIGNS = ",\t;|"
_COUNTS = ("weights", "macs", SIZE, "bops")
_GROUPED = re.compile("[0-9]{1,3}(?:[,' \u00a0\u202f][0-9]{3}){1,6}")
_PERCENT = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*%")
_COMMA = re.compile(r"[+-]?[0-9.]+,[0-9.,]*\s*%?")
_RULE = re.compile(r"[ :|-]*")


class Delimited:
    """The reader of last resort."""

    takes: tuple[str, ...] = ("columns",)
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
        text = _without_bars(source.text)
        there, rows, lines = split_cells(text, name, delimiter_of(text))
        filled = [any(map(str.strip, row)) for row in rows]  # spreadsheets write `;;;` for no row
        rows = [[cell.strip() for cell in row] for row in compress(rows, filled)]
        lines = list(compress(lines, filled))
        header = list(there)
        if asked.columns:
            kept = _kept(there, asked.columns, name)
            check_lengths(there, rows, lines, name)
            rows = [[row[place] for place in kept.values()] for row in rows]
            header = list(kept)
        missing = [one for one in lacking(header) if one not in ("w_bits", "a_bits")]
        if missing or not {"w_bits", "choice"} & set(header):
            missing += [] if {"w_bits", "choice"} & set(header) else ["choice"]
            known = ", ".join(there[:8])[:80]
            raise InputError(
                f"{name} lacks the column(s) {', '.join(missing)}; it has: {known!r}",
                f"say which is which: {_EXAMPLE}",
            )
        check_lengths(header, rows, lines, name)
        _check_filled(header, rows, lines, name)
        for place, title in enumerate(header):
            _as_plain(title, rows, place, lines, name)
        if _turned(asked.columns.get("omega", ""), there):
            _turn(rows, header.index("omega"))
        _complete(header, rows, lines, name, asked)
        return LayerTable.of_columns(columns_of(header, rows, lines, name), {})


def delimiter_of(text: str) -> str:
    """What separates cells: of comma, tab, `;` and `|` the one that is most in the first line."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return max(_SIGNS, key=first.count)


def _without_bars(text: str) -> str:
    """A table of Markdown without the bars around its lines and the line below its heading; all
    else as it is."""
    if text.lstrip()[:1] != "|":
        return text
    lines = (line.strip().removeprefix("|").removesuffix("|") for line in text.split("\n"))
    return "\n".join("" if _RULE.fullmatch(line) else line for line in lines)


def is_ours(text: str) -> bool:
    """Whether a file has the columns of a layer table, separated by commas."""
    first = text.lstrip("\r\n").partition("\n")[0]
    return not lacking([title.strip().strip('"') for title in first.split(",")])


def _kept(header: Sequence[str], columns: Mapping[str, str], name: str) -> dict[str, int]:
    """Column of ours -> its place in the file."""
    found = {
        title: place
        for place, title in enumerate(header)
        if (title in OURS or is_metric(title)) and title not in columns
    }
    for ours, theirs in columns.items():
        wanted = theirs[1:] if ours == "omega" and _turned(theirs, header) else theirs
        if header.count(wanted) != 1:
            if wanted in header:
                raise InputError(f"{name} has the column {wanted!r} twice; expected one")
            known = ", ".join(header[:12])[:120]
            raise InputError(
                f"{name} has no column {wanted!r}{did_you_mean(wanted, header)}; it has: {known!r}"
            )
        found[ours] = header.index(wanted)
    return found


def _check_filled(
    header: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[int], name: str
) -> None:
    """Raise InputError for a row of a layer that says no format or no Ω."""
    formats = "choice" if "choice" in header else "w_bits"
    layer, needed = header.index("layer"), [header.index(formats), header.index("omega")]
    for row, line in zip(rows, lines, strict=True):
        called = row[layer][:60]
        empty = [header[place] for place in needed if not row[place]]
        if empty and called:
            raise InputError(
                f"{name}, line {line}: {empty[0]} is ''; expected one for layer {called!r}",
                "a row of totals or a remark? take it out of the table",
            )


def _as_plain(
    title: str, rows: Sequence[list[str]], place: int, lines: Sequence[int], name: str
) -> None:
    """Numbers as spreadsheets show them, in place: `4.8%` is 0.048, `86,188,032` bytes are whole.
    A comma in any other number could be either: InputError."""
    shares = title == "omega" or is_metric(title)
    for row, line in zip(rows, lines, strict=True):
        text = row[place]
        if title in _COUNTS and _GROUPED.fullmatch(text):
            row[place] = re.sub(r"\D", "", text)
        elif shares and (percent := _PERCENT.fullmatch(text)):
            row[place] = str(Decimal(percent[1]).scaleb(-2))
        elif (shares or title == "w_bits") and _COMMA.fullmatch(text):
            raise InputError(
                f"{name}, line {line}: {title} is {text[:60]!r}; expected a number",
                "write decimals with a point, and Ω and bits without separators of thousands",
            )


def _turned(theirs: str, header: Sequence[str]) -> bool:
    """Whether larger is better: `-accuracy`, where no column is called so."""
    return theirs.startswith("-") and theirs not in header


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
    if not others and "w_bits" in header and {"weights", "shape"} & set(header):
        _add_size(header, add)
    if {"choice", "w_bits"} <= set(header):
        _forget(rows, header.index("choice"), header.index("w_bits"))


def _add_size(
    header: Sequence[str], add: Callable[[str, Callable[[list[str]], str]], None]
) -> None:
    layer, bits = header.index("layer"), header.index("w_bits")
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


def _forget(rows: Sequence[list[str]], choice: int, bits: int) -> None:
    """Blank the bits of formats that have other ones in other layers, as they do with what is
    stored beside them, and of our own, whose names say them."""
    seen: dict[str, set[str]] = {}
    for row in rows:
        seen.setdefault(row[choice], set()).add(row[bits])
    for row in rows:
        if len(seen[row[choice]]) > 1 or named(row[choice].lower()) is not None:
            row[bits] = ""


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

"""A table as lines that fit a terminal: names, verdicts and digits are always whole.

Three ways to set it, the first that fits: as a table; with every name on a line of its own above
its values; both also without the columns that the caller can spare. Then as blocks of
`heading: value`, which have all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mpsearch.running.terminal import cells, wrapped

_MARGIN, _GAP, _TIGHT_GAP = 2, 3, 2  # blanks before a table, and between its columns
_INDENT = 2  # of values under their name
_BETWEEN = "   "  # the pairs of a block

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Line:
    """One line of a table. strong: of its heading, or a name above its values."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Layout:
    """A table for some width. left_out: headings of the columns that are not in it."""

    lines: tuple[Line, ...]
    left_out: tuple[str, ...] = ()


def lay_out(
    columns: Sequence[str],
    rows: Rows,
    width: int | None,
    naming: int = 1,
    least: Sequence[str] = (),
) -> Layout:
    """Rows under headings, in `width` columns; None: in a pipe, where all of it is one table.

    naming: how many columns name a row, to the left. least: headings of columns that may be left
    out, the least important first.
    """
    spare = [name for name in least if name in columns]
    names = [_name(row[:naming]) for row in (columns, *rows)]
    for first, margin in ((0, _MARGIN), (naming, _MARGIN + _INDENT)):
        for count in range(len(spare) + 1):
            gone = spare[:count]
            kept = [place for place in range(first, len(columns)) if columns[place] not in gone]
            lines = _table(columns, rows, kept, width, naming, margin)
            if lines is None or not kept:
                continue
            if first:
                heading, rule, *below = lines
                lines = [*names[0], heading, rule]
                for name, line in zip(names[1:], below, strict=True):
                    lines += [*name, line]
            return Layout(tuple(lines), tuple(gone))
    assert width is not None
    blocks = []
    for name, row in zip(names[1:], rows, strict=True):
        blocks += [*name, *_block(columns[naming:], row[naming:], width)]
    return Layout(tuple(blocks))


def _name(parts: Sequence[str]) -> list[Line]:
    """The line above a row's values; none where the row goes on with the one before."""
    text = "  ".join(part for part in parts if part)
    return [Line(" " * _MARGIN + text, True)] if text else []


def _table(
    columns: Sequence[str],
    rows: Rows,
    kept: Sequence[int],
    width: int | None,
    naming: int,
    margin: int,
) -> list[Line] | None:
    """Heading, rule, rows; None where they are wider. Names are to the left, all else right."""
    texts = [[row[index] for index in kept] for row in (columns, *rows)]
    widths = [max(map(cells, column)) for column in zip(*texts, strict=True)]
    for gap in (_GAP, _TIGHT_GAP):
        needed = margin + sum(widths) + gap * (len(widths) - 1)
        if width is None or needed <= width:
            break
    else:
        return None
    lines = []
    for row in texts:
        padded = []
        for index, text, most in zip(kept, row, widths, strict=True):
            blanks = " " * (most - cells(text))
            padded.append(text + blanks if index < naming else blanks + text)
        lines.append(Line((" " * margin + (" " * gap).join(padded)).rstrip()))
    rule = Line(" " * (_MARGIN - 1) + "─" * (needed - _MARGIN + 1))
    return [Line(lines[0].text, True), rule, *lines[1:]]


def _block(columns: Sequence[str], values: Sequence[str], width: int) -> list[Line]:
    """The values of one row under its name: as many pairs in a line as fit, no empty ones."""
    indent = " " * (_MARGIN + _INDENT)
    lines: list[str] = []
    for heading, value in zip(columns, values, strict=True):
        if not value:
            continue
        pair = f"{heading}: {value}" if heading else value
        if lines and cells(lines[-1]) + len(_BETWEEN) + cells(pair) <= width:
            lines[-1] += _BETWEEN + pair
        else:
            lines += wrapped(indent + pair, width)
    return [Line(line) for line in lines]

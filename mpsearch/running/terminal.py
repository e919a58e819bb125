"""What fits a terminal: its width, how much of it a text takes, a line broken between words."""

import os
import re
import unicodedata
from typing import TextIO

_USUAL = 80
# A word; what stands in backticks is one, as it is a command or a name, and a number with its unit.
_WORD = re.compile(r"(?:`[^`]*`|\S|(?<=\d) (?=%|[KMG]?B\b))+")
_COLUMNS = re.compile(r"\s*(?:\S+(?: \S+)* {2,})*")  # at the start of a line


def width_of(stream: TextIO) -> int | None:
    """Columns of the terminal that a stream writes to, or what COLUMNS says; None: no terminal.

    A pipe or a file takes whole lines, also where COLUMNS is set or colours are forced, as CI
    systems do: what reads it may look for a name or a number.
    """
    if not stream.isatty():
        return None
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL
    except (OSError, ValueError):  # no file behind it, or none that knows
        return _USUAL


def cells(text: str) -> int:
    """Places on a terminal: two for a wide character, none for a mark on another one."""
    if text.isascii():
        return len(text)
    return sum(map(_cells_of, text))


def wrapped(line: str, width: int | None) -> list[str]:
    """The line, broken between words where it is wider; a word that is wider stays whole.

    What follows is indented as what it goes on: by two, or where a column of the line begins
    (`  ok   cc   compiles exports`: under `compiles`).
    """
    if width is None or cells(line) <= width:
        return [line]
    indent = len(line) - len(line.lstrip())
    columns = _COLUMNS.match(line)
    start = columns.end() if columns is not None else indent
    hang = cells(line[:start])
    if start == indent or hang > width // 2:
        start, hang = indent, min(indent + 2, width // 2)
    lines, empty = [line[:start]], True
    for word in _WORD.findall(line[start:]):
        if not empty and cells(lines[-1]) + 1 + cells(word) > width:
            lines.append(" " * hang)
            empty = True
        lines[-1] += word if empty else f" {word}"
        empty = False
    return lines


def _cells_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1

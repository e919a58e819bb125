"""What a report is made of, before it is HTML or Markdown: sections of text, tables, drawings."""

from collections.abc import Sequence
from dataclasses import dataclass

from mpsearch.reports.drawing import Drawing


@dataclass(frozen=True)
class Paragraph:
    """kind: `lead` for the answer, `notice` for what must be known first, or empty."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Cells as text; the first of each row names it. prose: the others are words, not numbers."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    prose: bool = False


@dataclass(frozen=True)
class Code:
    """Lines for a shell."""

    lines: Sequence[str]


@dataclass(frozen=True)
class More:
    """A table that is closed until it is asked for."""

    summary: str
    table: Table


Part = Paragraph | Table | Code | More | Drawing


@dataclass(frozen=True)
class Section:
    """name: its id on a page."""

    name: str
    title: str
    parts: Sequence[Part]

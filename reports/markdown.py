"""The report as Markdown (GitHub's): the same sections, figures as files or in words."""

import re
from collections.abc import Mapping, Sequence

from mpsearch.reports.facts import Facts
from mpsearch.reports.html import TITLE
from mpsearch.reports.sections import sections_of
from mpsearch.reports.style import Code, Drawing, More, Paragraph, Part, Section, Table
from mpsearch.running.streams import markdown_code, markdown_text

LONG = 200  # rows; the rest of a longer table is only in the HTML and the JSON


def render_markdown(facts: Facts, figures: Mapping[str, str] | None = None) -> str:
    """The whole report. figures: name of a drawing -> its picture's path, relative to the report;
    a drawing without one is given in words."""
    return markdown_of(TITLE, sections_of(facts), facts.version, figures)


def markdown_of(
    title: str, sections: tuple[Section, ...], version: str, figures: Mapping[str, str] | None
) -> str:
    """Sections as one document."""
    texts = [f"# {markdown_text(title)}"]
    for section in sections:
        texts.append(f"## {markdown_text(section.title)}")
        texts += [_part(part, figures or {}) for part in section.parts]
    texts.append(f"Written by mpsearch {markdown_text(version)}.")
    return "\n\n".join(texts) + "\n"


def _part(part: Part, figures: Mapping[str, str]) -> str:
    match part:
        case Paragraph():
            text = markdown_text(part.text)
            return f"> {text}" if part.kind == "notice" else text
        case Code():
            return markdown_code(part.lines, "sh")
        case More():
            return _table(part.table)
        case Table():
            return _table(part)
        case Drawing():
            return _drawing(part, figures)


def _drawing(drawing: Drawing, figures: Mapping[str, str]) -> str:
    caption = markdown_text(drawing.caption)
    if drawing.name not in figures:
        return f"{markdown_text(drawing.text)} {caption}"
    address = figures[drawing.name].replace("\\", "/")
    address = re.sub(r"[^\w./-]", lambda m: "".join(f"%{b:02X}" for b in m[0].encode()), address)
    return f"![{markdown_text(drawing.text)}]({address})\n\n{caption}"


def _table(table: Table) -> str:
    lines = [f"**{markdown_text(table.caption)}**", ""]
    lines.append(_row(table.header))
    aligned = "---" if table.prose else "---:"
    lines.append(f"| {' | '.join(['---', *[aligned] * (len(table.header) - 1)])} |")
    lines += [_row(row) for row in table.rows[:LONG]]
    if len(table.rows) > LONG:
        lines += ["", f"{len(table.rows) - LONG:,} further rows are left out here."]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(markdown_text(cell) for cell in cells)} |"

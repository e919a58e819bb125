"""The report as one HTML file that needs nothing but itself; every string is escaped."""

from collections.abc import Iterable, Sequence

from mpsearch.reports.drawing import Drawing
from mpsearch.reports.facts import Facts
from mpsearch.reports.front_script import front_data
from mpsearch.reports.page import page
from mpsearch.reports.parts import Code, More, Paragraph, Part, Section, Table
from mpsearch.reports.sections import sections_of
from mpsearch.reports.svg import inline_svg
from mpsearch.reports.table_css import label_css
from mpsearch.running.foreign_text import html_text

TITLE = "Bit widths per layer: mpsearch report"
LONG = 200  # rows; longer tables do without what makes short ones readable by machine and phone


def render(facts: Facts) -> str:
    """The whole page, in the order of `sections_of`.

    Sections without facts are left out; what is missing is listed at the top. No address is
    referred to; the one script reads the front's points and is allowed by its digest.
    """
    made = sections_of(facts)
    sections = [section_html(section, facts) for section in made]
    scripted = facts.front is not None and facts.front.assignments is not None
    return page(TITLE, "\n".join(sections), facts.version, table_styles(made), scripted)


def section_html(section: Section, facts: Facts | None = None) -> str:
    """One section; `facts` for the drawing whose points can be read."""
    return _section(section.title, [_part(part, facts) for part in section.parts])


def table_styles(sections: Sequence[Section]) -> str:
    """The words of every table's cards, which belong into the head of the page."""
    parts = [part for section in sections for part in section.parts]
    tables = [part.table if isinstance(part, More) else part for part in parts]
    rules = [label_css(table.header)[0] for table in tables if isinstance(table, Table)]
    return "\n".join(dict.fromkeys(rules))


def _part(part: Part, facts: Facts | None) -> str:
    match part:
        case Paragraph():
            kind = f" class='{part.kind}'" if part.kind else ""
            return f"<p{kind}>{html_text(part.text)}</p>"
        case Code():
            lines = "\n".join(html_text(line) for line in part.lines)
            return f"<pre>{lines}</pre>"
        case More():
            inside = _part(part.table, facts)
            return f"<details><summary>{html_text(part.summary)}</summary>\n{inside}</details>"
        case Table():
            return _table(part.header, part.rows, part.caption, part.prose)
        case Drawing():
            return _figure(part, facts)


def _figure(drawing: Drawing, facts: Facts | None) -> str:
    """The front with its points to read, any other drawing as it is."""
    inline = inline_svg(drawing)
    caption = f"<figcaption>{html_text(drawing.caption)}</figcaption>"
    if not inline.places or facts is None:
        return f"<figure>{inline.svg}{caption}</figure>"
    data = front_data(facts, inline.places)
    return (
        "<figure><div id='front-plot' role='group' aria-label='Points of the front: arrow keys "
        f"move from one to the next'>{inline.svg}</div>"
        "<div id='front-reading' role='status' hidden></div>"
        f"{caption}<script type='application/json' id='front-data'>{data}</script></figure>"
    )


def _section(title: str, parts: Iterable[str]) -> str:
    return f"<section><h2>{html_text(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def _table(
    header: Sequence[str], rows: Iterable[Sequence[str]], caption: str, prose: bool = False
) -> str:
    """A table; on a phone every row is a card, whose values are named by the header's words.

    The roles keep it a table for screen readers while its style is another.
    """
    rows = list(rows)
    short = len(rows) <= LONG
    table, group, line, cell, name, column = (
        f" role='{role}'" if short else ""
        for role in ("table", "rowgroup", "row", "cell", "rowheader", "columnheader")
    )
    head = "".join(f"<th{column} scope='col'>{html_text(text)}</th>" for text in header)
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td{cell}>{html_text(text.strip())}</td>" for text in others)
        lines.append(
            f"<tr{line}><th{name} scope='row'><span>{html_text(first)}</span></th>{cells}</tr>"
        )
    body = "\n".join(lines)
    _, label = label_css(header)
    kind = "prose" if prose else "numbers"
    if len(header) == 2:  # a phone shows what stands right of its name without a word before it
        kind += " pairs"
    return (
        f"<div class='wide' tabindex='0' role='region' aria-label='{html_text(caption)}'>"
        f"<table{table} class='{kind} {label}'>"
        f"<caption>{html_text(caption)}</caption>"
        f"<thead{group}><tr{line}>{head}</tr></thead><tbody{group}>\n{body}\n</tbody></table></div>"
    )

"""The report as one HTML file that needs nothing but itself; every string is escaped.

The words before each value where a table's rows are cards, as style and not in every cell.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256

from mpsearch.reports.facts import Facts
from mpsearch.reports.first_screen import title_of
from mpsearch.reports.front_reading import front_html
from mpsearch.reports.page import page
from mpsearch.reports.sections import sections_of
from mpsearch.reports.style import (
    Code,
    Drawing,
    Headlines,
    More,
    Paragraph,
    Part,
    Section,
    Table,
    inline_svg,
)
from mpsearch.running.streams import html_text, shown


def label_css(header: Sequence[str]) -> tuple[str, str]:
    """Rules for a table with these column names, and the class that it needs.

    ("layer", "bits") -> "@media … { .t1f09 td:nth-child(2)::before { content: "bits" } }". The same
    header gives the same class.
    """
    name = "t" + sha256("\0".join(header).encode()).hexdigest()[:8]
    rules = "".join(
        f'.{name} td:nth-child({place})::before{{content:"{css_text(text)}"}}'
        for place, text in enumerate(header[1:], 2)
    )
    return f"@media screen and (max-width:40rem){{{rules}}}", name


def css_text(text: str) -> str:
    """Inside a CSS string; all but ASCII letters and digits as code points: `a<b` -> `a\\3c b`.

    Nothing in it can end the string or the style element.
    """
    return "".join(
        letter if letter.isascii() and letter.isalnum() else f"\\{ord(letter):x} "
        for letter in shown(text)
    )


LONG = 200  # rows; longer tables do without what makes short ones readable by machine and phone


def render(facts: Facts) -> str:
    """The whole page, in the order of `sections_of`.

    Sections without facts are left out; what is missing is listed at the top. No address is
    referred to; the one script reads the front's points and is allowed by its digest.
    """
    made = sections_of(facts)
    sections = [contents(made), *(section_html(section, facts) for section in made)]
    scripted = facts.front is not None and facts.front.assignments is not None
    return page(title_of(facts), "\n".join(sections), facts.version, table_styles(made), scripted)


def contents(sections: Sequence[Section]) -> str:
    """The table of contents: a link to every section."""
    links = "".join(
        f"<li><a href='#{section.name}'>{html_text(section.title)}</a></li>" for section in sections
    )
    return f"<nav aria-label='Contents'><ul>{links}</ul></nav>"


def section_html(section: Section, facts: Facts | None = None) -> str:
    """One section; `facts` for the drawing whose points can be read."""
    parts = "\n".join(_part(part, facts) for part in section.parts)
    return f"<section id='{section.name}'><h2>{html_text(section.title)}</h2>\n{parts}\n</section>"


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
        case Headlines():
            return _headlines(part)
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
    if drawing.name == "front" and facts is not None:
        return front_html(facts, drawing)
    caption = f"<figcaption>{html_text(drawing.caption)}</figcaption>"
    return f"<figure>{inline_svg(drawing).svg}{caption}</figure>"


def _headlines(part: Headlines) -> str:
    """Large numbers, each with its line below."""
    items = "".join(
        f"<div><dt>{html_text(one.label)}</dt><dd>{html_text(one.value)}</dd></div>"
        for one in part.items
    )
    return f"<dl class='numbers-first'>{items}</dl>"


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

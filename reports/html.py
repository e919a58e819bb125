"""The report as one HTML file that needs nothing but itself; every string is escaped.

The words before each value where a table's rows are cards, as style and not in every cell.

Reading the front point by point: the page's only script, and the data that it reads.

The frame of an HTML report: style, the one script and the policy that allows it; no address.
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256

from mpsearch.reports.facts import Facts
from mpsearch.reports.front_facts import ALPHABET, point_text
from mpsearch.reports.sections import sections_of
from mpsearch.reports.style import Code, Drawing, More, Paragraph, Part, Section, Table, inline_svg
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


# The data are JSON in an element that is not run; names reach the page as text nodes only.
SCRIPT = """
(() => {
  const data = JSON.parse(document.getElementById('front-data').textContent);
  const plot = document.getElementById('front-plot');
  const svg = plot.querySelector('svg');
  const reading = document.getElementById('front-reading');
  const ring = document.createElementNS(svg.namespaceURI, 'circle');
  ring.setAttribute('r', 6);
  ring.setAttribute('class', 'ring');
  const line = (text, tag) => {
    const part = document.createElement(tag);
    part.textContent = text;
    reading.append(part);
  };
  let at = data.start;
  const show = (place) => {
    at = Math.max(0, Math.min(data.points.length - 1, place));
    const [x, y, text, code] = data.points[at];
    ring.setAttribute('cx', x);
    ring.setAttribute('cy', y);
    svg.append(ring);
    reading.textContent = '';
    line(text, 'strong');
    data.choices.forEach((choice, place) => {
      const layers = data.layers.filter((_, n) => code[n] === data.letters[place]);
      if (layers.length) line(`${choice} (${layers.length}): ${layers.join(', ')}`, 'p');
    });
  };
  const nearest = (event) => {
    const own = svg.getScreenCTM().inverse();
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(own);
    let best = Infinity;
    data.points.forEach(([px, py], place) => {
      const far = (px - x) ** 2 + (py - y) ** 2;
      if (far < best) { best = far; at = place; }
    });
    show(at);
  };
  const keys = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1,
    PageDown: -10, PageUp: 10, Home: -1e9, End: 1e9 };
  svg.addEventListener('pointermove', nearest);
  svg.addEventListener('pointerdown', nearest);
  plot.addEventListener('focus', () => show(at));
  plot.addEventListener('keydown', (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    show(at + keys[event.key]);
  });
  plot.tabIndex = 0;
  reading.hidden = false;
  line('Point at the front, or focus it and use the arrow keys, to read an assignment.', 'p');
})();
"""


def script_source() -> str:
    """The source expression of a content security policy that allows exactly this script."""
    return f"'sha256-{b64encode(sha256(SCRIPT.encode()).digest()).decode()}'"


def front_data(facts: Facts, places: Sequence[tuple[float, float]]) -> str:
    """JSON that is safe inside a script element: no <, > or & in it, whatever layers are called."""
    found = facts.front
    assert found is not None
    made = found.assignments
    assert made is not None
    points = [
        [x, y, shown(point_text(found, point)), code]
        for (x, y), point, code in zip(places, made.points, made.codes, strict=True)
    ]
    start = 0
    total = facts.answer.point.totals.get(found.resource) if facts.answer else None
    if total is not None:
        near = [abs(found.totals[point] - total) for point in made.points]
        start = near.index(min(near))
    document = {
        "layers": [shown(name) for name in made.layers], "choices": made.choices,
        "letters": ALPHABET, "points": points, "start": start,
    }  # fmt: skip
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --muted: #5c5c66; --lines: #d9d9de;
  --paper: #ffffff; --shade: #f4f4f7; --blue: #0072b2; --orange: #c04f00; --green: #00795a;
  --purple: #a5548a; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #ececf1; --muted: #a4a4b0;
  --lines: #3a3a44; --paper: #17171b; --shade: #222228; --blue: #56b4e9; --orange: #f0a04b;
  --green: #3ecf9f; --purple: #e29cc4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 64rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--lines);
  padding-bottom: .25rem; }
p { max-width: 46rem; overflow-wrap: anywhere; }
.lead { font-size: 1.1rem; }
.notice { border-left: 4px solid var(--orange); background: var(--shade); padding: .5rem .75rem; }
figure { margin: 1rem 0; max-width: 40rem; }
svg { display: block; width: 100%; height: auto; }
figcaption, footer, caption { color: var(--muted); font-size: .875rem; }
#front-plot { touch-action: pan-y; }
#front-plot:focus-visible { outline: 2px solid var(--blue); }
#front-reading { background: var(--shade); padding: .5rem .75rem; margin: .5rem 0;
  font-size: .875rem; height: 8.5rem; overflow: auto; overflow-wrap: anywhere; }
#front-reading p { margin: .25rem 0; }
.ring { fill: none; stroke: var(--ink); stroke-width: 2; pointer-events: none; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .25rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--lines); vertical-align: top; }
th { font-weight: 600; text-align: left; }
.numbers td, .numbers thead th + th { text-align: right; white-space: nowrap; }
.numbers thead th { overflow-wrap: normal; vertical-align: bottom; }
.prose td { overflow-wrap: anywhere; }
tbody th { font-weight: 400; }
tbody th span { display: inline-block; max-width: 17rem; overflow-wrap: break-word; }
summary { cursor: pointer; margin: .75rem 0; }
pre { background: var(--shade); padding: .75rem; font-size: .8125rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
footer { margin: 2rem 0 1rem; }
@media screen and (max-width: 40rem) {
  table, caption, tbody { display: block; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tbody tr { display: flex; flex-wrap: wrap; gap: 0 1rem; padding: .4rem 0;
    border-bottom: 1px solid var(--lines); }
  tbody th, .numbers td, .prose td { border: 0; padding: 0; text-align: left; white-space: normal;
    overflow-wrap: anywhere; }
  tbody th { flex: 0 0 100%; font-weight: 600; }
  tbody th span { max-width: 100%; overflow-wrap: anywhere; }
  td::before { color: var(--muted); margin-right: .35rem; }
  td:empty { display: none; }
  .pairs td::before { content: none !important; }
}
@media print {
  :root { --ink: #000; --muted: #444; --lines: #bbb; --paper: #fff; --shade: #f2f2f2;
    --blue: #0072b2; --orange: #c04f00; --green: #00795a; --purple: #a5548a; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  figure, tr { break-inside: avoid; } h2, caption { break-after: avoid; }
  figure { max-width: 26rem; } p + figure { break-before: avoid; }
  .wide { overflow: visible; }
  table { font-size: 8pt; } th, td { padding: .15rem .4rem; } .numbers td { white-space: normal; }
  #front-reading, .ring, details:not([open]) { display: none; }
}
"""


def page(title: str, body: str, version: str, styles: str = "", scripted: bool = False) -> str:
    """The document around `body`, which is HTML already; `title` is text. styles: further rules.
    scripted: the body has a front whose points can be read."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    script = ""
    if scripted:
        policy += f"; script-src {script_source()}"
        script = f"<script>{SCRIPT}</script>\n"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{html_text(title)}</title>
<style>{STYLE}{styles}</style>
</head>
<body>
<h1>{html_text(title)}</h1>
{body}
<footer>Written by mpsearch {html_text(version)}. Ω: how much quantizing a layer perturbs the loss,
as the table's metric estimates it; lower is better. 1 KB = 1024 B. BOPS: MACs × weight bits ×
activation bits.</footer>
{script}</body>
</html>
"""


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

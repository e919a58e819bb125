"""Nouns as a notebook shows them: a caption and a small table, in HTML.

Names come from files of others: every text is made fit to show, and escaped.
"""

import html
from collections.abc import Iterable, Sequence

from mpsearch.running.streams import shown

MOST = 60  # rows; more are for `to_pandas` and files


def html_table(
    caption: Sequence[str], columns: Sequence[str], rows: Iterable[Sequence[str]]
) -> str:
    """Lines of a caption above a table; cells but those of the first column are aligned right."""
    cells = [list(row) for row in rows]
    lines = [_escaped(line) for line in caption]
    if len(cells) > MOST:
        lines.append(f"{len(cells):,} rows, the first {MOST} are shown")
    body = "".join(_row("td", row) for row in cells[:MOST])
    table = f"<thead>{_row('th', columns)}</thead><tbody>{body}</tbody>" if cells else ""
    return f"<div><p>{'<br>'.join(lines)}</p><table>{table}</table></div>"


def _row(tag: str, cells: Sequence[str]) -> str:
    styles = ["left", *["right"] * (len(cells) - 1)]
    made = (
        f'<{tag} style="text-align:{style}">{_escaped(cell)}</{tag}>'
        for style, cell in zip(styles, cells, strict=True)
    )
    return f"<tr>{''.join(made)}</tr>"


def _escaped(text: str) -> str:
    return html.escape(shown(text))

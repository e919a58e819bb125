"""Drawings as SVG that lives inside an HTML page and takes the page's colours."""

import io
import re
from dataclasses import dataclass
from typing import Any

from mpsearch.reports.drawing import Drawing
from mpsearch.reports.style import (
    BLUE,
    GREEN,
    INK,
    LINES,
    MUTED,
    ORANGE,
    PAPER,
    PURPLE,
    canvas,
    drawn,
)
from mpsearch.running.foreign_text import html_text

VARIABLES = {
    INK: "ink", MUTED: "muted", LINES: "lines", PAPER: "paper",
    BLUE: "blue", ORANGE: "orange", GREEN: "green", PURPLE: "purple",
}  # fmt: skip


@dataclass(frozen=True)
class InlineSvg:
    """An `<svg>` element, and the places (x, y) of its anchors in its own coordinates."""

    svg: str
    places: tuple[tuple[float, float], ...] = ()


def inline_svg(drawing: Drawing) -> InlineSvg:
    """The drawing as an `<svg>` element without ids that could clash and without addresses.

    Text stays text: small, and any script in a layer's name is shown.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with canvas(drawing.height, svg__fonttype="none", svg__hashsalt="mpsearch") as figure:
        anchors = drawn(drawing, figure)
        buffer = io.StringIO()
        painter: Any = FigureCanvasSVG(figure)
        painter.print_svg(buffer, metadata={"Date": None})
        places: tuple[tuple[float, float], ...] = ()
        if anchors is not None:
            points = list(zip(anchors.x, anchors.y, strict=True))
            height = figure.bbox.height
            pixels = anchors.axes.transData.transform(points).tolist()
            places = tuple((round(x, 1), round(height - y, 1)) for x, y in pixels)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    start = svg.index(">")
    box = re.search(r'viewBox="([^"]*)"', svg[:start])
    assert box is not None
    name = drawing.name
    head = (
        f'<svg viewBox="{box[1]}" role="img" aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{html_text(drawing.title)}</title>'
        f'<desc id="{name}-text">{html_text(drawing.text)}</desc>'
    )
    return InlineSvg(head + _in_tags(svg[start + 1 :], name), places)


def _in_tags(svg: str, name: str) -> str:
    """Ids, references and colours inside tags; what stands between tags is left as it is."""
    variables = re.compile("|".join(VARIABLES), re.IGNORECASE)

    def tag(match: re.Match[str]) -> str:
        text = match[0].replace("xlink:href", "href")
        text = text.replace(' id="', f' id="{name}-').replace('="#', f'="#{name}-')
        text = text.replace("url(#", f"url(#{name}-")
        return variables.sub(lambda colour: f"var(--{VARIABLES[colour[0].lower()]})", text)

    return re.sub(r"<[^!>][^>]*>", tag, svg)

"""Matplotlib figures as SVG that lives inside an HTML page and takes the page's colours."""

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# What is drawn in these colours becomes a variable of the page, so that one drawing serves light
# and dark. The data colours are Okabe and Ito's, which people with any colour vision tell apart.
INK = "#1b1b1f"
MUTED = "#6b6b74"
LINES = "#d9d9de"
PAPER = "#fefefe"
BLUE = "#0072b2"
ORANGE = "#d55e00"
GREEN = "#009e73"
PURPLE = "#cc79a7"
VARIABLES = {
    INK: "ink", MUTED: "muted", LINES: "lines", PAPER: "paper",
    BLUE: "blue", ORANGE: "orange", GREEN: "green", PURPLE: "purple",
}  # fmt: skip

WIDTH = 5.0  # inches; on a page of 400 px its text is 9 px high
SPAN_FOR_LOG = 20.0

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, and any script in a layer name is shown
    "svg.hashsalt": "mpsearch",
    "text.parse_math": False,  # a layer may be called $x$
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": LINES,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}


@contextmanager
def drawing(height: float) -> Iterator["Figure"]:
    """Yield an empty figure, `height` inches high; matplotlib's settings are put back after."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(WIDTH, height), layout="constrained")


def inline_svg(figure: "Figure", name: str, text: str) -> str:
    """The figure as an `<svg>` element without ids that could clash and without addresses.

    name: prefix of its ids, one per page. text: what the figure shows, for who does not see it.
    Must be called inside `drawing`, whose settings it needs.
    """
    from html import escape

    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    start = svg.index(">")
    box = re.search(r'viewBox="([^"]*)"', svg[:start])
    assert box is not None
    head = f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(text)}"'
    return head + _in_tags(svg[start:], name)


def scale_omega(axes: "Axes", which: Literal["x", "y"], omegas: Iterable[float]) -> None:
    """Make this axis logarithmic where the values span more than a factor of 20.

    Linear around zero where one of them is zero, which has no logarithm. Labels are plain decimals.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axis: Axis = axes.xaxis if which == "x" else axes.yaxis
    set_scale = axes.set_xscale if which == "x" else axes.set_yscale
    values = [omega for omega in omegas if isfinite(omega)]
    positive = [omega for omega in values if omega > 0]
    if positive and max(positive) > SPAN_FOR_LOG * min(positive):
        if len(positive) == len(values):
            set_scale("log")
            axis.set_major_locator(LogLocator(numticks=4))
        else:
            set_scale("symlog", linthresh=min(positive))
        axis.set_minor_formatter(NullFormatter())
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def short(value: float) -> str:
    """`0.01` and `20` as they are, `0.0001` -> `1e-4`: labels that stay apart."""
    if value == 0 or 0.01 <= abs(value) < 10000:
        return f"{value:g}"
    digits, _, power = f"{value:.4e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def _in_tags(svg: str, name: str) -> str:
    """Ids, references and colours inside tags; what stands between tags is left as it is."""
    variables = re.compile("|".join(VARIABLES), re.IGNORECASE)

    def tag(match: re.Match[str]) -> str:
        text = match[0].replace("xlink:href", "href")
        text = text.replace(' id="', f' id="{name}-').replace('="#', f'="#{name}-')
        text = text.replace("url(#", f"url(#{name}-")
        return variables.sub(lambda colour: f"var(--{VARIABLES[colour[0].lower()]})", text)

    return re.sub(r"<[^!>][^>]*>", tag, svg)

"""The look of every figure: colours, fonts and sizes, for the page and for files.

`Drawing`: one figure, its words, and the function that draws it; where it goes is not known.

What a report is made of, before it is HTML or Markdown: sections of text, tables, drawings.

Drawings as SVG that lives inside an HTML page and takes the page's colours.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

from mpsearch.running.streams import html_text, shown
from mpsearch.tables.units import is_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Anchors:
    """Points of a figure that a page can point at: data coordinates in `axes`."""

    axes: "Axes"
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Drawing:
    """name: of its file and the prefix of its ids. text: the figure in words, for who does not see
    it. caption: how to read it. height: inches. draw: fills an empty figure of that height."""

    name: str
    title: str
    text: str
    caption: str
    height: float
    draw: "Callable[[Figure], Anchors | None]"


# On a page each becomes a variable, so that one drawing serves light and dark. The data colours
# are Okabe and Ito's, which people with any colour vision tell apart; shapes differ besides.
INK = "#1b1b1f"
MUTED = "#6b6b74"
LINES = "#d9d9de"
PAPER = "#fefefe"
BLUE = "#0072b2"
ORANGE = "#d55e00"
GREEN = "#009e73"
PURPLE = "#cc79a7"

WIDTH = 5.0  # inches; on a page of 400 px its text is 9 px high
SPAN_FOR_LOG = 20.0
SIZE_STEPS = ((1024**3, "GB"), (1024**2, "MB"), (1024, "KB"), (1, "B"))
COUNT_STEPS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (1, ""))

STYLE: Mapping[Any, Any] = {
    "text.parse_math": False,  # a layer may be called $x$
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "legend.fontsize": 8.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "figure.dpi": 72.0,  # one point of an SVG's coordinates
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
def canvas(height: float, **settings: Any) -> Iterator["Figure"]:
    """Yield an empty figure, `height` inches high; matplotlib's settings are put back after."""
    import matplotlib
    from matplotlib.figure import Figure

    changed: dict[Any, Any] = dict(STYLE)
    changed |= {name.replace("__", "."): value for name, value in settings.items()}
    with matplotlib.rc_context(changed), warnings.catch_warnings():
        # A layer's name may have letters that the font lacks; boxes stand for them.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        yield Figure(figsize=(WIDTH, height), layout="constrained")


def drawn(drawing: "Drawing", figure: "Figure") -> "Anchors | None":
    """Draw, and make every text of the figure fit to be shown; its line breaks stay."""
    from matplotlib.text import Text
    from matplotlib.ticker import FuncFormatter

    def fit(text: str) -> str:
        return "\n".join(map(shown, text.split("\n")))

    def fit_labels(labels: FuncFormatter) -> FuncFormatter:
        return FuncFormatter(lambda value, place: fit(labels(value, place)))

    anchors = drawing.draw(figure)
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        labels = axis.get_major_formatter()  # labels of ticks are written anew when it draws
        if isinstance(labels, FuncFormatter):
            axis.set_major_formatter(fit_labels(labels))
    for text in figure.findobj(Text):
        text.set_text(fit(text.get_text()))
    return anchors


def scale_of(column: str, largest: float) -> tuple[int, str]:
    """The unit in which `largest` is at least 1: ("size_bytes", 2e5) -> (1024, "KB")."""
    steps = SIZE_STEPS if is_size(column) else COUNT_STEPS
    return next(((unit, name) for unit, name in steps if largest >= unit), (1, ""))


def axis_label(name: str, column: str, unit: str) -> str:
    """`size (KB, 1 KB = 1024 B)`, `BOPS (M)`, `latency_s (s)`."""
    if column.endswith(("_s", "_j")):
        return f"{name} ({unit}{'s' if column.endswith('_s') else 'J'})"
    if unit in ("KB", "MB", "GB"):
        return f"{name} ({unit}, 1 KB = 1024 B)"
    return f"{name} ({unit})" if unit else name


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


def shorten(name: str, most: int = 26) -> str:
    """`stage4.unit2.quant_convbn_long` -> `stage4.unit2…nvbn_long`: on one line, middle out."""
    name = " ".join(shown(name).split())
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[:half]}…{name[-half:]}"


@dataclass(frozen=True)
class Paragraph:
    """kind: `lead` for the answer, `notice` for what must be known first, or empty."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Headline:
    """A number to be seen first, with its unit, and the line that says what it is."""

    value: str
    label: str


@dataclass(frozen=True)
class Headlines:
    """What a reader came for, as large numbers side by side."""

    items: Sequence[Headline]


@dataclass(frozen=True)
class Table:
    """Cells as text; the first of each row names it. prose: the others are words, not numbers."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    prose: bool = False


@dataclass(frozen=True)
class Code:
    """Lines for a shell, or calls of the Python API."""

    lines: Sequence[str]

    @property
    def language(self) -> str:
        """As Markdown names it."""
        return "sh" if all(line.startswith("mpsearch ") for line in self.lines) else "python"


@dataclass(frozen=True)
class More:
    """A table that is closed until it is asked for."""

    summary: str
    table: Table


Part = Paragraph | Headlines | Table | Code | More | Drawing


@dataclass(frozen=True)
class Section:
    """name: its id on a page."""

    name: str
    title: str
    parts: Sequence[Part]


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

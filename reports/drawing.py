"""`Drawing`: one figure, its words, and the function that draws it; where it goes is not known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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

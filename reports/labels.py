"""Names beside marked points that cover neither each other nor, where there is room, the curve."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox


DISTANCES = (8.0, 14.0, 22.0, 34.0, 50.0)  # points; from the third on a line leads to the name
DIRECTIONS = 16
STEP = 3.0  # pixels
MARK = 5.0  # half the side of a mark


@dataclass(frozen=True)
class Label:
    """A name at a place in data coordinates."""

    text: str
    x: float
    y: float
    colour: str
    bold: bool = False


def place_labels(
    axes: "Axes", labels: Sequence[Label], curves: Sequence[NDArray[np.float64]] = ()
) -> tuple[str, ...]:
    """Write the names, most important first; returns those for which there was no room.

    curves: data coordinates [N, 2] of lines that names should not cover. The layout of the figure
    must be as it will be drawn but for these names.
    """
    layout = axes.figure.get_layout_engine()
    if layout is not None:
        layout.execute(axes.figure)  # type: ignore[arg-type]
    inside = axes.get_window_extent()
    scale = axes.figure.dpi / 72
    marks = axes.transData.transform([(label.x, label.y) for label in labels])
    avoided = np.concatenate(
        [np.zeros((0, 2)), *(_along(axes.transData.transform(curve)) for curve in curves)]
    )
    taken: list[Bbox] = []
    left_out = []
    for label, mark in zip(labels, marks, strict=True):
        text = axes.annotate(
            label.text, (label.x, label.y), xytext=(0, 0), textcoords="offset points",
            ha="center", va="center", color=label.colour, fontsize=8,
            fontweight="bold" if label.bold else "normal", annotation_clip=False,
        )  # fmt: skip
        text.set_in_layout(False)
        box = text.get_window_extent()
        found = _best(box.width, box.height, mark, scale, inside, taken, marks, avoided)
        if found is None:
            text.remove()
            left_out.append(label.text)
            continue
        offset, place, distance = found
        text.set_position(offset)
        taken.append(place)
        if distance > DISTANCES[1]:
            line = axes.annotate(
                "", (label.x, label.y), xytext=_edge(offset, place, scale),
                textcoords="offset points", annotation_clip=False,
                arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": label.colour},
            )  # fmt: skip
            line.set_in_layout(False)
    return tuple(left_out)


def _best(
    width: float,
    height: float,
    mark: NDArray[np.float64],
    scale: float,
    inside: "Bbox",
    taken: "Sequence[Bbox]",
    marks: NDArray[np.float64],
    curve: NDArray[np.float64],
) -> "tuple[tuple[float, float], Bbox, float] | None":
    """Offset in points, box and distance: nearest first, with the least of the curve covered."""
    from matplotlib.transforms import Bbox

    best = None
    for distance in DISTANCES:
        for step in range(DIRECTIONS):
            angle = pi / 4 + 2 * pi * step / DIRECTIONS  # upper right first
            x = mark[0] + cos(angle) * (distance * scale + width / 2)
            y = mark[1] + sin(angle) * (distance * scale + height / 2)
            box = Bbox.from_bounds(x - width / 2 - 1, y - height / 2, width + 2, height)
            contained = (
                inside.x0 <= box.x0 and box.x1 <= inside.x1
                and inside.y0 <= box.y0 and box.y1 <= inside.y1
            )  # fmt: skip
            if not contained or any(box.overlaps(other) for other in taken):
                continue
            covered = _inside(box, marks, MARK * scale)
            hidden = _inside(box, curve, 1.0)
            cost = (100 * covered + min(hidden, 50), distance)
            if best is None or cost < best[0]:
                offset = ((x - mark[0]) / scale, (y - mark[1]) / scale)
                best = (cost, offset, box, distance)
    if best is None or best[0][0] >= 100:  # a name over another mark misleads
        return None
    return best[1:]


def _along(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of the line every few pixels, however far its corners lie apart."""
    lengths = np.abs(np.diff(corners, axis=0)).max(axis=1, initial=0.0)
    counts = np.clip(lengths / STEP, 1, 400).astype(np.int64)
    parts = [
        corners[n] + (corners[n + 1] - corners[n]) * (np.arange(count) / count)[:, None]
        for n, count in enumerate(counts.tolist())
    ]
    return np.concatenate([*parts, corners[-1:]])


def _inside(box: "Bbox", points: NDArray[np.float64], around: float) -> int:
    x, y = points[:, 0], points[:, 1]
    inside = (x > box.x0 - around) & (x < box.x1 + around)
    inside &= (y > box.y0 - around) & (y < box.y1 + around)
    return int(np.count_nonzero(inside))


def _edge(offset: tuple[float, float], box: "Bbox", scale: float) -> tuple[float, float]:
    """Where the line from the mark meets the box of the name."""
    x, y = offset
    half_width, half_height = box.width / 2 / scale, box.height / 2 / scale
    shrink = max(
        0.0, 1 - min(half_width / abs(x) if x else 1e9, half_height / abs(y) if y else 1e9)
    )
    return x * shrink, y * shrink

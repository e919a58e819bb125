"""The figure of the Pareto front: Ω against a resource, with the chosen and the uniform points.

The panel of measured accuracy over a front's resource, with intervals.

Names beside marked points that cover neither each other nor, where there is room, the curve.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpsearch.reports.facts import Facts, FrontFacts, MeasuredFacts, Point
from mpsearch.reports.prose import NAMES, front_caption
from mpsearch.reports.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    Anchors,
    Drawing,
    axis_label,
    scale_of,
    scale_omega,
)
from mpsearch.tables.units import format_amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox


FEW = 40  # with more measured points the bars of their intervals become a band


def draw_accuracy(axes: "Axes", found: MeasuredFacts, unit: float) -> None:
    """Measured accuracy in percent over the resource, with 95 % intervals and FP32's line."""
    x = np.array(found.totals, dtype=np.float64) / unit
    y, low, high = (100 * np.array(part) for part in (found.accuracy, found.low, found.high))
    if found.fp32 is not None:
        if found.fp32_interval is not None:
            least, most = (100 * end for end in found.fp32_interval)
            axes.axhspan(least, most, color=MUTED, alpha=0.15, linewidth=0)
        axes.axhline(
            100 * found.fp32, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), label="FP32"
        )
    if len(x) <= FEW:
        axes.errorbar(
            x, y, yerr=[np.maximum(y - low, 0), np.maximum(high - y, 0)], color=GREEN, marker="o",
            markersize=4, linewidth=1.2, elinewidth=1, capsize=2.5,
        )  # fmt: skip
    else:
        axes.fill_between(x, low, high, color=GREEN, alpha=0.25, linewidth=0)
        axes.plot(x, y, color=GREEN, linewidth=1.2)
    axes.set_ylabel(f"{found.score} (%)")
    axes.grid()
    axes.set_axisbelow(True)
    axes.margins(y=0.1)


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
    axes: "Axes", labels: Sequence[Label], curve: NDArray[np.float64] | None = None
) -> tuple[str, ...]:
    """Write the names, most important first; returns those for which there was no room.

    curve: data coordinates [N, 2] of a line that names should not cover. The layout of the figure
    must be as it will be drawn but for these names.
    """
    layout = axes.figure.get_layout_engine()
    if layout is not None:
        layout.execute(axes.figure)  # type: ignore[arg-type]
    inside = axes.get_window_extent()
    scale = axes.figure.dpi / 72
    marks = axes.transData.transform([(label.x, label.y) for label in labels])
    avoided = np.zeros((0, 2)) if curve is None else _along(axes.transData.transform(curve))
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


DOTS = 150  # a front of more points is drawn as a line alone


def front_drawing(facts: Facts) -> Drawing:
    """The front of `facts`, which must have one."""
    found = facts.front
    assert found is not None

    def draw(figure: "Figure") -> Anchors | None:
        return _draw(figure, facts, found)

    return Drawing(
        name="front",
        title="Pareto front",
        text=describe_front(facts),
        caption=front_caption(facts),
        height=4.1 if found.measured is None else 6.2,
        draw=draw,
    )


def marked_points(facts: Facts) -> tuple[Point, ...]:
    """The chosen point and the uniform ones, where the front's resource is known of them."""
    assert facts.front is not None
    chosen = [facts.answer.point] if facts.answer else []
    points = (*chosen, *facts.uniform)
    return tuple(
        point
        for point in points
        if facts.front.resource in point.totals and np.isfinite(point.omega)
    )


def _draw(figure: "Figure", facts: Facts, found: FrontFacts) -> Anchors | None:
    marked = marked_points(facts)
    largest = max([*found.totals, *(point.totals[found.resource] for point in marked)])
    unit, unit_name = scale_of(found.resource, largest)
    if found.measured is None:
        axes = figure.subplots()
    else:
        above, axes = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
        draw_accuracy(above, found.measured, unit)
    x = np.array(found.totals, dtype=np.float64) / unit
    y = np.array(found.omega)
    few = len(x) <= DOTS
    axes.step(
        x, y, where="post", color=BLUE, linewidth=1.6, marker="o" if few else "", markersize=3,
        label=f"Pareto front, {len(x):,} point{'s' if len(x) > 1 else ''}",
    )  # fmt: skip
    if found.measured is not None and len(found.measured.totals) <= DOTS:
        axes.plot(
            [total / unit for total in found.measured.totals], found.measured.omega, marker="o",
            color=GREEN, linestyle="none", markersize=5, markeredgecolor=PAPER, zorder=3,
            label="measured",
        )  # fmt: skip
    _marks(axes, facts, found, unit)
    scale_omega(axes, "y", [*found.omega, *(point.omega for point in marked)])
    axes.set_xlabel(
        axis_label(NAMES.get(found.resource, found.resource), found.resource, unit_name)
    )
    axes.set_ylabel("total Ω (perturbation of the loss)")
    axes.margins(x=0.06, y=0.1)
    axes.grid()
    axes.set_axisbelow(True)
    if facts.fp32 is not None and found.resource in facts.fp32.totals:
        where = format_amount(found.resource, facts.fp32.totals[found.resource]).strip()
        axes.set_title(f"FP32: Ω 0 at {where} →", loc="right", fontsize=8, color=MUTED)
    figure.legend(loc="outside upper center", ncols=3, handlelength=1.4, columnspacing=1.2)
    chosen = facts.answer.point if facts.answer else None
    labels = [
        Label(
            point.name, point.totals[found.resource] / unit, point.omega,
            ORANGE if point is chosen else MUTED, point is chosen,
        )
        for point in marked
    ]  # fmt: skip
    place_labels(axes, labels, _outline(x, y))
    shown = found.assignments
    if shown is None:
        return None
    points = list(shown.points)
    return Anchors(axes, tuple(x[points].tolist()), tuple(y[points].tolist()))


def _marks(axes: "Axes", facts: Facts, found: FrontFacts, unit: int) -> None:
    """Squares for one choice everywhere, a diamond for the chosen point, a line for the limit."""
    chosen = facts.answer.point if facts.answer else None
    for point in marked_points(facts):
        own = point is chosen
        first = own or point is next(p for p in marked_points(facts) if p is not chosen)
        name = "chosen" if own else "one choice everywhere"
        axes.plot(
            [point.totals[found.resource] / unit], [point.omega], marker="D" if own else "s",
            markersize=8 if own else 6, color=ORANGE if own else MUTED, markeredgecolor=PAPER,
            linestyle="none", zorder=5 if own else 4, label=name if first else None,
        )  # fmt: skip
    for asked in facts.limits:
        if asked.column == found.resource:
            axes.axvline(
                asked.limit / unit, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="limit"
            )


def _outline(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The corners [N, 2] of the staircase, thinned: what names should not cover."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), 1000)).round().astype(np.int64))
    return np.stack([np.repeat(x[kept], 2)[1:], np.repeat(y[kept], 2)[:-1]], axis=1)


def describe_front(facts: Facts) -> str:
    """The figure in words."""
    found = facts.front
    assert found is not None
    name = NAMES.get(found.resource, found.resource)
    first, last = (format_amount(found.resource, found.totals[end]) for end in (0, -1))
    count = f"{len(found.omega)} point{'s' if len(found.omega) > 1 else ''}"
    words = (
        f"Pareto front of total Ω against {name}, {count}, "
        f"from Ω {found.omega[0]:.3g} at {first} to Ω {found.omega[-1]:.3g} at {last}."
    )
    if found.measured is not None:
        accuracies = found.measured.accuracy
        words += (
            f" Measured at {len(accuracies)} points: {found.measured.score} from "
            f"{100 * accuracies[0]:.2f} % at the smallest to {100 * accuracies[-1]:.2f} % at the "
            "largest."
        )
    points = [*facts.uniform, *([facts.answer.point] if facts.answer else [])]
    for point in points:
        if found.resource in point.totals:
            total = format_amount(found.resource, point.totals[found.resource])
            words += f" {point.name.capitalize()}: Ω {point.omega:.3g} at {total}."
    return words

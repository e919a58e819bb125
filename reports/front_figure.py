"""The figure of the Pareto front: Ω against a resource, with the chosen and the uniform points, and
its parts, in which points that lie close together stand apart."""

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpsearch.reports.accuracy_figure import draw_measured, upright
from mpsearch.reports.facts import Facts, FrontFacts, Point
from mpsearch.reports.labels import Label, place_labels
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
from mpsearch.tables.choice import is_choice
from mpsearch.tables.units import format_amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS = 150  # a front of more points is drawn as a line alone
PART = 25  # points of a part, at least: those of so short a front stand apart as they are
PARTS = 6


def front_drawing(facts: Facts, panel: bool = True, name: str = "front") -> Drawing:
    """The front of `facts`, which must have one. panel: measured accuracies above it."""
    found = facts.front
    assert found is not None
    panel = panel and found.measured is not None

    def draw(figure: "Figure") -> Anchors | None:
        return _draw(figure, facts, found, panel)

    return Drawing(
        name=name,
        title="Pareto front",
        text=describe_front(facts),
        caption=front_caption(facts, panel),
        height=6.2 if panel else 4.1,
        draw=draw,
    )


def front_parts(facts: Facts) -> tuple[Facts, ...]:
    """The same facts with a part of the front each, as many points in every part: where they lie
    densely a part is narrow. Empty for a front of few points.

    Neighbours share a point. What is marked and lies outside of a part is left out of it.
    """
    found = facts.front
    count = 0 if found is None else min(PARTS, len(found.omega) // PART)
    if found is None or count < 2:
        return ()
    ends = np.linspace(0, len(found.omega) - 1, count + 1).round().astype(int).tolist()
    return tuple(_part(facts, found, first, last + 1) for first, last in pairwise(ends))


def _part(facts: Facts, found: FrontFacts, first: int, end: int) -> Facts:
    totals, omega = found.totals[first:end], found.omega[first:end]

    def near(point: Point) -> bool:
        total = point.totals.get(found.resource)
        inside = total is not None and totals[0] <= total <= totals[-1]
        return inside and point.omega <= 2 * omega[0]

    kept = found.assignments
    if kept is not None:
        pairs = [(point - first, code) for point, code in zip(kept.points, kept.codes, strict=True)
                 if first <= point < end]  # fmt: skip
        kept = replace(kept, points=tuple(point for point, _ in pairs),
                       codes=tuple(code for _, code in pairs))  # fmt: skip
    measured = found.measured
    if measured is not None:
        there = [n for n, total in enumerate(measured.totals) if totals[0] <= total <= totals[-1]]
        part = replace(
            measured,
            totals=tuple(measured.totals[n] for n in there),
            omega=tuple(measured.omega[n] for n in there),
            accuracy=tuple(measured.accuracy[n] for n in there),
            low=tuple(measured.low[n] for n in there),
            high=tuple(measured.high[n] for n in there),
        )
        measured = part if there else None
    return replace(
        facts,
        front=replace(found, totals=totals, omega=omega, measured=measured, assignments=kept),
        answer=facts.answer if facts.answer and near(facts.answer.point) else None,
        uniform=tuple(point for point in facts.uniform if near(point)),
        limits=tuple(asked for asked in facts.limits
                     if asked.column == found.resource and totals[0] <= asked.limit <= totals[-1]),
        fp32=None,
    )  # fmt: skip


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


def _draw(figure: "Figure", facts: Facts, found: FrontFacts, panel: bool) -> Anchors | None:
    marked = marked_points(facts)
    largest = max([*found.totals, *(point.totals[found.resource] for point in marked)])
    unit, unit_name = scale_of(found.resource, largest)
    if panel and found.measured is not None:
        above, axes = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
        draw_measured(above, found.measured, unit)
    else:
        axes = figure.subplots()
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
    limits = [asked.limit for asked in facts.limits if asked.column == found.resource]
    lines = [line for limit in limits for line in upright(axes, limit, unit)]
    place_labels(axes, labels, [_outline(x, y), *lines])
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
            ours = point.name == "chosen" or is_choice(point.name)
            name = point.name.capitalize() if ours else point.name
            words += f" {name}: Ω {point.omega:.3g} at {total}."
    return words

"""The figure of the Pareto front: Ω against a resource, with the chosen and the uniform points."""

from typing import TYPE_CHECKING

from mpsearch.reports.facts import Facts, FrontFacts, Point
from mpsearch.reports.measured_figure import draw_accuracy
from mpsearch.reports.prose import NAMES
from mpsearch.reports.svg import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    drawing,
    inline_svg,
    scale_omega,
)
from mpsearch.units import format_amount, is_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_STEPS = ((1024**3, "GB"), (1024**2, "MB"), (1024, "KB"), (1, "B"))
COUNT_STEPS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (1, ""))
DOTS = 150  # a front of more points is drawn as a line alone


def front_svg(facts: Facts) -> str:
    """The front of `facts`, which must have one, as an `<svg>` element."""
    found = facts.front
    assert found is not None
    chosen = [facts.answer.point] if facts.answer else []
    marked = [p for p in (*facts.uniform, *chosen) if found.resource in p.totals]
    largest = max([*found.totals, *(point.totals[found.resource] for point in marked)])
    unit, unit_name = scale_of(found.resource, largest)
    with drawing(3.9 if found.measured is None else 6.2) as figure:
        if found.measured is None:
            axes = figure.subplots()
        else:
            above, axes = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
            draw_accuracy(above, found.measured, unit)
            axes.plot(
                [total / unit for total in found.measured.totals], found.measured.omega,
                marker="o", color=GREEN, linestyle="none", markersize=5, markeredgecolor=PAPER,
                zorder=3,
            )  # fmt: skip
        x = [total / unit for total in found.totals]
        marker = "o" if len(x) <= DOTS else ""
        axes.step(
            x, found.omega, where="post", color=BLUE, linewidth=1.6, marker=marker, markersize=3
        )
        for point in facts.uniform:
            _mark(axes, point, found, unit, marker="s", colour=MUTED)
        for point in chosen:
            _mark(axes, point, found, unit, marker="D", colour=ORANGE, below=True)
        for asked in facts.limits:
            if asked.column == found.resource:
                axes.axvline(asked.limit / unit, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        scale_omega(axes, "y", [*found.omega, *(point.omega for point in marked)])
        name = NAMES.get(found.resource, found.resource)
        axes.set_xlabel(f"{name} ({unit_name})" if unit_name else name)
        axes.set_ylabel("total Ω (perturbation of the loss)")
        axes.margins(x=0.1, y=0.1)
        axes.grid()
        axes.set_axisbelow(True)
        return inline_svg(figure, "front", describe_front(facts))


def scale_of(column: str, largest: float) -> tuple[int, str]:
    """The unit in which `largest` is at least 1: ("size_bytes", 2e5) -> (1024, "KB")."""
    steps = SIZE_STEPS if is_size(column) else COUNT_STEPS
    return next(((unit, name) for unit, name in steps if largest >= unit), (1, ""))


def describe_front(facts: Facts) -> str:
    """The figure in words."""
    found = facts.front
    assert found is not None
    name = NAMES.get(found.resource, found.resource)
    first, last = (format_amount(found.resource, found.totals[end]) for end in (0, -1))
    words = (
        f"Pareto front of total Ω against {name}, {len(found.omega)} points, "
        f"from Ω {found.omega[0]:.3g} at {first} to Ω {found.omega[-1]:.3g} at {last}."
    )
    if found.measured is not None:
        accuracies = found.measured.accuracy
        words += (
            f" Measured at {len(accuracies)} points: accuracy from {100 * accuracies[0]:.2f} % at "
            f"the smallest to {100 * accuracies[-1]:.2f} % at the largest."
        )
    points = [*facts.uniform, *([facts.answer.point] if facts.answer else [])]
    for point in points:
        if found.resource in point.totals:
            total = format_amount(found.resource, point.totals[found.resource])
            words += f" {point.name.capitalize()}: Ω {point.omega:.3g} at {total}."
    return words


def _mark(
    axes: "Axes",
    point: Point,
    found: FrontFacts,
    unit: int,
    marker: str,
    colour: str,
    below: bool = False,
) -> None:
    """A named point; a falling front leaves room to the upper right and, below it, to the left."""
    if found.resource not in point.totals:
        return
    x = point.totals[found.resource] / unit
    axes.plot(
        [x], [point.omega], marker=marker, markersize=8 if below else 6, color=colour,
        markeredgecolor=PAPER, linestyle="none", zorder=4,
    )  # fmt: skip
    axes.annotate(
        point.name, (x, point.omega), xytext=(-5, -14) if below else (6, 5),
        textcoords="offset points", ha="right" if below else "left", color=colour,
        fontweight="bold" if below else "normal",
    )  # fmt: skip

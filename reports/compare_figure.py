"""The figure of a comparison: the fronts of several runs over one resource."""

from typing import TYPE_CHECKING

import numpy as np

from mpsearch.reports.compare_facts import ComparedRun, CompareFacts
from mpsearch.reports.drawing import Drawing
from mpsearch.reports.prose import NAMES
from mpsearch.reports.style import (
    BLUE,
    GREEN,
    ORANGE,
    PAPER,
    PURPLE,
    axis_label,
    scale_of,
    scale_omega,
    shorten,
)
from mpsearch.tables.units import format_amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
DASHES = ((0, ()), (0, (5, 2)), (0, (1, 1.5)))


def compare_drawing(facts: CompareFacts) -> Drawing:
    """Every run a colour and, from the fifth on, a dash; diamonds: what was chosen."""
    measured = any(run.measured is not None for run in facts.runs)

    def draw(figure: "Figure") -> None:
        _draw(figure, facts, measured)

    name = NAMES.get(facts.resource, facts.resource)
    words = [
        f"{run.name}: {len(run.totals)} points, Ω {run.omega[0]:.3g} at "
        f"{format_amount(facts.resource, run.totals[0]).strip()} to {run.omega[-1]:.3g} at "
        f"{format_amount(facts.resource, run.totals[-1]).strip()}, hypervolume "
        f"{run.hypervolume:.4f}"
        for run in facts.runs
    ]
    caption = f"Total Ω against {name}; lower and further left is better. Diamonds: chosen."
    if facts.relative:
        caption += " Ω of each run as a part of that of its own smallest network."
    if measured:
        caption += " Above: measured accuracies with 95 % intervals."
    return Drawing(
        name="compare",
        title="Fronts of the runs",
        text=f"{'. '.join(words)}.",
        caption=caption,
        height=(6.2 if measured else 4.1) + 0.2 * (len(facts.runs) // 2),
        draw=draw,
    )


def _draw(figure: "Figure", facts: CompareFacts, measured: bool) -> None:
    if measured:
        above, axes = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    else:
        above, axes = None, figure.subplots()
    largest = max(run.totals[-1] for run in facts.runs)
    unit, unit_name = scale_of(facts.resource, largest)
    for place, run in enumerate(facts.runs):
        colour = COLOURS[place % len(COLOURS)]
        dash = DASHES[place // len(COLOURS)]
        axes.step(
            np.array(run.totals, dtype=np.float64) / unit, run.omega, where="post", color=colour,
            linewidth=1.6, linestyle=dash, label=shorten(run.name, 30),
        )  # fmt: skip
        if run.chosen is not None:
            axes.plot(
                [run.chosen[0] / unit], [run.chosen[1]], marker="D", color=colour, markersize=7,
                markeredgecolor=PAPER, linestyle="none", zorder=4,
            )  # fmt: skip
        if above is not None:
            _accuracy(above, run, colour, unit)
    scale_omega(axes, "y", [omega for run in facts.runs for omega in run.omega])
    axes.set_xlabel(
        axis_label(NAMES.get(facts.resource, facts.resource), facts.resource, unit_name)
    )
    axes.set_ylabel("total Ω, part of own largest" if facts.relative else "total Ω")
    axes.grid(True)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=2, handlelength=2.4, columnspacing=1.2)


def _accuracy(axes: "Axes", run: ComparedRun, colour: str, unit: float) -> None:
    axes.set_ylabel("accuracy (%)")
    axes.grid(True)
    axes.set_axisbelow(True)
    if run.measured is None:
        return
    x = np.array(run.measured.totals, dtype=np.float64) / unit
    y, low, high = (
        100 * np.array(part)
        for part in (run.measured.accuracy, run.measured.low, run.measured.high)
    )
    axes.errorbar(x, y, yerr=[np.maximum(y - low, 0), np.maximum(high - y, 0)], color=colour,
                  marker="o", markersize=4, linewidth=1.2, elinewidth=0.8, capsize=2)  # fmt: skip

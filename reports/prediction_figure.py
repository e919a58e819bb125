"""The figure of predicted against measured: Ω and what the points of the front really score."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpsearch.reports.drawing import Drawing
from mpsearch.reports.facts import PredictionFacts
from mpsearch.reports.style import BLUE, scale_omega

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BARS = 60  # of more points the intervals would hide each other
DRAWN = 400  # of more points this many, evenly by rank, so that the page stays small
LABELS = {"loss": "measured loss (nats)", "points lost": "accuracy lost (points)"}


def prediction_drawing(found: Sequence[PredictionFacts]) -> Drawing | None:
    """One panel for each measure; None without any."""
    if not found:
        return None
    words = [f"{one.measure}: {correlations(one)}" for one in found]
    count = len(found[0].omega)
    bars = "; bars: 95 % intervals" if count <= BARS else ""
    part = f" {DRAWN} of them are drawn." if count > DRAWN else ""

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(1, len(found), squeeze=False)[0]
        for axes, one in zip(panels, found, strict=True):
            count = len(one.omega)
            kept = np.unique(np.linspace(0, count - 1, min(count, DRAWN)).round().astype(int))
            omega, y, low, high = (
                np.array(part)[kept] for part in (one.omega, one.measured, one.low, one.high)
            )
            if count <= BARS and np.isfinite(low).all() and np.isfinite(high).all():
                ends = [np.maximum(y - low, 0), np.maximum(high - y, 0)]
                axes.errorbar(omega, y, yerr=ends, linestyle="none", color=BLUE, marker="o",
                              markersize=4, elinewidth=0.8, capsize=2)  # fmt: skip
            else:
                axes.plot(omega, y, linestyle="none", color=BLUE, marker="o", markersize=4)
            scale_omega(axes, "x", one.omega)
            axes.set_xlabel("predicted: total Ω")
            axes.set_ylabel(LABELS.get(one.measure, one.measure))
            axes.set_title(correlations(one, "\n"), fontsize=8, loc="left")
            axes.grid()
            axes.set_axisbelow(True)

    return Drawing(
        name="prediction",
        title="Predicted against measured",
        text=f"Measured {'; '.join(words)}.",
        caption=(
            f"Total Ω of the measured points of the front against what they score{bars}.{part} "
            "A rank correlation of 1: ordering by Ω orders by what was measured."
        ),
        height=2.9,
        draw=draw,
    )


def correlations(found: PredictionFacts, between: str = ", ") -> str:
    """`Spearman's ρ 0.93, Kendall's τ 0.81 (10 points)`."""
    count = f"({len(found.omega):,} points)"
    if found.spearman is None or found.kendall is None:
        return f"all values alike {count}"
    return f"Spearman's ρ {found.spearman:.2f}{between}Kendall's τ {found.kendall:.2f} {count}"

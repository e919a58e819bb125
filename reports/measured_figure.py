"""The panel of measured accuracy over a front's resource, with intervals."""

from typing import TYPE_CHECKING

import numpy as np

from mpsearch.reports.facts import MeasuredFacts
from mpsearch.reports.style import GREEN, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    axes.set_ylabel("accuracy (%)")
    axes.grid()
    axes.set_axisbelow(True)
    axes.margins(y=0.1)

"""The figure of a measured front: accuracy with its intervals above, Ω below, over one resource."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.files import atomic_path
from mpsearch.front import Front
from mpsearch.reports.facts import MeasuredFacts
from mpsearch.reports.figures import unit_of
from mpsearch.reports.svg import BLUE, GREEN, INK, MUTED, PAPER, scale_omega

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 40  # with more measured points the bars of their intervals become a band


def measured_facts(front: Front) -> MeasuredFacts | None:
    """The measured points of a front; None where none is."""
    accuracy = front.measured.get("accuracy")
    ends = [front.measured.get(f"accuracy_{end}") for end in ("low", "high")]
    if accuracy is None or np.isnan(accuracy).all():
        return None
    there = np.flatnonzero(~np.isnan(accuracy))
    low, high = (accuracy if end is None else end for end in ends)
    fp32 = front.measurement.get("fp32", {})
    return MeasuredFacts(
        totals=tuple(front.totals[front.resource][there].tolist()),
        omega=tuple(front.omega[there].tolist()),
        accuracy=tuple(accuracy[there].tolist()),
        low=tuple(low[there].tolist()),
        high=tuple(high[there].tolist()),
        fp32=fp32.get("accuracy"),
        fp32_interval=tuple(fp32["accuracy_interval"]) if "accuracy_interval" in fp32 else None,
        data=str(front.measurement.get("data", "")),
        samples=int(front.measurement.get("samples", 0)),
    )


def draw_accuracy(axes: "Axes", found: MeasuredFacts, unit: float) -> None:
    """Measured accuracy in percent over the resource, with 95 % intervals and FP32's line."""
    x = np.array(found.totals, dtype=np.float64) / unit
    y, low, high = (100 * np.array(part) for part in (found.accuracy, found.low, found.high))
    if found.fp32 is not None:
        if found.fp32_interval is not None:
            least, most = (100 * end for end in found.fp32_interval)
            axes.axhspan(least, most, color=MUTED, alpha=0.15, linewidth=0)
        axes.axhline(100 * found.fp32, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            "FP32", (0, 100 * found.fp32), xycoords=("axes fraction", "data"), xytext=(4, 3),
            textcoords="offset points", ha="left", color=MUTED,
        )  # fmt: skip
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


def check_picture(path: str | os.PathLike[str]) -> None:
    """Raise InputError where the file's ending is no picture format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if Path(path).suffix.removeprefix(".") not in FigureCanvasAgg.get_supported_filetypes():
        raise InputError(f"cannot draw {path}; name a file that ends in .png, .svg or .pdf")


def plot_measured(front: Front, path: str | os.PathLike[str]) -> None:
    """Draw a measured front: two panels over one resource. Writes `path` in one step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_picture(path)
    found = measured_facts(front)
    assert found is not None
    totals = front.totals[front.resource]
    unit, label = unit_of(front.resource, float(np.max(totals)))
    figure: Any = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    draw_accuracy(upper, found, unit)
    upper.set_title(
        f"measured on {found.samples:,} samples of {found.data}; bars: 95 % intervals",
        fontsize="small", loc="left", color=INK,
    )  # fmt: skip
    lower.step(totals / unit, front.omega, where="post", color=BLUE, linewidth=1.4,
               label=f"Pareto front, {len(front):,} points")  # fmt: skip
    lower.plot(
        np.array(found.totals) / unit, found.omega, marker="o", color=GREEN, linestyle="none",
        markersize=5, markeredgecolor=PAPER, label=f"{len(found.totals):,} measured",
    )  # fmt: skip
    scale_omega(lower, "y", [value for value in front.omega.tolist() if math.isfinite(value)])
    lower.set_xlabel(label)
    lower.set_ylabel("total Ω (perturbation)")
    lower.grid(alpha=0.3)
    upper.grid(alpha=0.3)
    lower.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)

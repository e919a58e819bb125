"""Pictures, drawn without a display; colours are told apart by colour-blind readers too."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError
from mpsearch.files import atomic_path

# Okabe and Ito's palette (2008).
BLUE, ORANGE, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"
SPAN_FOR_LOG = 20.0
FEW = 60


def plot_front(
    resource: NDArray[Any],
    omega: NDArray[np.float64],
    column: str,
    path: str | os.PathLike[str],
    uniform: Mapping[str, tuple[float, float]] | None = None,
    chosen: tuple[float, float] | None = None,
) -> None:
    """Draw Ω [P] against a resource column [P] as a staircase; P may be 5 or 50,000.

    uniform: label -> (resource, Ω) of one choice everywhere; chosen: the selected point. The Ω
    axis is logarithmic where the values span more than a factor of 20. Writes `path` in one step;
    an ending that no picture format has is an InputError.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    formats = FigureCanvasAgg.get_supported_filetypes()
    if Path(path).suffix.removeprefix(".") not in formats:
        raise InputError(f"cannot draw {path}; name a file that ends in .png, .svg or .pdf")

    unit, label = unit_of(column, float(np.max(resource)))
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    few = len(omega) <= FEW
    axes.step(
        resource / unit,
        omega,
        where="post",
        color=BLUE,
        linewidth=1.2 if few else 1.6,
        marker="o" if few else "",
        markersize=4,
        label=f"Pareto front, {len(omega):,} points",
    )
    for position, (name, (taken, total)) in enumerate((uniform or {}).items()):
        axes.plot(
            taken / unit, total, marker="s", color=ORANGE, markersize=6, linestyle="",
            label="one choice everywhere" if position == 0 else None,
        )  # fmt: skip
        right = taken > (float(np.min(resource)) + float(np.max(resource))) / 2
        axes.annotate(
            name, (taken / unit, total), xytext=(-7 if right else 7, 4),
            textcoords="offset points", ha="right" if right else "left",
        )  # fmt: skip
    if chosen is not None:
        axes.plot(
            chosen[0] / unit, chosen[1], marker="*", color=GREEN, markeredgecolor=BLACK,
            markersize=14, linestyle="", label="chosen",
        )  # fmt: skip
    positive = omega[omega > 0]
    if len(positive) and positive.max() / positive.min() > SPAN_FOR_LOG:
        if len(positive) == len(omega):
            axes.set_yscale("log")
        else:  # a point without loss has no logarithm: linear around zero
            axes.set_yscale("symlog", linthresh=float(positive.min()))
    axes.set_xlabel(label)
    axes.set_ylabel("total Ω (perturbation; lower is better)")
    axes.grid(True, which="major", alpha=0.3)
    axes.margins(x=0.06)
    axes.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def unit_of(column: str, largest: float) -> tuple[float, str]:
    """What to divide a column by, and its axis label with the unit."""
    name = column.removesuffix("_bytes").replace("_", " ")
    if column.endswith("_bytes"):
        for unit, text in ((1024**2, "MB"), (1024, "KB")):
            if largest >= 2 * unit:
                return float(unit), f"{name} ({text}, 1 KB = 1024 B)"
        return 1.0, f"{name} (B)"
    name = "BOPS" if column == "bops" else name
    for scale, text in ((1e12, "10¹²"), (1e9, "10⁹"), (1e6, "10⁶"), (1e3, "10³")):
        if largest >= scale:
            return scale, f"{name} ({text})"
    return 1.0, name

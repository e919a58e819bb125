"""The sensitivity heat map: Ω of every layer at every choice, with its standard error.

The figure of the confusion matrices: true class by predicted class.

The figure of predicted against measured: Ω and what the points of the front really score.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpsearch.reports.facts import ConfusionFacts, LayerFacts, PredictionFacts
from mpsearch.reports.style import BLUE, ORANGE, SPAN_FOR_LOG, Drawing, scale_omega, short, shorten
from mpsearch.tables.choice import Choice

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ROWS = 60  # of more layers only the most sensitive are drawn
COLUMNS_WITH_LINE = 4  # up to here a cell's text is one line, up to the next two
COLUMNS_WITH_TEXT = 8
COLOURS = "cividis"  # made for readers with any colour vision (Nuñez et al., PLOS ONE 2018)
# On a cell's own colour, in light and dark alike; so these are none of the page's variables.
BLACK, WHITE = "#000000", "#ffffff"


def most_sensitive(layers: Sequence[LayerFacts], most: int) -> tuple[LayerFacts, ...]:
    """At most so many layers, those of the largest Ω at any choice, in the order of the network."""

    def largest(layer: LayerFacts) -> float:
        return max((omega for omega, _ in layer.choices.values()), default=0.0)

    ranked = sorted(range(len(layers)), key=lambda place: -largest(layers[place]))
    return tuple(layers[place] for place in sorted(ranked[:most]))


def heat_drawing(layers: Sequence[LayerFacts]) -> Drawing | None:
    """Layer x choice; None without a table."""
    choices = sorted({choice for layer in layers for choice in layer.choices})
    if not choices:
        return None
    shown = most_sensitive(layers, ROWS)
    omega = matrix_of(shown, choices, 0)
    errors = matrix_of(shown, choices, 1)
    part = (
        "" if len(shown) == len(layers) else f"; the {len(shown)} most sensitive of {len(layers)}"
    )
    least, most = float(np.nanmin(omega)), float(np.nanmax(omega))
    smallest = float(np.min(omega, where=omega > 0, initial=most))
    logarithmic = " (logarithmic colours)" if most > SPAN_FOR_LOG * smallest else ""
    caption = f"Ω of each layer at each choice, darker is lower{logarithmic}"
    if len(choices) <= COLUMNS_WITH_TEXT:
        caption += "; in the cells Ω ± its standard error in percent, none where it is exact"
    if any(layer.choice for layer in shown):
        caption += "; framed: the chosen one"

    def draw(figure: "Figure") -> None:
        _draw(figure, shown, choices, omega, errors)

    return Drawing(
        name="sensitivity",
        title="Sensitivity of each layer",
        text=(
            f"Heat map of Ω for {len(shown)} layers at {', '.join(map(str, choices))}, "
            f"from {least:.3g} to {most:.3g}. The table of sensitivities has every number."
        ),
        caption=f"{caption}{part}.",
        height=1.1 + (0.2 if len(choices) <= COLUMNS_WITH_LINE else 0.24) * max(len(shown), 4),
        draw=draw,
    )


def matrix_of(
    layers: Sequence[LayerFacts], choices: Sequence[Choice], which: int
) -> NDArray[np.float64]:
    """[L, C] of Ω (0) or of its standard error (1); NaN where a layer lacks a choice."""
    nothing = (np.nan, np.nan)
    return np.array(
        [[layer.choices.get(choice, nothing)[which] for choice in choices] for layer in layers],
        dtype=np.float64,
    )


def _draw(
    figure: "Figure",
    layers: Sequence[LayerFacts],
    choices: Sequence[Choice],
    omega: NDArray[np.float64],
    errors: NDArray[np.float64],
) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import FuncFormatter

    axes = figure.subplots()
    positive = omega[omega > 0]
    least, most = (positive.min(), positive.max()) if len(positive) else (1.0, 1.0)
    colours = colormaps[COLOURS].resampled(32)
    wide = most > SPAN_FOR_LOG * least
    norm = LogNorm(least, most) if wide else Normalize(0, most)
    # A zero has no logarithm: it gets the lowest colour.
    lowest = least if wide else 0.0
    filled = np.where(omega > 0, omega, np.where(np.isnan(omega), np.nan, lowest))
    image = axes.pcolormesh(
        np.ma.masked_invalid(filled), cmap=colours, norm=norm, linewidth=0.5, edgecolors="face"
    )
    axes.set_xticks(np.arange(len(choices)) + 0.5, [str(choice) for choice in choices])
    axes.set_yticks(np.arange(len(layers)) + 0.5, [shorten(layer.name) for layer in layers])
    axes.tick_params(length=0, labelsize=8)
    if len(choices) > 8:
        axes.tick_params(axis="x", labelrotation=90)
    named = any(choice.label for choice in choices)
    axes.set_xlabel("format" if named else "choice (bits of weights and activations)")
    axes.set_ylim(len(layers), 0)
    for side in axes.spines.values():
        side.set_visible(False)
    digits, size = (3, 7.0) if len(choices) < COLUMNS_WITH_LINE else (2, 6.0)
    between = " " if len(choices) <= COLUMNS_WITH_LINE else "\n"
    for row, layer in enumerate(layers):
        for column, choice in enumerate(choices):
            value = omega[row, column]
            if len(choices) <= COLUMNS_WITH_TEXT and np.isfinite(value):
                shade = norm(max(value, lowest))
                words = _cell(value, errors[row, column], digits, between)
                axes.text(
                    column + 0.5, row + 0.53, words, ha="center", va="center", fontsize=size,
                    linespacing=1.0, color=WHITE if float(shade) < 0.45 else BLACK,
                )  # fmt: skip
            if choice == layer.choice:
                axes.add_patch(
                    Rectangle(
                        (column + 0.02, row + 0.06), 0.96, 0.88, fill=False, edgecolor=ORANGE,
                        linewidth=1.8,
                    )
                )  # fmt: skip
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 6 / max(len(layers), 6)), pad=0.02,
                          aspect=12, anchor=(0, 1))  # fmt: skip
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    bar.set_label("Ω", fontsize=8)


def _cell(omega: float, error: float, digits: int, between: str) -> str:
    """`0.0123 ±4%`."""
    text = short(float(f"{omega:.{digits}g}"))
    if error <= 0 or omega <= 0:
        return text
    percent = 100 * error / omega
    return f"{text}{between}±{'<1' if percent < 0.5 else f'{percent:.0f}'}%"


SIDES = (190, 125, 80)  # points of a matrix, by how many stand side by side, at most three
LARGEST, SMALLEST = 8.0, 4.5  # points of a number
CLASSES = 30  # a cell is some 150 bytes of the page


def confusion_drawing(found: Sequence[ConfusionFacts]) -> Drawing | None:
    """One matrix for each network; None without any, and where there are more than 30 classes."""
    if not found or max(len(one.counts) for one in found) > CLASSES:
        return None

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(1, len(found), squeeze=False)[0]
        for axes, one in zip(panels, found, strict=True):
            counts = np.array(one.counts)
            classes = len(counts)
            shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            axes.pcolormesh(shares, cmap=COLOURS, vmin=0, vmax=1, linewidth=0.5, edgecolors="face")
            axes.set_title(one.network, fontsize=9)
            axes.set_aspect("equal")
            axes.set_ylim(classes, 0)
            step = max(1, -(-classes // 12))
            ticks = np.arange(0, classes, step)
            axes.set_xticks(ticks + 0.5, [str(tick) for tick in ticks])
            axes.set_yticks(ticks + 0.5, [str(tick) for tick in ticks])
            axes.tick_params(length=0, labelsize=8)
            axes.set_xlabel("predicted class")
            axes.set_ylabel("true class")
            # A digit is 0.64 of its size wide in the font used.
            digits = len(str(counts.max()))
            size = min(LARGEST, SIDES[len(found) - 1] / classes / (0.64 * digits + 0.3))
            if size >= SMALLEST:
                for row, column in np.ndindex(counts.shape):
                    axes.text(
                        column + 0.5, row + 0.5, str(counts[row, column]), ha="center",
                        va="center", fontsize=size,
                        color=WHITE if shares[row, column] < 0.45 else BLACK,
                    )  # fmt: skip

    return Drawing(
        name="confusion",
        title="Confusion matrix",
        text=confusion_text(found),
        caption=(
            "Number of samples by true class (rows) and predicted class (columns); colours: part "
            "of the true class, brighter is more."
        ),
        height=2.9 if len(found) > 1 else 3.8,
        draw=draw,
    )


def confusion_text(found: Sequence[ConfusionFacts]) -> str:
    """`Samples by true and predicted class, 4 classes. FP32: 237 of 286 right.`"""
    words = []
    for one in found:
        right = sum(row[place] for place, row in enumerate(one.counts))
        words.append(f"{one.network}: {right:,} of {sum(map(sum, one.counts)):,} right")
    classes = len(found[0].counts)
    return f"Samples by true and predicted class, {classes} classes. {'; '.join(words)}."


def confusions(found: ConfusionFacts, most: int) -> list[tuple[int, int, int]]:
    """The most frequent mistakes: (true class, predicted class, how many), at most so many."""
    counts = np.array(found.counts)
    mistakes = [
        (int(counts[true, predicted]), -true, -predicted)
        for true, predicted in np.argwhere(counts > 0).tolist()
        if true != predicted
    ]
    return [(-true, -predicted, n) for n, true, predicted in sorted(mistakes, reverse=True)[:most]]


BARS = 60  # of more points the intervals would hide each other
DRAWN = 400  # of more points this many, evenly by rank, so that the page stays small
LABELS = {
    "divergence": "divergence from FP32",
    "loss": "measured loss (nats)",
    "points lost": "accuracy lost (points)",
}


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

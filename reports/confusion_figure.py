"""The figure of the confusion matrices: true class by predicted class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpsearch.reports.drawing import Drawing
from mpsearch.reports.facts import ConfusionFacts
from mpsearch.reports.heat_figure import BLACK, COLOURS, WHITE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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

"""The figure of the layers: bits as bars over the network, and each layer's part of the totals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from mpsearch.reports.drawing import Drawing
from mpsearch.reports.facts import LayerFacts
from mpsearch.reports.prose import NAMES
from mpsearch.reports.style import BLUE, INK, LINES, ORANGE, PURPLE, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS = 80  # more layers than this are drawn as groups of neighbours
MARKS = {"omega": ("o", BLUE), "size_bytes": ("s", ORANGE), "bops": ("^", PURPLE)}


@dataclass(frozen=True)
class BitsRow:
    """One layer, or neighbours: mean bits, their ends, and parts of the totals, from 0 to 1."""

    name: str
    w_bits: float
    w_least: int
    w_most: int
    a_bits: float
    shares: Mapping[str, float]


def bits_rows(layers: Sequence[LayerFacts], most: int = ROWS) -> tuple[BitsRow, ...]:
    """One row per layer, or `most` rows of as many neighbours: 160 layers -> `1 to 2`, `3 to 4`, …

    Layers without a choice are left out.
    """
    chosen = [layer for layer in layers if layer.choice]
    count = min(most, len(chosen))
    ends = [place * len(chosen) // count for place in range(count + 1)] if count else []
    rows = []
    for start, end in pairwise(ends):
        group = chosen[start:end]
        weights = [layer.choice.w_bits for layer in group if layer.choice]
        activations = [layer.choice.a_bits for layer in group if layer.choice]
        columns = list(dict.fromkeys(column for layer in group for column in layer.shares))
        name = group[0].name
        if count < len(chosen):
            name = str(end) if len(group) == 1 else f"{start + 1} to {end}"
        rows.append(
            BitsRow(
                name=name,
                w_bits=sum(weights) / len(weights),
                w_least=min(weights),
                w_most=max(weights),
                a_bits=sum(activations) / len(activations),
                shares={
                    column: sum(layer.shares.get(column, 0.0) for layer in group)
                    for column in columns
                },
            )
        )
    return tuple(rows)


def bits_drawing(layers: Sequence[LayerFacts]) -> Drawing | None:
    """Bits of weights and activations, and parts of the totals; None without an assignment."""
    rows = bits_rows(layers)
    if not rows:
        return None
    grouped = len([layer for layer in layers if layer.choice]) > len(rows)
    bits = [layer.choice.w_bits for layer in layers if layer.choice]
    widths = ", ".join(f"{bits.count(width)} at {width}" for width in sorted(set(bits)))
    caption = (
        "Bits of the weights (bars) and of the input activations (ticks), and what part of the "
        "totals the layer takes. First layer on top."
    )
    if grouped:
        caption += " Each row is a group of neighbours, by their places in the table: mean bits, "
        caption += "a line from the least to the most, and the sum of their parts."

    def draw(figure: "Figure") -> None:
        _draw(figure, rows)

    return Drawing(
        name="bits",
        title="Bits per layer",
        text=f"Weight bits of {len(bits)} layers: {widths}. The table has every layer's numbers.",
        caption=caption,
        height=1.3 + 0.2 * max(len(rows), 3),
        draw=draw,
    )


def _draw(figure: "Figure", rows: Sequence[BitsRow]) -> None:
    columns = [c for c in MARKS if any(c in row.shares for row in rows)]
    panels = figure.subplots(1, 1 + bool(columns), sharey=True, squeeze=False,
                             width_ratios=(1, 1.5)[: 1 + bool(columns)])[0]  # fmt: skip
    first = panels[0]
    _draw_bits(first, rows)
    if columns:
        _draw_shares(panels[1], rows, columns)
    for axes in panels:
        axes.tick_params(axis="y", length=0)
        axes.set_axisbelow(True)
    first.set_ylim(len(rows) - 0.4, -0.6)
    first.set_yticks(range(len(rows)), [shorten(row.name) for row in rows])
    first.tick_params(axis="y", labelsize=8)
    shown = [axes.get_legend_handles_labels() for axes in panels]
    named = {name: handle for pair in shown for handle, name in zip(*pair, strict=True)}
    named = {"weight bits": named["weight bits"], **named}
    figure.legend(named.values(), named.keys(), loc="outside upper center", ncols=5,
                  handlelength=1.0, columnspacing=1.0)  # fmt: skip


def _draw_bits(axes: "Axes", rows: Sequence[BitsRow]) -> None:
    places = list(range(len(rows)))
    weights = [row.w_bits for row in rows]
    activations = [row.a_bits for row in rows]
    axes.barh(places, weights, height=0.72, color=BLUE, label="weight bits")
    axes.plot(
        activations, places, linestyle="none", marker="|", markersize=9, markeredgewidth=2,
        color=ORANGE, label="activation bits",
    )  # fmt: skip
    if any(row.w_least < row.w_most for row in rows):
        ends = [row.w_least for row in rows], [row.w_most for row in rows]
        axes.hlines(places, *ends, color=INK, linewidth=0.8)
    used = {0, *(row.w_least for row in rows), *(row.w_most for row in rows)}
    if all(float(row.a_bits).is_integer() for row in rows):
        used |= {int(row.a_bits) for row in rows}
    widest = max([*weights, *activations, *used, 8])
    axes.set_xlim(0, widest * 1.05)
    axes.set_xticks(sorted(used))
    axes.set_xlabel("bits")
    axes.grid(axis="x")


def _draw_shares(axes: "Axes", rows: Sequence[BitsRow], columns: Sequence[str]) -> None:
    """A shape for each column, so that they are told apart without colour."""
    for column in columns:
        marker, colour = MARKS[column]
        axes.plot(
            [100 * row.shares.get(column, 0.0) for row in rows], range(len(rows)),
            linestyle="none", marker=marker, markersize=4.5, color=colour,
            markerfacecolor=colour if column == "omega" else "none",
            label="Ω" if column == "omega" else NAMES.get(column, column),
        )  # fmt: skip
    axes.hlines(range(len(rows)), 0, 1, transform=axes.get_yaxis_transform(), color=LINES,
                linewidth=0.6, zorder=0)  # fmt: skip
    axes.set_xlim(left=0)
    axes.margins(x=0.05)
    axes.set_xlabel("part of the total (%)")
    axes.grid(axis="x")

"""The sections about layers: their bits, their sensitivity, what more bits would cost.

The figure of the layers: bits as bars over the network, and each layer's part of the totals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isnan, nan
from typing import TYPE_CHECKING

from mpsearch.profiling.float_text import HEADER, float_rows, float_sentence
from mpsearch.reports.facts import Facts, LayerFacts, LayerPrice, PriceFacts
from mpsearch.reports.heat_figure import heat_drawing, most_sensitive
from mpsearch.reports.prose import NAMES
from mpsearch.reports.style import (
    BLUE,
    INK,
    LINES,
    ORANGE,
    PURPLE,
    Drawing,
    More,
    Paragraph,
    Part,
    Section,
    Table,
    shorten,
)
from mpsearch.tables.choice import counted
from mpsearch.tables.units import format_amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


ROWS = 80  # more layers than this are drawn as groups of neighbours
MARKS = {"omega": ("o", BLUE), "size_bytes": ("s", ORANGE), "bops": ("^", PURPLE)}


@dataclass(frozen=True)
class BitsRow:
    """One layer, or neighbours: mean bits, their ends, and parts of the totals, from 0 to 1.

    NaN where no bits are said; format: the name of another tool's that a single layer has.
    """

    name: str
    w_bits: float
    w_least: float
    w_most: float
    a_bits: float
    shares: Mapping[str, float]
    format: str = ""


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
        choices = [layer.choice for layer in group if layer.choice]
        weights: list[float] = [choice.w_bits for choice in choices if choice.w_bits] or [nan]
        activations: list[float] = [choice.a_bits for choice in choices if choice.a_bits] or [nan]
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
                format=choices[0].label if len(group) == 1 else "",
            )
        )
    return tuple(rows)


def bits_drawing(layers: Sequence[LayerFacts]) -> Drawing | None:
    """Bits of weights and activations, and parts of the totals; None without an assignment."""
    rows = bits_rows(layers)
    if not rows:
        return None
    grouped = len([layer for layer in layers if layer.choice]) > len(rows)
    choices = [layer.choice for layer in layers if layer.choice]
    bits = [choice.w_bits for choice in choices]
    widths = ", ".join(f"{bits.count(width)} at {width}" for width in sorted(set(bits)))
    counts = f"Weight bits of {len(bits)} layers: {widths}."
    if any(choice.label for choice in choices):
        counts = f"Formats of {len(bits)} layers: {counted(choices)}."
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
        text=f"{counts} The table has every layer's numbers.",
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
    if not all(map(isnan, activations)):
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
    used = {bits for bits in used if not isnan(bits)}
    widest = max([*(bits for bits in (*weights, *activations) if not isnan(bits)), *used, 8])
    named = any(row.format for row in rows)
    for place, row in zip(places, rows, strict=True):  # behind the bars, where room is left
        end = max([0, *(bits for bits in (row.w_bits, row.a_bits) if not isnan(bits))])
        axes.text(end + 0.03 * widest, place, row.format, va="center", fontsize=7, color=INK)
    axes.set_xlim(0, widest * (1.6 if named else 1.05))
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


MANY = 100  # of more layers a table shows the first ones that matter, and the rest on demand
TOP = 40


def bits_section(facts: Facts) -> Section | None:
    """The bars and a table of every layer; None without layers."""
    layers = facts.layers
    if not layers:
        return None
    drawing = bits_drawing(layers)
    shown = list(dict.fromkeys(column for layer in layers for column in layer.resources))
    header = ["layer", "kind", "weights", "bits", "Ω ± stderr"]
    header += [NAMES.get(column, column) for column in shown]
    note = "in brackets the part of the total"
    cells = [_layer_row(layer, shown) for layer in layers]
    kept = [place for place in range(len(header)) if any(line[place] for line in cells)]
    header = [header[place] for place in kept]
    cells = [[line[place] for place in kept] for line in cells]
    solved = any(layer.choice for layer in layers)
    title = f"Layers; {note}" if solved else "Layers"
    whole = Table(title, header, cells)
    parts: list[Part] = [] if drawing is None else [drawing]
    if len(layers) <= MANY:
        parts.append(whole)
    else:
        top = _largest(layers)
        place = {layer.name: row for layer, row in zip(layers, cells, strict=True)}
        rows = [place[layer.name] for layer in top]
        title = f"The {TOP} layers with the largest Ω, of {len(layers):,}"
        title += f"; {note}" if solved else ""
        parts += [Table(title, header, rows), More(f"All {len(layers):,} layers", whole)]
    return Section("bits", "Bits per layer" if solved else "Layers", parts)


def float_section(facts: Facts) -> Section | None:
    """What is computed or stored in float outside the layers; None where all is in layers."""
    document = facts.provenance.get("float_operators")
    if not isinstance(document, Mapping) or not (rows := float_rows(document)):
        return None
    parts: list[Part] = [Table("Outside the layers, and not in their size or BOPS", HEADER, rows)]
    if sentence := float_sentence(document):
        parts.append(Paragraph(sentence[0].upper() + sentence[1:] + "."))
    return Section("float", "What stays in float", parts)


def _largest(layers: Sequence[LayerFacts]) -> tuple[LayerFacts, ...]:
    """By Ω of the chosen bits; without an assignment, by the largest Ω of any."""
    if not any(layer.choice for layer in layers):
        return most_sensitive(layers, TOP)
    ranked = sorted(range(len(layers)), key=lambda place: -(layers[place].omega or 0.0))
    return tuple(layers[place] for place in ranked[:TOP])


def _layer_row(layer: LayerFacts, columns: Sequence[str]) -> list[str]:
    omega = "" if layer.omega is None else f"{layer.omega:.3g}"
    if layer.omega_stderr:
        omega += f" ± {layer.omega_stderr:.1g}"
    cells = [
        layer.name,
        layer.kind,
        f"{layer.weights:,}" if layer.weights else "",
        str(layer.choice or ""),
        omega + _share(layer, "omega"),
    ]
    for column in columns:
        value = layer.resources.get(column)
        text = "" if value is None else format_amount(column, value)
        cells.append(text + _share(layer, column))
    return cells


def _share(layer: LayerFacts, column: str) -> str:
    return f" ({layer.shares[column]:.1%})" if column in layer.shares else ""


def sensitivity_section(facts: Facts) -> Section | None:
    """The heat map, and its numbers on demand; None without a table."""
    drawing = heat_drawing(facts.layers)
    if drawing is None:
        return None
    choices = sorted({choice for layer in facts.layers for choice in layer.choices})
    rows = []
    for layer in facts.layers:
        cells = [layer.name]
        for choice in choices:
            omega, error = layer.choices.get(choice, (None, 0.0))
            text = "" if omega is None else f"{omega:.4g}"
            cells.append(text + (f" ± {error:.2g}" if error else ""))
        rows.append(cells)
    table = Table("Ω ± standard error by choice", ["layer", *map(str, choices)], rows)
    return Section(
        "sensitivity", "Sensitivity of each layer", [drawing, More("Table of sensitivities", table)]
    )


def price_section(facts: Facts) -> Section | None:
    """What the limits are worth, and what the next better choice of each layer costs."""
    found = facts.prices
    if found is None:
        return None
    if found.reason:
        words = f"The layers of this assignment have no prices: {found.reason}."
        return Section("prices", "The price of each layer", [Paragraph(words)])
    name = NAMES.get(found.column, found.column)
    unit = "more" if found.unit == "1" else found.unit
    parts: list[Part] = [Paragraph(_price_text(found, name, unit))]
    if found.limits:
        rows = [
            [
                NAMES.get(one.column, one.column),
                format_amount(one.column, one.limit),
                f"{one.per_unit:.3g}",
                one.unit,
                f"+{format_amount(one.column, one.step).strip()}",
                _change(one.more),
                _change(one.less),
            ]
            for one in found.limits
        ]
        header = [
            "limit", "value", "Ω price", "of one", "a step", "Ω with a step more",
            "Ω with a step less",
        ]  # fmt: skip
        parts.append(Table("What the limits are worth", header, rows))
    if found.layers:
        header = ["layer", "now", "next better", "saves Ω", f"takes {name}", f"Ω per {unit}",
                  "fits alone"]  # fmt: skip
        rows = [_price_row(one, found) for one in found.layers]
        if len(rows) <= MANY:
            parts.append(Table("The price of each layer, the best buy first", header, rows))
        else:
            parts += [
                Table(f"The {TOP} best buys of {len(rows):,}", header, rows[:TOP]),
                More(f"All {len(rows):,}", Table("The price of each layer", header, rows)),
            ]
    return Section("prices", f"What another {unit} buys", parts)


def _price_text(found: PriceFacts, name: str, unit: str) -> str:
    text = (
        f"For each layer the next choice with less Ω: how much total Ω it saves, how much {name} "
        f"it takes, and Ω saved for each {unit} of it."
    )
    best = next((one for one in found.layers if one.per_unit is not None), None)
    if best is not None:
        text += (
            f" The best buy is {_names(best)}: {best.choice} to {best.better} saves Ω "
            f"{best.saved:.3g} for {format_amount(found.column, best.extra).strip()}."
        )
    if found.limits:
        text += (
            " A limit's price is the slope of the LP bound; beside it what a step of the limit "
            "really changes, searched for."
        )
    return text


def _price_row(price: LayerPrice, found: PriceFacts) -> list[str]:
    over = ", ".join(NAMES.get(column, column) for column in price.over)
    return [
        _names(price),
        str(price.choice),
        str(price.better),
        f"{price.saved:.3g}",
        format_amount(found.column, price.extra),
        "free" if price.per_unit is None else f"{price.per_unit:.3g}",
        f"no: {over}" if over else "yes",
    ]


def _names(price: LayerPrice) -> str:
    shown = ", ".join(price.layers[:3])
    others = len(price.layers) - 3
    return f"{shown} and {others} more" if others > 0 else shown


def _change(value: float | None) -> str:
    return "not found" if value is None else f"{value:+.3g}"

"""The figure of the layers: bits as bars over the network, Ω of every choice beside them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpsearch.reports.facts import LayerFacts
from mpsearch.reports.svg import BLUE, INK, MUTED, ORANGE, drawing, inline_svg, scale_omega

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 80  # more layers than this are numbered, as their names would not be legible
TALLEST = 16.0  # inches


def layers_svg(layers: Sequence[LayerFacts]) -> str:
    """Bits (weights and activations) and Ω ± standard error, one line per layer, first on top.

    Up to 80 layers are named, more are numbered in the order of the table. Returns an `<svg>`
    element.
    """
    row = 0.2 if len(layers) <= NAMED else 0.03
    with drawing(min(TALLEST, 1.2 + row * max(len(layers), 3))) as figure:
        panels = []
        if any(layer.choice for layer in layers):
            panels.append(_draw_bits)
        if any(layer.choices for layer in layers):
            panels.append(_draw_omega)
        widths = (1, 1.5)[-len(panels) :]
        drawn = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=widths)[0]
        for axes, draw in zip(drawn, panels, strict=True):
            draw(axes, layers)
            axes.tick_params(axis="y", length=0)
        first = drawn[0]
        first.set_ylim(len(layers) - 0.4, -0.6)
        if len(layers) <= NAMED:
            first.set_yticks(range(len(layers)), [shorten(layer.name) for layer in layers])
            first.tick_params(axis="y", labelsize=8)
        else:
            first.set_ylabel("layer, in the order of the table")
        figure.legend(loc="outside upper center", ncols=2, fontsize=8, handlelength=1.2)
        return inline_svg(figure, "layers", _description(layers))


def shorten(name: str, most: int = 26) -> str:
    """`stage4.unit2.quant_convbn_long` -> `stage4.unit2…nvbn_long`: on one line, middle out."""
    name = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[:half]}…{name[-half:]}"


def _draw_bits(axes: "Axes", layers: Sequence[LayerFacts]) -> None:
    chosen = [(place, layer.choice) for place, layer in enumerate(layers) if layer.choice]
    places = [place for place, _ in chosen]
    weights = [choice.w_bits for _, choice in chosen]
    activations = [choice.a_bits for _, choice in chosen]
    axes.barh(places, weights, height=0.72, color=BLUE, label="weight bits")
    axes.plot(
        activations, places, linestyle="none", marker="|", markersize=_mark(layers),
        markeredgewidth=2, color=ORANGE, label="activation bits",
    )  # fmt: skip
    widest = max([*weights, *activations, 8])
    axes.set_xlim(0, widest * 1.05)
    axes.set_xticks(sorted({0, *weights, *activations}))
    axes.set_xlabel("bits")
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _draw_omega(axes: "Axes", layers: Sequence[LayerFacts]) -> None:
    """Every choice of the table as a ring, the chosen one filled, with its standard error."""
    others = [
        (omega, place)
        for place, layer in enumerate(layers)
        for choice, (omega, _) in layer.choices.items()
        if choice != layer.choice
    ]
    size = min(5.0, _mark(layers))
    chosen = [
        (layer.omega, place, layer.omega_stderr or 0.0)
        for place, layer in enumerate(layers)
        if layer.omega is not None
    ]
    if others:
        axes.plot(
            *zip(*others, strict=True), linestyle="none", marker="o", markersize=size,
            markerfacecolor="none", markeredgecolor=MUTED, markeredgewidth=0.8,
            label="Ω of other choices" if chosen else "Ω of each choice",
        )  # fmt: skip
    if chosen:
        omegas, places, errors = (list(values) for values in zip(*chosen, strict=True))
        # Ω is not negative, and on a logarithmic axis a bar must end above zero.
        below = [min(error, 0.999 * omega) for omega, error in zip(omegas, errors, strict=True)]
        axes.errorbar(
            omegas, places, xerr=(below, errors), linestyle="none", marker="o", markersize=size,
            color=INK, elinewidth=1, label="Ω chosen, ± stderr",
        )  # fmt: skip
    scale_omega(axes, "x", [omega for omega, *_ in (*others, *chosen)])
    axes.set_xlabel("Ω (perturbation of the loss)")
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _mark(layers: Sequence[LayerFacts]) -> float:
    """Height of a mark in points, so that those of neighbours do not touch."""
    return 9.0 if len(layers) <= NAMED else 2.0


def _description(layers: Sequence[LayerFacts]) -> str:
    bits = [layer.choice.w_bits for layer in layers if layer.choice]
    widths = ", ".join(f"{bits.count(width)} at {width}" for width in sorted(set(bits)))
    chosen = f"Weight bits per layer: {widths}." if bits else "No assignment was chosen."
    return f"{chosen} Beside it the perturbation Ω of each of {len(layers)} layers; see the table."

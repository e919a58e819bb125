"""The sections about layers: their bits, their sensitivity, what more bits would cost."""

from collections.abc import Mapping, Sequence

from mpsearch.profiling.float_text import HEADER, float_rows, float_sentence
from mpsearch.reports.bits_figure import bits_drawing
from mpsearch.reports.facts import Facts, LayerFacts, LayerPrice, PriceFacts
from mpsearch.reports.heat_figure import heat_drawing, most_sensitive
from mpsearch.reports.parts import More, Paragraph, Part, Section, Table
from mpsearch.reports.prose import NAMES
from mpsearch.tables.units import format_amount

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

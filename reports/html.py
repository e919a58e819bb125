"""The report as one HTML file that needs nothing but itself; every string is escaped."""

from collections.abc import Iterable, Sequence
from html import escape

from mpsearch.reports.device_facts import device_table
from mpsearch.reports.facts import AccuracyFacts, Facts, LayerFacts
from mpsearch.reports.front_figure import front_svg
from mpsearch.reports.layer_figures import layers_svg
from mpsearch.reports.page import page
from mpsearch.reports.prose import NAMES, answer_text, front_caption, notices, question_text
from mpsearch.units import format_amount, format_count, format_size


def render(facts: Facts) -> str:
    """The whole page: question and answer, front, accuracies, layers, provenance and commands.

    Sections without facts are left out; what is missing is listed at the top. No address is
    referred to and no script is run.
    """
    sections = [
        _answer(facts),
        _front(facts),
        _accuracies(facts),
        _device(facts),
        _layers(facts),
        _provenance(facts),
    ]
    title = "Bit widths per layer: mpsearch report"
    return page(title, "\n".join(part for part in sections if part), facts.version)


def _answer(facts: Facts) -> str:
    parts = [f"<p class='lead'>{escape(question_text(facts))} {escape(answer_text(facts))}</p>"]
    parts += [f"<p class='notice'>{escape(text)}</p>" for text in notices(facts)]
    if facts.limits:
        rows = []
        for asked in facts.limits:
            within = asked.slack is not None and asked.slack >= 0
            share = "" if asked.share_of_w8 is None else f"{asked.share_of_w8:.1%}"
            rows.append([
                NAMES.get(asked.column, asked.column),
                format_amount(asked.column, asked.limit),
                share,
                "" if asked.total is None else format_amount(asked.column, asked.total),
                "" if asked.slack is None
                else f"{format_amount(asked.column, asked.slack)}{'' if within else ' (over)'}",
            ])  # fmt: skip
        columns = ["resource", "limit", "of uniform w8a8", "used", "left"]
        parts.append(_table(columns, rows, "Limits and what is left of them"))
    return _section("Question and answer", parts)


def _front(facts: Facts) -> str:
    if facts.front is None:
        return ""
    chosen = [facts.answer.point] if facts.answer else []
    points = [*chosen, *facts.uniform]
    columns = list(dict.fromkeys(column for point in points for column in point.totals))
    rows = [
        [point.name, f"{point.omega:.4g}"]
        + [
            format_amount(column, point.totals[column]) if column in point.totals else ""
            for column in columns
        ]
        for point in points
    ]
    header = ["assignment", "total Ω", *(NAMES.get(column, column) for column in columns)]
    return _section(
        "Pareto front",
        [
            _figure(front_svg(facts), front_caption(facts)),
            _table(header, rows, "Marked points") if rows else "",
        ],
    )


def _accuracies(facts: Facts) -> str:
    if not facts.accuracies:
        return ""
    where = f"Measured on {facts.accuracies[0].n:,} samples of {facts.accuracy_data}"
    unseen = "" if facts.held_out else " (also used for calibration: not unseen data)"
    note = (
        f"{where}{unseen}. Brackets: 95 % intervals; accuracy by Wilson's score, points lost "
        "against FP32 paired sample by sample."
    )
    header = ["network", "size", "smaller", "accuracy, %", "points lost", "loss", "BOPS"]
    rows = [_accuracy_row(row) for row in facts.accuracies]
    table = _table(header, rows, "Networks, sizes and measured accuracies")
    return _section("Measured accuracy", [table, f"<p>{escape(note)}</p>"])


def _accuracy_row(row: AccuracyFacts) -> list[str]:
    low, high = row.interval
    lost = "" if row.lost is None else f"{row.lost:+.2f}"
    if row.lost_interval is not None:
        lost += f" [{row.lost_interval[0]:+.2f}, {row.lost_interval[1]:+.2f}]"
    return [
        row.name,
        "" if row.size_bytes is None else format_size(row.size_bytes),
        "" if row.times_smaller is None else f"{row.times_smaller:.2f}×",
        f"{100 * row.accuracy:.2f} [{100 * low:.2f}, {100 * high:.2f}]",
        lost,
        f"{row.loss:.4f}",
        "" if row.bops is None else format_count(row.bops),
    ]


def _device(facts: Facts) -> str:
    if facts.device is None:
        return ""
    note = (
        f"Measured on {facts.device.device}. Process: from spawn to exit; cold: initialisation and "
        "first inference of a fresh process; steady: warmed up; all medians, never merged. The "
        "paper timed whole processes on a Raspberry Pi 4, Python and its framework included, and "
        "read the peak of a meter above idle. Energy: mean above idle times an inference's time."
    )
    table = _table(*device_table(facts.device), "Beside the paper's Table 5")
    return _section("On the device", [table, f"<p>{escape(note)}</p>"])


def _layers(facts: Facts) -> str:
    if not facts.layers:
        return ""
    shown = list(dict.fromkeys(column for layer in facts.layers for column in layer.resources))
    header = ["layer", "kind", "weights", "bits", "Ω ± stderr", "of Ω"]
    for column in shown:
        header += [NAMES.get(column, column), "share"]
    rows = [_layer_row(layer, shown) for layer in facts.layers]
    caption = (
        "Bits of the weights (bars) and of the input activations (ticks); Ω of the chosen bits "
        "with its standard error, and of the other choices. First layer on top."
    )
    return _section(
        "Bits and Ω per layer",
        [_figure(layers_svg(facts.layers), caption), _table(header, rows, "Layers")],
    )


def _layer_row(layer: LayerFacts, columns: Sequence[str]) -> list[str]:
    omega = "" if layer.omega is None else f"{layer.omega:.3g}"
    if layer.omega_stderr:
        omega += f" ± {layer.omega_stderr:.1g}"
    cells = [
        layer.name,
        layer.kind,
        f"{layer.weights:,}" if layer.weights else "",
        str(layer.choice or ""),
        omega,
        _share(layer, "omega"),
    ]
    for column in columns:
        cells += [format_amount(column, layer.resources[column]), _share(layer, column)]
    return cells


def _share(layer: LayerFacts, column: str) -> str:
    return f"{layer.shares[column]:.1%}" if column in layer.shares else ""


def _provenance(facts: Facts) -> str:
    rows = []
    for name, value in facts.provenance.items():
        if isinstance(value, dict):
            rows += [[f"{name}: {key}", str(item)] for key, item in value.items()]
        elif name not in ("format", "version"):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append([name, text])
    parts = []
    if facts.commands:
        lines = "\n".join(escape(command) for command in facts.commands)
        parts.append(f"<p>To repeat it:</p><pre>{lines}</pre>")
    if rows:
        parts.append(_table(["what", "value"], rows, "Provenance of the table", prose=True))
    return _section("Provenance", parts) if parts else ""


def _section(title: str, parts: Iterable[str]) -> str:
    return f"<section><h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(
    header: Sequence[str], rows: Iterable[Sequence[str]], caption: str, prose: bool = False
) -> str:
    """A table that scrolls sideways on its own where it is wider than the page."""
    head = "".join(f"<th scope='col'>{escape(cell)}</th>" for cell in header)
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in others)
        lines.append(f"<tr><th scope='row'><span>{escape(first)}</span></th>{cells}</tr>")
    body = "\n".join(lines)
    kind = "prose" if prose else "numbers"
    return (
        f"<div class='wide' tabindex='0' role='region' aria-label='{escape(caption)}'>"
        f"<table class='{kind}'><caption>{escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )

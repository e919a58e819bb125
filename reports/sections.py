"""From facts to a report's sections, in the order of a reader's questions."""

from mpsearch.evaluation.evaluation import with_unit
from mpsearch.reports.accuracy_figure import accuracy_drawing, accuracy_picture
from mpsearch.reports.device_facts import device_table
from mpsearch.reports.facts import AccuracyFacts, ConfusionFacts, Facts, PublishedFacts
from mpsearch.reports.first_screen import answer_sentence, headlines_of
from mpsearch.reports.front_facts import front_points_table
from mpsearch.reports.front_figure import front_drawing
from mpsearch.reports.heat_figure import (
    confusion_drawing,
    confusion_text,
    confusions,
    prediction_drawing,
)
from mpsearch.reports.layer_sections import (
    bits_section,
    float_section,
    price_section,
    sensitivity_section,
)
from mpsearch.reports.prose import (
    NAMES,
    answer_text,
    has_formats,
    near_figures,
    notices,
    question_text,
)
from mpsearch.reports.style import Code, Drawing, More, Paragraph, Part, Section, Table
from mpsearch.tables.provenance import LIFETIMES
from mpsearch.tables.units import format_amount, format_count, format_size

CONFUSION_ROWS = 10


def sections_of(facts: Facts) -> tuple[Section, ...]:
    """Answer, accuracy and front, what was asked, bits, float operators, sensitivity, predicted and
    measured, accuracies, device, confusion, prices, provenance; without facts they are left out."""
    made = (
        _answer(facts),
        _front(facts),
        _asked(facts),
        bits_section(facts),
        float_section(facts),
        sensitivity_section(facts),
        _predictions(facts),
        _accuracies(facts),
        _device(facts),
        _confusion(facts),
        price_section(facts),
        _provenance(facts),
    )
    return tuple(section for section in made if section is not None)


def drawings_of(facts: Facts) -> tuple[Drawing, ...]:
    """Every figure of the report."""
    return tuple(
        part
        for section in sections_of(facts)
        for part in section.parts
        if isinstance(part, Drawing)
    )


def _answer(facts: Facts) -> Section:
    """What a reader came for, and what to know before believing it."""
    numbers = headlines_of(facts)
    parts: list[Part] = [] if numbers is None else [numbers]
    parts.append(Paragraph(answer_sentence(facts), "lead"))
    parts += [Paragraph(text, "notice") for text in notices(facts)]
    return Section("answer", "Answer", parts)


def _asked(facts: Facts) -> Section:
    """The question and its answer at length, with what is left of every limit."""
    parts: list[Part] = [Paragraph(f"{question_text(facts)} {answer_text(facts)}")]
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
        if has_formats(facts) and not any(row[2] for row in rows):
            columns, *rows = ([*cells[:2], *cells[3:]] for cells in (columns, *rows))
        parts.append(Table("Limits and what is left of them", columns, rows))
    return Section("question", "What was asked", parts)


def _front(facts: Facts) -> Section | None:
    """Measured accuracy first, then Ω, which stands alone where nothing is measured."""
    picture = accuracy_picture(facts)
    measured = accuracy_drawing(facts)
    if measured is None and facts.front is None:
        return None
    parts: list[Part] = [] if measured is None else [measured]
    if measured is None and facts.measure:
        parts += [Paragraph("No accuracy is measured yet. To measure it:"), Code(facts.measure)]
    if facts.front is not None:
        parts.append(front_drawing(facts, panel=picture is None or not picture.front))
    parts += _marked(facts)
    score = "" if picture is None else picture.score.capitalize()
    title = f"{score} and the Pareto front" if score else "Pareto front"
    return Section("front", title, parts)


def _marked(facts: Facts) -> list[Part]:
    chosen = [facts.answer.point] if facts.answer else []
    points = [*chosen, *facts.uniform, *([facts.fp32] if facts.fp32 else [])]
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
    if facts.front is None:
        return []
    more = front_points_table(facts.front)
    parts: list[Part] = [Table("Marked points", header, rows)] if rows else []
    parts += [] if more is None else [More("Points of the front, as a table", more)]
    return parts


def _predictions(facts: Facts) -> Section | None:
    drawing = prediction_drawing(facts.predictions)
    if drawing is None:
        return None
    return Section("prediction", "Predicted against measured", [Paragraph(drawing.text), drawing])


def _accuracies(facts: Facts) -> Section | None:
    if facts.near:
        return _near(facts)
    if not facts.accuracies:
        return _metrics_alone(facts)
    where = f"Measured on {facts.accuracies[0].n:,} samples of {facts.accuracy_data}"
    unseen = "" if facts.held_out else " (also used for calibration: not unseen data)"
    note = (
        f"{where}{unseen}. Brackets: 95 % intervals; accuracy by Wilson's score, points lost "
        "against FP32 paired sample by sample."
    )
    header = ["network", "size", "smaller", "accuracy, %", "points lost", "loss", "BOPS"]
    rows = [_accuracy_row(row) for row in facts.accuracies]
    parts: list[Part] = [
        Table("Networks, sizes and measured accuracies", header, rows),
        Paragraph(note),
        *_metrics(facts),
    ]
    if facts.published is not None:
        parts += _published(facts.published)
    return Section("accuracy", "Measured accuracy", parts)


def _near(facts: Facts) -> Section:
    """Of networks that were measured without labels."""
    some = any(row.kl is not None for row in facts.near)
    rows = []
    for row in facts.near:
        cells = ["" if one is None else "{} [{}, {}]".format(*near_figures(one))
                 for one in (row.agreement, row.sqnr, *([row.kl] if some else []))]  # fmt: skip
        rows.append([
            row.name,
            "" if row.size_bytes is None else format_size(row.size_bytes),
            "" if row.times_smaller is None else f"{row.times_smaller:.2f}×",
            *cells,
            "" if row.bops is None else format_count(row.bops),
        ])  # fmt: skip
    columns = ["agreement, %", "SQNR, dB", *(["KL, nats"] if some else [])]
    header = ["network", "size", "smaller", *columns, "BOPS"]
    unseen = "" if facts.held_out else " (also used for calibration: not unseen data)"
    note = (
        f"Measured on {facts.measured_samples:,} samples of {facts.accuracy_data}{unseen}, which "
        "have no labels: agreement is the share of answers that are FP32's (the same class, or "
        "within a step of an 8-bit quantizer), SQNR its outputs over the difference. Brackets: "
        "95 % intervals over samples."
    )
    table = Table("Networks, sizes and how near they are to FP32", header, rows)
    return Section(
        "accuracy", "Measured without labels", [table, Paragraph(note), *_metrics(facts)]
    )


def _metrics(facts: Facts) -> list[Part]:
    if not facts.metrics:
        return []
    rows = []
    for one in facts.metrics:
        change = "" if one.difference is None else f"{one.difference:+.4g}"
        if one.difference_interval is not None:
            low, high = one.difference_interval
            change += f" [{low:+.4g}, {high:+.4g}]"
        low, high = one.interval
        value = f"{one.value:.4g} [{low:.4g}, {high:.4g}]"
        rows.append([one.network, with_unit(one.metric), value, change, one.method])
    header = ["network", "metric", "value", "less FP32's", "interval"]
    if not any(row[3] for row in rows):
        header, rows = [*header[:3], header[4]], [[*row[:3], row[4]] for row in rows]
    return [Table("Each output" if facts.near else "Other metrics", header, rows)]


def _metrics_alone(facts: Facts) -> Section | None:
    """Of networks that have no accuracy."""
    if not facts.metrics:
        return None
    unseen = "" if facts.held_out else " (also used for calibration: not unseen data)"
    note = (
        f"Measured on {facts.measured_samples:,} samples of {facts.accuracy_data}{unseen}. "
        "Brackets: 95 % intervals, those of differences paired sample by sample."
    )
    return Section("accuracy", "Measured", [*_metrics(facts), Paragraph(note)])


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


def _published(found: PublishedFacts) -> list[Part]:
    rows = []
    for row in found.rows:
        ours = "" if row.accuracy is None else f"{row.accuracy:.2f}"
        if row.interval is not None:
            ours += f" [{row.interval[0]:.2f}, {row.interval[1]:.2f}]"
        rows.append([
            row.name,
            "" if row.paper_accuracy is None else f"{row.paper_accuracy:g}",
            "" if row.paper_kilobytes is None else f"{row.paper_kilobytes:g}",
            row.ours or "not measured",
            ours,
            "" if row.kilobytes is None else f"{row.kilobytes:.1f}",
        ])  # fmt: skip
    header = ["network", "paper, %", "paper, KB", "ours is", "ours, %", "ours, KB"]
    words = "The layers are those of TinyM²Net's network; the paper trained it on its own data."
    if found.substitute is not None:
        words = (
            f"The layers are those of TinyM²Net's {found.case} network. The paper's data are not "
            f"public; this project's substitute is {found.substitute}. So compare what is lost, "
            "not the accuracies."
        )
    return [Table("Beside the paper's Table 4", header, rows), Paragraph(words)]


def _device(facts: Facts) -> Section | None:
    if facts.device is None:
        return None
    if facts.device.emulated:
        note = f"Counted on {facts.device.device}. Emulated: instructions, not time."
        table = Table("Of one inference", *device_table(facts.device))
        return Section("device", "On an emulated board", [table, Paragraph(note)])
    note = (
        f"Measured on {facts.device.device}. Process: from spawn to exit; cold: initialisation and "
        "first inference of a fresh process; steady: warmed up; all medians, never merged. The "
        "paper timed whole processes on a Raspberry Pi 4, Python and its framework included, and "
        "read the peak of a meter above idle. Energy: mean above idle times an inference's time."
    )
    table = Table("Beside the paper's Table 5", *device_table(facts.device))
    parts: list[Part] = [table, Paragraph(note)]
    parts += [Paragraph(f"Note: {one}.") for one in facts.device.notes]
    return Section("device", "On the device", parts)


def _confusion(facts: Facts) -> Section | None:
    if not facts.confusion:
        return None
    drawing = confusion_drawing(facts.confusion)
    parts: list[Part] = [Paragraph(confusion_text(facts.confusion))]
    parts += [] if drawing is None else [drawing]
    parts += [
        More(f"Most frequent mistakes of {one.network}", _mistakes(one)) for one in facts.confusion
    ]
    return Section("confusion", "Confusion matrix", parts)


def _mistakes(found: ConfusionFacts) -> Table:
    rows = [
        [f"{true} as {predicted}", str(count), f"{count / max(sum(found.counts[true]), 1):.1%}"]
        for true, predicted, count in confusions(found, CONFUSION_ROWS)
    ]
    header = ["true as predicted class", "samples", "of the true class"]
    return Table(f"Mistakes of {found.network}", header, rows)


def _provenance(facts: Facts) -> Section | None:
    rows = []
    for name, value in facts.provenance.items():
        if name in ("float_operators", LIFETIMES):
            continue  # has a section of its own, or is for `solve --ram` and long
        if name == "exports" and isinstance(value, dict):
            taken = [export for export, found in value.items()
                     if isinstance(found, dict) and found.get("ok") is True]  # fmt: skip
            rows.append(["exports that take it at 8 bits", ", ".join(taken) or "none"])
        elif isinstance(value, dict):
            rows += [[f"{name}: {key}", str(item)] for key, item in value.items()]
        elif name not in ("format", "version"):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append([name, text])
    parts: list[Part] = []
    if facts.commands:
        parts += [Paragraph("To repeat it:"), Code(facts.commands)]
    if rows:
        parts.append(Table("Provenance of the table", ["what", "value"], rows, prose=True))
    return Section("provenance", "Provenance", parts) if parts else None

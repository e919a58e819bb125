"""The facts of what was measured: accuracies, confusion, and the paper's Table 4 beside them."""

from math import isfinite

from mpsearch.evaluation.evaluation import Evaluation, Evaluations
from mpsearch.reports.facts import (
    AccuracyFacts,
    AnswerFacts,
    ConfusionFacts,
    MetricFacts,
    PublishedFacts,
    PublishedRow,
)
from mpsearch.reproduction.published import CASES, FLOAT, MIXED, W4, W8, Case
from mpsearch.statistics import paired_drop, wilson_interval
from mpsearch.tables.table import LayerTable

CHOSEN = ("assignment", "quantized")
OURS = {FLOAT: ("FP32",), W8: ("w8a8",), MIXED: CHOSEN, W4: ("w4a4",)}
# Quantized layers and weights of the bundled networks that the paper describes.
NETWORKS = {"battlefield": (14, 417_984), "covid": (15, 118_496)}


def accuracy_facts(evaluations: Evaluations | None) -> tuple[AccuracyFacts, ...]:
    """One per measured network, in the order of the file."""
    if evaluations is None:
        return ()
    reference = evaluations.named("FP32")
    rows = [row for row in evaluations.rows if row.n and row.classifies]
    return tuple(_accuracy(row, reference) for row in rows)


def metric_facts(evaluations: Evaluations | None) -> tuple[MetricFacts, ...]:
    """Every other metric of every measured network, and the loss where there is no accuracy."""
    found = []
    for row in evaluations.rows if evaluations else ():
        if not row.classifies:
            found.append(
                MetricFacts(row.name, "loss", row.loss, row.loss_interval, None, None, "normal")
            )
        for name, one in row.metrics.items():
            found.append(MetricFacts(row.name, name, one.value, one.interval, one.difference,
                                     one.difference_interval, one.method))  # fmt: skip
    return tuple(found)


def _accuracy(row: Evaluation, reference: Evaluation | None) -> AccuracyFacts:
    lost, interval, smaller = None, None, None
    if reference is not None and reference is not row:
        if reference.n == row.n:
            drop, (low, high) = paired_drop(reference.correct, row.correct)
            lost, interval = 100 * drop, (100 * low, 100 * high)
        if reference.size_bytes and row.size_bytes:
            smaller = reference.size_bytes / row.size_bytes
    hits = sum(row.correct)
    return AccuracyFacts(
        name=row.name,
        n=row.n,
        accuracy=hits / row.n,
        interval=wilson_interval(hits, row.n),
        lost=lost,
        lost_interval=interval,
        loss=row.loss,
        loss_interval=row.loss_interval,
        size_bytes=row.size_bytes,
        bops=row.bops,
        times_smaller=smaller,
    )


def accuracy_warnings(evaluations: Evaluations | None, answer: AnswerFacts | None) -> list[str]:
    """Whether the row `assignment` is of the assignment that is shown, and losses are numbers."""
    warnings = []
    for row in evaluations.rows if evaluations else ():
        if not isfinite(row.loss):
            warnings.append(f"the loss of {row.name} is not a finite number: its outputs overflow")
    measured = evaluations.named("assignment") if evaluations else None
    if measured is None or answer is None:
        return warnings
    for column, value in (("size_bytes", measured.size_bytes), ("bops", measured.bops)):
        total = answer.point.totals.get(column)
        if value is not None and total is not None and value != total:
            warnings.append(
                f"the measured network has {column} {value}, the assignment shown {total}: "
                "the accuracies may be of another assignment; evaluate again"
            )
    return warnings


def confusion_facts(evaluations: Evaluations | None) -> tuple[ConfusionFacts, ...]:
    """Of the float network and of the chosen one, where the file keeps their matrices."""
    rows = [evaluations.named(name) for name in ("FP32", *CHOSEN)] if evaluations else []
    return tuple(ConfusionFacts(row.name, row.confusion) for row in rows if row and row.confusion)


def published_facts(
    table: LayerTable | None, accuracies: tuple[AccuracyFacts, ...]
) -> PublishedFacts | None:
    """The paper's rows beside ours; None where the table is not of one of its networks."""
    if table is None or not accuracies:
        return None
    shape = (len(table.layers), sum(layer.weights for layer in table.layers))
    name = next((case for case, of_case in NETWORKS.items() if of_case == shape), None)
    if name is None:
        return None
    case: Case = CASES[name]
    rows = []
    for title, names in OURS.items():
        row = next((row for row in accuracies if row.name in names), None)
        paper = case.rows[title]
        if row is None:
            rows.append(
                PublishedRow(title, paper.accuracy, paper.kilobytes, None, None, None, None)
            )
            continue
        low, high = (100 * end for end in row.interval)
        size = None if row.size_bytes is None else row.size_bytes / 1024
        rows.append(
            PublishedRow(
                title, paper.accuracy, paper.kilobytes, row.name, 100 * row.accuracy, (low, high),
                size,
            )
        )  # fmt: skip
    return PublishedFacts(name, case.substitute, tuple(rows))

"""The facts of what was measured: accuracies or nearness to FP32, confusion, the paper's Table 4.

Whether what a run has measured is of the network that the run is about.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation, Evaluations
from mpsearch.gating.evidence import DEFAULT_NETWORKS, check_device, check_row_is_of
from mpsearch.reports.facts import (
    AccuracyFacts,
    AnswerFacts,
    ConfusionFacts,
    MetricFacts,
    NearFacts,
    PublishedFacts,
    PublishedRow,
)
from mpsearch.reports.run_folder import Run
from mpsearch.reproduction.published import CASES, FLOAT, MIXED, W4, W8, Case
from mpsearch.statistics import paired_drop, wilson_interval
from mpsearch.tables.provenance import Judged, check_weights, model_digest_of, network_digest
from mpsearch.tables.table import LayerTable

CHOSEN = ("assignment", "quantized")
NEAR = ("agreement", "sqnr", "kl")  # as the fields of NearFacts
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
    """Every other metric of every measured network, and the loss where there is no accuracy.

    Without labels those of each of several outputs: `near_facts` has what is of all together.
    """
    found = []
    for row in evaluations.rows if evaluations else ():
        labelled = evaluations is None or evaluations.labelled
        if not row.classifies and labelled:
            found.append(
                MetricFacts(row.name, "loss", row.loss, row.loss_interval, None, None, "normal")
            )
        found += [_metric(row, name) for name in row.metrics if labelled or name not in NEAR]
    return tuple(found)


def near_facts(evaluations: Evaluations | None) -> tuple[NearFacts, ...]:
    """One per network that was measured without labels, FP32 among them."""
    if evaluations is None or evaluations.labelled:
        return ()
    reference = evaluations.named("FP32")
    return tuple(
        NearFacts(
            row.name, row.size_bytes, row.bops, _times_smaller(row, reference),
            *(_metric(row, name) if name in row.metrics else None for name in NEAR),
        )
        for row in evaluations.rows
    )  # fmt: skip


def _metric(row: Evaluation, name: str) -> MetricFacts:
    one = row.metrics[name]
    return MetricFacts(row.name, name, one.value, one.interval, one.difference,
                       one.difference_interval, one.method)  # fmt: skip


def _times_smaller(row: Evaluation, reference: Evaluation | None) -> float | None:
    if reference is None or reference is row or not (reference.size_bytes and row.size_bytes):
        return None
    return reference.size_bytes / row.size_bytes


def _accuracy(row: Evaluation, reference: Evaluation | None) -> AccuracyFacts:
    lost, interval = None, None
    if reference is not None and reference is not row and reference.n == row.n:
        drop, (low, high) = paired_drop(reference.correct, row.correct)
        lost, interval = 100 * drop, (100 * low, 100 * high)
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
        times_smaller=_times_smaller(row, reference),
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


def bundled_name(table: LayerTable | None) -> str | None:
    """Which of the paper's networks has these layers: `battlefield`, `covid` or None."""
    if table is None:
        return None
    shape = (len(table.layers), sum(layer.weights for layer in table.layers))
    return next((case for case, of_case in NETWORKS.items() if of_case == shape), None)


def published_facts(
    table: LayerTable | None, accuracies: tuple[AccuracyFacts, ...]
) -> PublishedFacts | None:
    """The paper's rows beside ours; None where the table is not of one of its networks."""
    name = bundled_name(table)
    if name is None or not accuracies:
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


def judged_network(run: Run) -> Judged:
    """Weights and bits that the run is about, as far as its files say."""
    models = {}
    of_table = model_digest_of(run.provenance)
    if of_table is not None:
        models["the table"] = of_table
    if run.assignment is not None and run.assignment.model_digest is not None:
        models["the assignment"] = run.assignment.model_digest
    return Judged(models, None if run.assignment is None else run.assignment.layers)


def check_evidence(run: Run) -> None:
    """Raise InputError for figures that are of other weights or bits than the run's network.

    Rows of other choices (FP32, w8a8) have to be of its weights. What does not say what it is of is
    no error here: `untied` lists it.
    """
    judged = judged_network(run)
    for row in run.evaluations.rows if run.evaluations else ():
        ours = row.name.partition(",")[0] in DEFAULT_NETWORKS  # also "assignment, integers"
        layers = judged.layers if ours else row.origin.layers
        check_row_is_of(row, Judged(judged.models, layers), unverified=True)
    if run.device is not None:
        check_device(run.device, judged, unverified=True)
    if run.front is not None and run.front.measured:
        digest = run.front.measurement.get("model_digest")
        remeasure = "measure it again with `mpsearch evaluate model.pt --front FRONT --remeasure`"
        known = digest if isinstance(digest, str) else None
        check_weights(known, "the measured front", judged, remeasure)
    if run.assignment is not None:
        for measured, option in (
            (run.assignment.measured, "--min-accuracy"),
            (run.assignment.refined, "--refine"),
        ):
            _check_answer(measured, option, judged)


def _check_answer(measured: Mapping[str, Any], option: str, judged: Judged) -> None:
    """What `solve` measured has to be of the assignment that holds it."""
    digest, bits = measured.get("model_digest"), measured.get("assignment_digest")
    what, again = "the answer in assignment.json", f"solve again with `mpsearch solve {option}`"
    check_weights(digest if isinstance(digest, str) else None, what, judged, again)
    if bits is not None and judged.layers and bits != network_digest(judged.layers):
        raise InputError(f"{what} was measured at other bits than its layers have", again)


def untied(run: Run) -> list[str]:
    """What is shown although it does not say which network it is of, a sentence each."""
    found = {}
    if run.evaluations is not None:
        rows = [row.name for row in run.evaluations.rows if row.origin.model is None]
        if rows:
            found[f"the evaluation's rows {', '.join(rows)}"] = "mpsearch evaluate"
    if run.device is not None and run.device.model_digest is None:
        found["the device's profile"] = "mpsearch device run"
    if (
        run.front is not None
        and run.front.measured
        and not run.front.measurement.get("model_digest")
    ):
        found["the measured front"] = "mpsearch evaluate --front"
    return [
        f"unverified: {what} does not say which weights and bits it is of; measure again with "
        f"`{command}`"
        for what, command in found.items()
    ]

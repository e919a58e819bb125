"""From measured assignments and predictions to tables: statistics, JSON and Markdown."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ranking_measuring import Assignment, Measured
from ranking_metrics import Predictions
from ranking_statistics import (
    Estimate,
    Integers,
    kendall,
    resampled_kendall,
    resampled_spearman,
    resamples,
    spearman,
)

BASELINE = "hessian"


@dataclass(frozen=True)
class Row:
    """Rank correlations of one metric's sums with what was measured; + is good everywhere.

    `beyond_baseline` is Spearman against accuracy less that of HAWQ's Ω on the same resamples,
    None where there is no such metric. `usable` is Spearman against accuracy over the usable
    assignments alone, None where there are too few.
    """

    metric: str
    accuracy_spearman: Estimate
    accuracy_kendall: Estimate
    loss_spearman: Estimate
    loss_kendall: Estimate
    usable: Estimate | None
    beyond_baseline: Estimate | None
    seconds: float | None


@dataclass(frozen=True)
class Ranking:
    """One network in one regime, everything raw and the table of it."""

    network: str
    regime: str
    profiling_samples: int
    unseen_samples: int
    float_accuracy: float
    usable_from: float
    assignments: Sequence[Assignment]
    measured: Sequence[Measured]
    predictions: Sequence[Predictions]
    rows: Sequence[Row]
    ceilings: Sequence[Row]

    def to_json(self) -> dict[str, Any]:
        """Plain data; choices as `w4a8`."""
        plain = asdict(self)
        plain["assignments"] = [
            {name: str(choice) for name, choice in assignment.items()}
            for assignment in self.assignments
        ]
        return plain


def usable_accuracy(float_accuracy: float, classes: int) -> float:
    """Half-way between chance and the float network: below it nobody would use an assignment."""
    return (float_accuracy + 1 / classes) / 2


def rank(
    predictions: Sequence[Predictions],
    measured: Sequence[Measured],
    rows: Integers,
    usable_from: float,
) -> list[Row]:
    """The table, best Spearman against accuracy first; metrics without values are left out."""
    served = [prediction for prediction in predictions if prediction.not_applicable is None]
    baseline = next((p.values for p in served if p.metric == BASELINE), None)
    table = [_row(prediction, measured, rows, usable_from, baseline) for prediction in served]
    return sorted(table, key=lambda row: -row.accuracy_spearman.value)


def ceilings(measured: Sequence[Measured]) -> list[Predictions]:
    """What measuring every assignment would know, as if it were a metric.

    Error and loss on the profiling samples need no unseen ones; the loss on the unseen samples says
    how far a loss can order accuracies at all.
    """
    error = tuple(-one.profiling_accuracy for one in measured)
    known = tuple(one.profiling_loss for one in measured)
    loss = tuple(one.loss for one in measured)
    return [
        Predictions("(true error, profiling samples)", "ceiling", error),
        Predictions("(true loss, profiling samples)", "ceiling", known),
        Predictions("(true loss, unseen samples)", "ceiling", loss),
    ]


def _row(
    prediction: Predictions,
    measured: Sequence[Measured],
    rows: Integers,
    usable_from: float,
    baseline: tuple[float, ...] | None,
) -> Row:
    errors = [-one.accuracy for one in measured]
    losses = [one.loss for one in measured]
    x = prediction.values
    return Row(
        prediction.metric,
        _spearman(x, errors, rows),
        Estimate.of(kendall(x, errors), resampled_kendall(x, errors, rows)),
        _spearman(x, losses, rows),
        Estimate.of(kendall(x, losses), resampled_kendall(x, losses, rows)),
        _among_usable(x, measured, usable_from, rows),
        None if baseline is None else _difference(x, baseline, errors, rows),
        prediction.seconds or None,
    )


def _spearman(x: Sequence[float], y: Sequence[float], rows: Integers) -> Estimate:
    return Estimate.of(spearman(x, y), resampled_spearman(x, y, rows))


def _difference(
    x: Sequence[float], baseline: Sequence[float], y: Sequence[float], rows: Integers
) -> Estimate:
    value = spearman(x, y) - spearman(baseline, y)
    return Estimate.of(
        value, resampled_spearman(x, y, rows) - resampled_spearman(baseline, y, rows)
    )


def _among_usable(
    x: Sequence[float], measured: Sequence[Measured], usable_from: float, rows: Integers
) -> Estimate | None:
    kept = [index for index, one in enumerate(measured) if one.accuracy >= usable_from]
    if len(kept) < 10:
        return None
    again = resamples(len(kept), len(rows), seed=0)
    values = np.array(x)[kept]
    errors = np.array([-measured[index].accuracy for index in kept])
    return Estimate.of(spearman(values, errors), resampled_spearman(values, errors, again))


def markdown(ranking: Ranking) -> str:
    """The table for the docs, ceilings last, and the metrics that do not serve the network."""
    accuracies = np.array([one.accuracy for one in ranking.measured])
    usable = int((accuracies >= ranking.usable_from).sum())
    low, middle, high = np.percentile(accuracies, (25, 50, 75))
    lines = [
        f"**{ranking.network}, {ranking.regime}**: {len(accuracies)} assignments, "
        f"{ranking.unseen_samples} unseen samples; accuracy {ranking.float_accuracy:.1%} in float, "
        f"quartiles {low:.1%}, {middle:.1%}, {high:.1%} quantized; "
        f"{usable} usable (from {ranking.usable_from:.1%}).",
        "",
        "| metric | ρ accuracy | τ accuracy | ρ loss | τ loss | ρ accuracy, usable | "
        f"ρ less `{BASELINE}` | profile |",
        "|---|---|---|---|---|---|---|---|",
        *(_line(row) for row in (*ranking.rows, *ranking.ceilings)),
    ]
    for prediction in ranking.predictions:
        if prediction.not_applicable is not None:
            lines += ["", f"`{prediction.metric}` does not apply: {prediction.not_applicable}"]
    return "\n".join(lines) + "\n"


def summary(rankings: Sequence[Ranking]) -> str:
    """Spearman against accuracy of every metric on every network and regime, best worst case
    first."""
    columns = [{row.metric: row for row in (*r.rows, *r.ceilings)} for r in rankings]
    metrics = {name for r in rankings for name in (row.metric for row in r.rows)}
    bounds = [row.metric for row in rankings[0].ceilings]

    def values(metric: str) -> list[float | None]:
        rows = [column.get(metric) for column in columns]
        return [None if row is None else row.accuracy_spearman.value for row in rows]

    def worst(metric: str) -> float:
        return min(-1.0 if value is None else value for value in values(metric))

    lines = [
        "| metric | " + " | ".join(f"{r.network}, {r.regime}" for r in rankings) + " | worst |",
        "|---" * (len(rankings) + 2) + "|",
    ]
    for name in (*sorted(metrics, key=worst, reverse=True), *bounds):
        cells = ["" if value is None else f"{value:.3f}" for value in values(name)]
        lines.append(f"| {_name(name)} | {' | '.join(cells)} | {worst(name):.3f} |")
    return "\n".join(lines) + "\n"


def _name(metric: str) -> str:
    return metric if metric.startswith("(") else f"`{metric}`"


def _line(row: Row) -> str:
    cells = [
        row.accuracy_spearman, row.accuracy_kendall, row.loss_spearman, row.loss_kendall,
        row.usable, None if row.metric == BASELINE else row.beyond_baseline,
    ]  # fmt: skip
    seconds = "" if row.seconds is None else f"{row.seconds:.1f} s"
    return f"| {_name(row.metric)} | " + " | ".join(map(_cell, cells)) + f" | {seconds} |"


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"

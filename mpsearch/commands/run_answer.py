"""The answer of `mpsearch run`: one sentence, and the same for machines."""

import os
from collections.abc import Iterator
from typing import Any

from mpsearch.commands.run_steps import Steps
from mpsearch.evaluation.evaluation import Evaluation, Evaluations, row_to_json, with_unit
from mpsearch.statistics import paired_drop
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.units import format_amount, format_size

UNITS = {"size_bytes": "", "bops": "BOPS", "ram_bytes": " of RAM", "flash_bytes": " of flash"}


def answer(steps: Steps, evaluations: Evaluations) -> dict[str, Any]:
    """What was found and measured; `answer` is the sentence."""
    assignment = Assignment.load(steps.assignment)
    taken = {name: (total, limit) for name, total, limit in _taken(assignment)}
    rows = [row for name in ("FP32", "assignment") if (row := evaluations.named(name)) is not None]
    pages = [f"report: {steps.report}"]
    if steps.exported is not None:
        pages.append(f"export: {steps.exported}")
    where = " and ".join(_within(name, *amounts) for name, amounts in taken.items())
    measured = measured_words(evaluations)
    return {
        "answer": f"{steps.request.path} in {where}: {measured}; {'; '.join(pages)}",
        "model": steps.request.path,
        "folder": steps.request.folder,
        "totals": {name: total for name, (total, _) in taken.items()},
        "limits": {name: limit for name, (_, limit) in taken.items() if limit is not None},
        "status": assignment.status,
        "data": evaluations.data_name,
        "held_out": evaluations.held_out,
        "rows": [
            {key: value for key, value in row_to_json(row).items() if key not in _LONG}
            for row in rows
        ],
        "notes": notes(evaluations, steps.request.fits_memory),
        "report": steps.report,
        "export": steps.exported,
    }


def notes(evaluations: Evaluations, fits_memory: bool) -> list[str]:
    """What the answer does not say by itself: that it was not refined, and that a row beside it is
    as good and smaller."""
    found = []
    if fits_memory:
        found.append("nothing was refined: with --ram or --flash the search goes by Ω alone")
    row = evaluations.named("assignment")
    if row is None or not row.classifies or row.size_bytes is None:
        return found
    others = [
        other
        for other in evaluations.rows
        if other.name not in ("FP32", "assignment")
        and other.classifies
        and other.size_bytes is not None
        and other.size_bytes < row.size_bytes
        and other.accuracy >= row.accuracy
    ]
    if others:
        best = max(others, key=lambda other: other.accuracy)
        _, (low, _) = paired_drop(best.correct, row.correct)
        sure = (
            "surely more accurate" if low > 0 else "no less accurate (the difference may be luck)"
        )
        found.append(
            f"{best.name} in every layer is smaller, {format_size(best.size_bytes or 0)}, and was "
            f"measured {_percent(best.accuracy, best.accuracy_interval)}, {sure}: Ω is an "
            f"estimate; the same command with --allow '*={best.name}' takes it"
        )
    return found


_LONG = ("correct", "confusion", "layers")  # evaluation.json has them


def _taken(assignment: Assignment) -> Iterator[tuple[str, int | float, int | float | None]]:
    """(column, what it takes, its limit): the size always, others where they are limited."""
    names = dict.fromkeys(["size_bytes", *assignment.limits])
    for name in names:
        if name in assignment.totals:
            yield name, assignment.totals[name], assignment.limits.get(name)
    for name in ("ram", "flash"):
        if f"{name}_bytes" in assignment.memory:
            limit = assignment.memory[f"{name}_limit"]
            yield f"{name}_bytes", assignment.memory[f"{name}_bytes"], limit


def _within(name: str, total: int | float, limit: int | float | None) -> str:
    """`144.6 of 145.0 KB`."""
    column = name.removeprefix("max:")
    taken, unit = format_amount(column, total), UNITS.get(name, f" ({name})")
    if limit is None:
        return taken + unit
    most = format_amount(column, limit)
    number, _, scale = taken.partition(" ")
    return f"{number if most.endswith(f' {scale}') else taken} of {most}{unit}"


def measured_words(evaluations: Evaluations) -> str:
    """`91.8 % [90.1, 93.3] on 1,000 samples of test.npz, 0.2 points [-0.3, 0.8] below FP32`."""
    row, reference = evaluations.named("assignment"), evaluations.named("FP32")
    assert row is not None
    assert reference is not None
    name = os.path.basename(evaluations.data_name)
    samples = f"{row.n:,} samples of {name}"
    if not evaluations.held_out:
        samples = f"the {row.n:,} samples that it was calibrated on (--test names unseen ones)"
    if evaluations.labelled and row.classifies:
        return f"{_percent(row.accuracy, row.accuracy_interval)} on {samples}, " + _lost(
            row, reference
        )
    if "agreement" in row.metrics:
        agreed = row.metrics["agreement"]
        return f"decides as FP32 does in {_percent(agreed.value, agreed.interval)} of {samples}"
    for metric, found in row.metrics.items():
        low, high = found.interval
        words = f"{with_unit(metric)} {found.value:.4g} [{low:.4g}, {high:.4g}] on {samples}"
        if metric in reference.metrics:
            words += f", FP32 {reference.metrics[metric].value:.4g}"
        return words
    low, high = row.loss_interval
    return f"loss {row.loss:.4g} [{low:.4g}, {high:.4g}] on {samples}, FP32 {reference.loss:.4g}"


def _percent(share: float, interval: tuple[float, float]) -> str:
    low, high = (100 * end for end in interval)
    return f"{100 * share:.1f} % [{low:.1f}, {high:.1f}]"


def _lost(row: Evaluation, reference: Evaluation) -> str:
    lost, (low, high) = paired_drop(reference.correct, row.correct)
    side, sign = ("above", -1) if lost < 0 else ("below", 1)
    ends = sorted((100 * sign * low, 100 * sign * high))
    return f"{abs(100 * lost):.1f} points [{ends[0]:.1f}, {ends[1]:.1f}] {side} FP32"

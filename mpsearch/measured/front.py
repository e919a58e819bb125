"""Measuring points of a stored front: what the assignments on it really score."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import mpsearch
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation, check_classifies, row_from_json, row_to_json
from mpsearch.evaluation.subjects import Subject
from mpsearch.pareto.files import read_json, write_csv, write_json
from mpsearch.pareto.front import Front
from mpsearch.quantization.quantized import check_layers
from mpsearch.quantization.quantizer import check_choice
from mpsearch.running.workers import Workers
from mpsearch.statistics import paired_drop

COLUMNS = (
    "accuracy", "accuracy_low", "accuracy_high",
    "drop", "drop_low", "drop_high",
    "loss", "loss_low", "loss_high",
)  # fmt: skip
WITHOUT_LABELS = (
    "agreement", "agreement_low", "agreement_high", "loss", "loss_low", "loss_high",
)  # fmt: skip
SAME = ("data_digest", "calibration_digest", "model_digest", "settings", "mpsearch")
WORDS = {
    "data_digest": "other data to measure on",
    "calibration_digest": "other calibration data",
    "model_digest": "another network",
    "settings": "other settings of the quantizer",
    "mpsearch": "another version of mpsearch",
}


def read_front(path: str | os.PathLike[str]) -> Front:
    """The front of `front.csv`, read from the `front.json` beside it."""
    stored = Path(path).with_suffix(".json")
    if Path(path).exists() and not stored.exists():
        raise InputError(
            f"{path} has no {stored.name} beside it, which holds the assignments; "
            f"make both with `mpsearch front -o {Path(path).with_suffix('.csv')}`"
        )
    return read_json(stored)


def measure_front(
    front: Front,
    points: Sequence[int],
    subject: Subject,
    output: str | os.PathLike[str] | None,
    remeasure: bool = False,
    step: Callable[[], None] = lambda: None,
    workers: Workers | None = None,
) -> Front:
    """The front with `COLUMNS` at `points`; `output` (CSV) and its JSON are rewritten after each.

    Accuracy, drop and their ends are shares from 0 to 1: 0.915 in [0.896, 0.931]; the drop is that
    against FP32 on the same samples. Data without labels give the columns `WITHOUT_LABELS`: the
    agreement with FP32, and as loss the divergence from it. Points that were measured before in the
    same way are kept, so a killed run goes on. workers: processes that share the points; all return
    the same, and the first one writes after as many points as there are processes. Raises
    InputError for a front of another network, and where the front holds values of other data or of
    another network, unless `remeasure` drops these.
    """
    check_layers(subject.network, front.assignment(0))
    for choice in front.used:
        check_choice(choice)
    names: tuple[str, ...] = COLUMNS
    if subject.data.labels is None:
        names, subject = WITHOUT_LABELS, replace(subject, metrics=("agreement",))
    described = measurement(subject)
    try:
        reference = _reference(front, described)
    except InputError:
        if not remeasure:
            raise
        front, reference = replace(front, measured={}, measurement={}), None
    if reference is not None:
        described = dict(front.measurement)
    else:
        reference = subject.float_row()
        if names is COLUMNS:
            check_classifies(reference, "a measured front")
        described["fp32"] = row_to_json(reference)
    nothing = np.full(len(front), math.nan)
    columns = {name: front.measured.get(name, nothing).copy() for name in names}
    alike: dict[bytes, list[int]] = {}  # an assignment may be several points
    for point in points:
        alike.setdefault(front.assignments[point].tobytes(), []).append(point)
    groups, workers = list(alike.values()), workers or Workers()
    for start in range(0, len(groups), workers.size):
        turn, found = groups[start : start + workers.size], dict[str, dict[str, float]]()
        before = columns[names[0]].copy()
        for place, group in enumerate(turn):
            known = [point for point in group if not math.isnan(columns[names[0]][point])]
            if known:
                found[str(place)] = {name: columns[name][known[0]] for name in names}
            elif workers.owns(place):
                row = subject.measure(str(group[0]), front.assignment(group[0]))
                found[str(place)] = _values(row, reference)
        found = workers.share(found)
        for place, group in enumerate(turn):
            for point in group:
                for name, value in found[str(place)].items():
                    columns[name][point] = value
                step()
        front = replace(front, measured={**front.measured, **columns}, measurement=described)
        changed = not np.array_equal(columns[names[0]], before, equal_nan=True)
        if output is not None and workers.rank == 0 and changed:
            write_json(front, Path(output).with_suffix(".json"))
            write_csv(front, Path(output).with_suffix(".csv"))
    return front


def measurement(subject: Subject) -> dict[str, Any]:
    """What measured values depend on, as front.json keeps it."""
    quantizing = subject.quantizing
    return {
        "data": subject.data.name,
        "data_digest": subject.data.digest,
        "samples": len(subject.data),
        "held_out": subject.held_out,
        "calibration": quantizing.calibration.name,
        "calibration_digest": quantizing.calibration.digest,
        "model_digest": subject.network.digest,
        "settings": dict(quantizing.settings),
        "mpsearch": mpsearch.__version__,
    }


def check_same(front: Front, described: Mapping[str, Any]) -> None:
    """Raise InputError where the front's measured values are of something else."""
    if not front.measurement:
        return
    other = [WORDS[key] for key in SAME if front.measurement.get(key) != described[key]]
    if other:
        before = int(np.count_nonzero(~np.isnan(front.measured[front.score])))
        raise InputError(
            f"the front holds {before} points measured on {front.measurement.get('data')} with "
            f"{', '.join(other)}",
            "name the same again, or drop them with --remeasure",
        )


def _reference(front: Front, described: Mapping[str, Any]) -> Evaluation | None:
    """FP32 as the front has it; None where nothing was measured. InputError as `check_same`, and
    for a damaged row."""
    check_same(front, described)
    if not front.measurement:
        return None
    try:
        return row_from_json(front.measurement.get("fp32"), "fp32")
    except ValueError as error:
        raise InputError(
            f"the front's measurement of FP32 is damaged: {error}; drop it with --remeasure"
        ) from error


def _values(row: Evaluation, reference: Evaluation) -> dict[str, float]:
    """The columns of one point; an end that is not known, of one sample's loss, is NaN."""
    ends = [end if math.isfinite(end) else math.nan for end in row.loss_interval]
    if (near := row.metrics.get("agreement")) is not None:
        values = (near.value, *near.interval, row.loss, *ends)
        return dict(zip(WITHOUT_LABELS, values, strict=True))
    drop, (low, high) = paired_drop(reference.correct, row.correct)
    numbers = (row.accuracy, *row.accuracy_interval, drop, low, high, row.loss, *ends)
    return dict(zip(COLUMNS, numbers, strict=True))

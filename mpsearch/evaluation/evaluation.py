"""`Evaluation`: accuracy, loss and other metrics with 95 % intervals, and the file for them.

Whether a stored evaluation can have been measured: values in their range, intervals that hold
them, one row for each network.
"""

import base64
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.evaluation.in_notebooks import frame_of, table_of, text_of
from mpsearch.files.json_file import (
    by_name,
    check_form,
    flag,
    list_of,
    null_or,
    number,
    read_document,
    text,
    whole,
)
from mpsearch.files.whole import write_atomic
from mpsearch.statistics import ROUNDING
from mpsearch.tables.choice import is_choice
from mpsearch.tables.provenance import ORIGIN, Origin, origin_from_json, origin_to_json

if TYPE_CHECKING:
    import pandas as pd

FORMAT, VERSION = "mpsearch.evaluation", 1
LARGEST_MIB = 256
MOST_CLASSES = 100  # a confusion matrix of more would be larger than all else in the file


@dataclass(frozen=True)
class Metric:
    """A metric's value with its 95 % interval, and how that was found (`wilson`, `normal`,
    `bootstrap of 1000`).

    difference: the value less that of FP32 on the same samples, with an interval for the paired
    difference; None where FP32 was not measured beside it.
    """

    value: float
    interval: tuple[float, float]
    method: str
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Evaluation:
    """Accuracy (Wilson interval) and the mean loss (normal interval) on labelled samples.

    A network that does not give one answer per sample (a regression, several outputs) has no
    accuracy, nor has one that is measured without labels; `metrics` say what it is measured by.
    """

    name: str
    """Of the network: `FP32`, `assignment`, `w8a8`."""
    n: int
    """How many samples."""
    accuracy: float
    """The share of right answers, 0 to 1; NaN without one answer per sample."""
    accuracy_interval: tuple[float, float]
    """Its 95 % interval (low, high)."""
    loss: float
    """The mean over the samples."""
    loss_interval: tuple[float, float]
    """Its 95 % interval (low, high)."""
    correct: tuple[bool, ...]
    """One entry per sample, so that two evaluations on the same data can be paired; empty where
    there is no accuracy."""
    size_bytes: int | None = None
    """Of the network at its bits, of FP32 at 32 bits; None where that is not known."""
    bops: int | None = None
    """Bit operations of one sample at these bits; None where that is not known."""
    confusion: tuple[tuple[int, ...], ...] | None = None
    """[true class][predicted class]: how many samples; None where it was not kept."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """By name, `f1`: a value with its interval."""
    origin: Origin = field(default_factory=Origin)
    """Which network on which data, by digests."""

    @property
    def classifies(self) -> bool:
        """Whether it has an accuracy: one answer per sample that is right or wrong."""
        return bool(self.correct) or not self.n

    def __repr__(self) -> str:
        return text_of(self)

    def _repr_html_(self) -> str:
        """For notebooks: what was measured."""
        return table_of((self,), [f"{self.n} samples"])


@dataclass(frozen=True)
class Evaluations:
    """Several networks measured on the same data: the content of evaluation.json."""

    data_name: str
    """Where the samples come from."""
    data_digest: str
    """SHA-256 of the samples."""
    held_out: bool
    """False where the samples also set the ranges of activations."""
    rows: tuple[Evaluation, ...]
    """One for each network, the float one first."""
    loss: str = "cross-entropy"
    """What `Evaluation.loss` is, by name."""
    notes: tuple[str, ...] = ()
    """What to know of them, a sentence each."""
    labelled: bool = True
    """Whether the data have labels; else all is measured against the row FP32."""

    def named(self, name: str) -> Evaluation | None:
        """The row called `name`, or None."""
        return next((row for row in self.rows if row.name == name), None)

    def save(self, path: str | os.PathLike[str] = "evaluation.json") -> None:
        """Write evaluation.json, as `mpsearch evaluate` does."""
        save_evaluations(self, path)

    def __repr__(self) -> str:
        return f"Evaluations({'; '.join(map(repr, self.rows))})"

    def _repr_html_(self) -> str:
        """For notebooks: the networks as `mpsearch evaluate` prints them."""
        n = self.rows[0].n if self.rows else 0
        note = "" if self.held_out else " (also used for calibration: not unseen data)"
        return table_of(self.rows, [f"{n} samples of {self.data_name}{note}", *self.notes])

    def to_pandas(self) -> "pd.DataFrame":
        """One row for each network: name, n, accuracy and loss with their ends, metrics, size."""
        return frame_of(self.rows)


def check_classifies(row: Evaluation, what: str) -> None:
    """Raise InputError where `what` needs an accuracy and the network has none."""
    if not row.classifies:
        raise InputError(
            f"{what} needs the accuracy of a network that classifies, and {row.name} has none; "
            "compare its metrics with `mpsearch evaluate --metric`, or guard them with "
            "`mpsearch gate --max mae=0.05`"
        )


def save_evaluations(evaluations: Evaluations, path: str | os.PathLike[str]) -> None:
    """Write evaluation.json atomically.

    Raises ValueError for rows that could not be read back: two of one name, or of other data.
    """
    check_rows(evaluations)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "data": {
            "name": evaluations.data_name,
            "digest": evaluations.data_digest,
            "held_out": evaluations.held_out,
            **({} if evaluations.labelled else {"labels": False}),
        },
        "loss": evaluations.loss,
        **({"notes": list(evaluations.notes)} if evaluations.notes else {}),
        "rows": [row_to_json(row) for row in evaluations.rows],
    }
    write_atomic(path, json.dumps(document, indent=2) + "\n")


def row_to_json(row: Evaluation) -> dict[str, Any]:
    """One row of evaluation.json; `correct` is packed, one bit per sample."""
    packed = np.packbits(np.array(row.correct, dtype=bool)).tobytes()
    counts = row.confusion
    return {
        "name": row.name,
        "n": row.n,
        "accuracy": row.accuracy if row.classifies else None,
        "accuracy_interval": list(row.accuracy_interval) if row.classifies else None,
        "loss": row.loss if math.isfinite(row.loss) else None,
        "loss_interval": _ends(row.loss_interval),
        "size_bytes": row.size_bytes,
        "bops": row.bops,
        "correct": base64.b64encode(packed).decode(),
        **({} if counts is None else {"confusion": [" ".join(map(str, one)) for one in counts]}),
        **({"metrics": {k: _metric_to_json(v) for k, v in row.metrics.items()}}
           if row.metrics else {}),
        **origin_to_json(row.origin),
    }  # fmt: skip


def _metric_to_json(metric: Metric) -> dict[str, Any]:
    document: dict[str, Any] = {
        "value": None if metric.value == math.inf else metric.value,
        "interval": _ends(metric.interval), "method": metric.method,
    }  # fmt: skip
    if metric.difference is not None and metric.difference_interval is not None:
        ends = _ends(metric.difference_interval)
        document["against_fp32"] = {"difference": metric.difference, "interval": ends}
    return document


def _ends(interval: tuple[float, float]) -> list[float | None]:
    return [end if math.isfinite(end) else None for end in interval]


def load_evaluations(path: str | os.PathLike[str]) -> Evaluations:
    """Read evaluation.json. Raises InputError when it is something else or damaged."""
    missing = f"{path}: no such file; expected an evaluation.json"
    document = read_document(path, "evaluation.json", FORMAT, VERSION, LARGEST_MIB, missing)
    try:
        check_form(document, EVALUATIONS, "")
        data = document["data"]
        rows = tuple(row_from_json(x, f"rows[{i}]") for i, x in enumerate(document["rows"]))
        loss, notes = document.get("loss", "cross-entropy"), tuple(document.get("notes", ()))
        found = Evaluations(
            data["name"], data["digest"], data["held_out"], rows, loss, notes,
            data.get("labels", True),
        )  # fmt: skip
        check_rows(found)
        return found
    except ValueError as error:
        raise InputError(f"{path}: not an evaluation.json of mpsearch: {error}") from error


_ENDS = [null_or(number()), null_or(number())]
ROW = {
    "name": text,
    "n": whole(),
    "accuracy": null_or(number(0, 1)),
    "accuracy_interval": null_or([number(0, 1), number(0, 1)]),
    "loss": null_or(number()),
    "loss_interval": _ENDS,
    "size_bytes": null_or(whole()),
    "bops": null_or(whole()),
    "correct": text,
    "confusion?": null_or(list_of(text)),
    "metrics?": by_name({
        "value": null_or(number()), "interval": _ENDS, "method": text,
        "against_fp32?": null_or({"difference": number(), "interval": _ENDS}),
    }),
    **ORIGIN,
}  # fmt: skip
EVALUATIONS = {
    "data": {"name": text, "digest": text, "held_out": flag, "labels?": flag},
    "rows": list_of({}), "loss?": text, "notes?": list_of(text),
}  # fmt: skip


def row_from_json(row: Any, where: str = "row") -> Evaluation:
    """One row of evaluation.json. Raises ValueError that names the place for anything else."""
    check_form(row, ROW, where)
    n = row["n"]
    classifies = row["accuracy"] is not None
    packed = np.frombuffer(base64.b64decode(row["correct"], validate=True), dtype=np.uint8)
    most = 8 * len(packed) if classifies else 2**40
    if not 0 <= n <= most:  # before it is unpacked: n decides how much memory that takes
        raise ValueError(f"{where}: n is {n}, and it has {8 * len(packed)} samples")
    hits = tuple(bool(bit) for bit in np.unpackbits(packed, count=n)) if classifies else ()
    accuracy = float(row["accuracy"]) if classifies else math.nan
    low, high = (row["accuracy_interval"] if classifies else None) or (math.nan, math.nan)
    if classifies and (len(hits) != n or sum(hits) != round(accuracy * n)):
        raise ValueError(f"{where}: the accuracy is not that of its samples")
    metrics = {k: _metric_from_json(k, v, where) for k, v in row.get("metrics", {}).items()}
    confusion = _confusion(row, where)
    if confusion is not None and (
        sum(map(sum, confusion)) != n
        or sum(one[place] for place, one in enumerate(confusion)) != sum(hits)
    ):
        raise ValueError(f"{where}: the confusion matrix is not that of its samples")
    found = Evaluation(
        row["name"], n, accuracy, (float(low), float(high)),
        math.nan if row["loss"] is None else float(row["loss"]), _interval(row["loss_interval"]),
        hits, row["size_bytes"], row["bops"], confusion, metrics, origin_from_json(row),
    )  # fmt: skip
    check_row(found)
    return found


def _metric_from_json(name: str, document: Mapping[str, Any], where: str) -> Metric:
    method = document["method"]
    if document["value"] is None:  # as FP32's outputs exactly, and so on every draw: no noise
        if name.rpartition(".")[2] != "sqnr":
            raise ValueError(f"{where}: {name!a} has no value")
        return Metric(math.inf, (math.inf, math.inf), method)
    value = float(document["value"])
    against = document.get("against_fp32")
    if against is None:
        return Metric(value, _interval(document["interval"]), method)
    return Metric(
        value, _interval(document["interval"]), method,
        float(against["difference"]), _interval(against["interval"]),
    )  # fmt: skip


def _interval(ends: Any) -> tuple[float, float]:
    """An end that is not known is null."""
    low, high = ends
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)


def _confusion(row: Mapping[str, Any], where: str) -> tuple[tuple[int, ...], ...] | None:
    """`["90 3", "2 5"]` -> ((90, 3), (2, 5)); None where the row has none, as in older files."""
    if row.get("confusion") is None:
        return None
    words = [one.split() for one in row["confusion"]]
    square = all(len(one) == len(words) for one in words)
    if not square or not all(re.fullmatch(r"[0-9]{1,18}", word) for one in words for word in one):
        raise ValueError(f"{where}: the confusion matrix is not square and of counts")
    return tuple(tuple(map(int, one)) for one in words)


SHARES = ("accuracy", "balanced-accuracy", "f1", "auc", "agreement")
NOT_NEGATIVE = ("mae", "mse", "rmse", "kl")


def check_rows(evaluations: "Evaluations") -> None:
    """Raise ValueError for two rows of one name, and for rows of other data than the file's."""
    for name, count in Counter(row.name for row in evaluations.rows).items():
        if count > 1:
            raise ValueError(f"it has {count} rows called {name!a}")
    for row in evaluations.rows:
        if row.origin.data not in (None, evaluations.data_digest):
            raise ValueError(f"row {row.name!a} is of other data than the file says")


def check_row(row: "Evaluation") -> None:
    """Raise ValueError for a value that its metric cannot have, for an interval without its value,
    and for a row called `w8a8` whose layers have other bits."""
    if row.classifies and row.n:
        _check_interval("accuracy", row.accuracy, row.accuracy_interval, row.name)
    _check_interval("loss", row.loss, row.loss_interval, row.name)
    for name, metric in row.metrics.items():
        low, high = range_of(name)
        if not low <= metric.value <= high:
            raise ValueError(
                f"row {row.name!a}: {name!a} is {metric.value:g}; expected {low:g} to {high:g}"
            )
        _check_interval(name, metric.value, metric.interval, row.name)
        if metric.difference is not None and metric.difference_interval is not None:
            what = f"{name} less FP32's"
            _check_interval(what, metric.difference, metric.difference_interval, row.name)
    layers = row.origin.layers or {}
    if is_choice(row.name) and {row.name} < {row.name, *map(str, layers.values())}:
        raise ValueError(f"row {row.name!a} has layers of other bits")


def with_unit(metric: str) -> str:
    """A metric as tables name it: `box.sqnr` -> `box.sqnr, dB`."""
    unit = {"sqnr": ", dB", "kl": ", nats"}.get(metric.rpartition(".")[2], "")
    return metric + unit


def range_of(metric: str) -> tuple[float, float]:
    """What a metric's value can be: f1 -> (0, 1), `box.mae` -> (0, inf); a user's own: anything."""
    name = metric.rpartition(".")[2]
    if ":" in metric:
        return -math.inf, math.inf
    if name in SHARES or re.fullmatch(r"top[1-9]\d*", name):
        return 0.0, 1.0
    if name in NOT_NEGATIVE:
        return 0.0, math.inf
    return -math.inf, 1.0 if name == "r2" else math.inf


def _check_interval(what: str, value: float, interval: tuple[float, float], row: str) -> None:
    low, high = interval
    room = ROUNDING * max(1.0, abs(value))
    if math.isfinite(value) and not low - room <= value <= high + room:
        raise ValueError(
            f"row {row!a}: the interval of {what!a} is [{low:g}, {high:g}] and its value {value:g}"
        )

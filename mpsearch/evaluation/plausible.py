"""Whether a stored evaluation can have been measured: values in their range, intervals that hold
them, one row for each network."""

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

from mpsearch.statistics import ROUNDING
from mpsearch.tables.choice import is_choice

if TYPE_CHECKING:
    from mpsearch.evaluation.evaluation import Evaluation, Evaluations

SHARES = ("accuracy", "balanced-accuracy", "f1", "auc")
NOT_NEGATIVE = ("mae", "mse", "rmse")


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

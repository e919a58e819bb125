"""Conditions on metrics of an evaluation: `--min f1=0.9`, `--max mae=0.05`, `--max-rise mse=9%`."""

import math
from collections.abc import Sequence
from fractions import Fraction

from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation, Metric
from mpsearch.gating.limits import Conditions
from mpsearch.gating.verdict import Number, Verdict
from mpsearch.tables.units import read_number

CONFIDENCE = 0.95  # of the intervals in an evaluation


def wanted_metrics(conditions: Conditions) -> tuple[str, ...]:
    """The metrics that are asked for, as `evaluate --metric` takes them; not the loss."""
    asked = [*conditions.judged_from("metrics"), *conditions.judged_from("metrics", "fp32")]
    names = dict.fromkeys(_parse(text, f"--{one.key}")[0] for one, text in asked)
    return tuple(name for name in names if name != "loss")


def judge_metrics(conditions: Conditions, row: Evaluation, confidence: float) -> list[Verdict]:
    """A verdict for every condition on a metric of the row.

    `min` and `max` judge the value, `max_rise` and `max_fall` what it is above or below FP32's on
    the same samples: absolutely, or with a sign relative to FP32's value. Raises InputError for a
    metric that the row lacks and for a confidence other than that of its intervals.
    """
    if confidence != CONFIDENCE:
        raise InputError(
            f"got the confidence {confidence:g} and a condition on a metric; the intervals of "
            f"metrics are stored for {CONFIDENCE:g}: leave --confidence out"
        )
    verdicts = []
    for asked, text in conditions.judged_from("metrics"):
        name, limit, percent = _parse(text, f"--{asked.key}")
        at_least = asked.at_least
        if percent and limit > 1 and at_least:
            raise InputError(f"got --{asked.key} {text!r}: more than 100 %")
        value, interval = _value(row, name)
        verdicts.append(_verdict(name, value, limit, interval, row.n, at_least))
    for asked, text in conditions.judged_from("metrics", "fp32"):
        name, limit, percent = _parse(text, f"--{asked.key}")
        sign = 1 if asked.name == "max_rise" else -1
        metric = _metric(row, name)
        if metric.difference is None or metric.difference_interval is None:
            raise InputError(
                f"the evaluation does not compare {name} with FP32; measure both in one run: "
                f"mpsearch evaluate MODEL --assignment assignment.json --metric {name}"
            )
        before = abs(metric.value - metric.difference)
        if percent:
            limit *= Fraction(before)
        low, high = sorted(sign * end for end in metric.difference_interval)
        title = f"{name} {'above' if sign > 0 else 'below'} FP32's"
        value = sign * metric.difference
        verdicts.append(_verdict(title, value, limit, (low, high), row.n, False))
    return verdicts


def _parse(text: str, option: str) -> tuple[str, Fraction, bool]:
    """`box.mae=0.05` -> (name, 1/20, False); `mse=10%` -> (name, 1/10, True)."""
    name, equals, value = text.strip().rpartition("=")
    read = read_number(value, exponent=True, sign=True)
    if not equals or not name or read is None or read.unit not in ("", "%"):
        raise InputError(f"got {option} {text!r}; expected METRIC=NUMBER, such as mae=0.05 or 5%")
    return name.strip(), read.share, read.unit == "%"


def _metric(row: Evaluation, name: str) -> Metric:
    name = name.replace("=", ".", 1)  # box=mae, as `evaluate` also takes it
    if name not in row.metrics:
        known = ", ".join(row.metrics) or "none"
        raise InputError(
            f"the row {row.name} of the evaluation has no metric {name} (it has: {known}); write "
            f"it with `mpsearch evaluate … --metric {name}`"
        )
    return row.metrics[name]


def _value(row: Evaluation, name: str) -> tuple[float, tuple[float, float]]:
    if name == "loss":
        return row.loss, row.loss_interval
    if name == "accuracy" and name not in row.metrics and row.classifies:
        return row.accuracy, row.accuracy_interval
    metric = _metric(row, name)
    return metric.value, metric.interval


def _verdict(
    name: str, value: float, limit: Fraction, interval: tuple[float, float], samples: int,
    at_least: bool,
) -> Verdict:  # fmt: skip
    exact = Fraction(repr(value)) if math.isfinite(value) else Fraction(10**300)
    passed = exact >= limit if at_least else exact <= limit
    return Verdict(
        f"metric {name}", exact, limit, passed, interval, samples, CONFIDENCE,
        _needed(float(exact), limit, interval, samples), at_least=at_least,
    )  # fmt: skip


def _needed(value: float, limit: Number, interval: tuple[float, float], samples: int) -> int | None:
    """Samples at which the interval's end would be the limit: its width falls with their root."""
    distance = abs(float(limit) - value)
    width = abs((interval[1] if float(limit) > value else interval[0]) - value)
    if distance == 0 or not math.isfinite(width):
        return None
    return max(1, math.ceil(samples * (width / distance) ** 2))


def check_names(texts: Sequence[str], option: str) -> None:
    """Raise InputError for a limit that is not of the form METRIC=NUMBER."""
    for text in texts:
        _parse(text, option)

"""`gate`: is the network small and accurate enough? One `Verdict` per condition.

Conditions on metrics of an evaluation: `--min f1=0.9`, `--max mae=0.05`, `--max-rise mse=9%`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from mpsearch.comparing.baseline import Baseline, check_same_data, is_same_network
from mpsearch.comparing.layers import LayerChange
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation, Metric, check_classifies
from mpsearch.gating.conditions import (
    CONDITIONS,
    Condition,
    Conditions,
    grown,
)
from mpsearch.gating.evidence import (
    Evidence,
    check_pair,
    device_value,
    difference,
    identity_of,
    judged_row,
    total_of,
    totals_of,
)
from mpsearch.gating.memory import ram_of
from mpsearch.gating.words import Number, Paired, Verdict
from mpsearch.statistics import (
    check_confidence,
    drop_interval,
    mcnemar_p,
    samples_for_accuracy,
    samples_for_drop,
    wilson_interval,
)
from mpsearch.tables.units import read_number

CONFIDENCE = 0.95  # of the intervals in an evaluation
NEAR = tuple(one.quantity for one in CONDITIONS if "outputs" in one.needs)


def wanted_metrics(conditions: Conditions) -> tuple[str, ...]:
    """The metrics that are asked for, as `evaluate --metric` takes them; not the loss."""
    asked = [*conditions.judged_from("metrics"), *conditions.judged_from("metrics", "fp32")]
    near = [one.quantity for one, _ in conditions.judged_from("outputs", "fp32")]
    names = dict.fromkeys([*near, *(_parse(text, f"--{one.key}")[0] for one, text in asked)])
    return tuple(name for name in names if name != "loss")


def judge_metrics(conditions: Conditions, row: Evaluation, confidence: float) -> list[Verdict]:
    """A verdict for every condition on a metric of the row.

    `min` and `max` judge the value, `max_rise` and `max_fall` what it is above or below FP32's on
    the same samples: absolutely, or with a sign relative to FP32's value. Raises InputError for a
    metric that the row lacks and for a confidence other than that of its intervals.
    """
    _check_stored(confidence)
    verdicts = []
    for asked, text in conditions.judged_from("metrics"):
        name, limit, percent = _parse(text, f"--{asked.key}")
        at_least = asked.at_least
        if percent and limit > 1 and at_least:
            raise InputError(f"got --{asked.key} {text!r}: more than 100 %")
        value, interval = _value(row, name)
        verdicts.append(_verdict(f"metric {name}", value, limit, interval, row.n, at_least))
    for asked, text in conditions.judged_from("metrics", "fp32"):
        name, limit, percent = _parse(text, f"--{asked.key}")
        sign = 1 if asked.name == "max_rise" else -1
        metric = _metric(row, name)
        if name.rpartition(".")[2] in NEAR:
            raise InputError(
                f"got --{asked.key} {text!r}, and {name} is against FP32 already; expected "
                f"--{'max' if name.endswith('kl') else 'min'} {name}=NUMBER"
            )
        if metric.difference is None or metric.difference_interval is None:
            raise InputError(
                f"the evaluation does not compare {name} with FP32; measure both in one run: "
                f"mpsearch evaluate MODEL --assignment assignment.json --metric {name}"
            )
        before = abs(metric.value - metric.difference)
        if percent:
            limit *= Fraction(before)
        low, high = sorted(sign * end for end in metric.difference_interval)
        title = f"metric {name} {'above' if sign > 0 else 'below'} FP32's"
        value = sign * metric.difference
        verdicts.append(_verdict(title, value, limit, (low, high), row.n, False))
    return verdicts


def _check_stored(confidence: float) -> None:
    if confidence != CONFIDENCE:
        raise InputError(
            f"got the confidence {confidence:g} and a condition on a metric; the intervals of "
            f"metrics are stored for {CONFIDENCE:g}: leave --confidence out"
        )


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
    quantity: str, value: float, limit: Fraction, interval: tuple[float, float], samples: int,
    at_least: bool,
) -> Verdict:  # fmt: skip
    exact: Number = Fraction(repr(value)) if math.isfinite(value) else Fraction(10**300)
    if value == math.inf and at_least:
        exact = value
    passed = exact >= limit if at_least else exact <= limit
    return Verdict(
        quantity, exact, limit, passed, interval, samples, CONFIDENCE,
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


__all__ = ["Conditions", "Evidence", "Verdict", "judge"]

REFERENCE = "FP32"


def judge(
    conditions: Conditions, evidence: Evidence, confidence: float = 0.95
) -> tuple[Verdict, ...]:
    """Every condition that was asked: size, BOPS, accuracy, drops, nearness to FP32, device,
    metrics, growth.

    Size and BOPS are recomputed from the table when there is one, accuracy and interval from the
    samples. Raises InputError without a condition, for a limit that cannot be read, for evidence
    that is missing, for evidence that contradicts itself, and for a baseline of accuracy on other
    data. A baseline of another architecture is what a growth is against.
    """
    check_confidence(confidence)
    if not conditions.need():
        plain = [one for one in CONDITIONS if "baseline" not in one.needs]
        metrics = ", ".join(f"--{one.key}" for one in plain if one.of_metrics)
        raise InputError(
            "no condition given; expected at least one of "
            f"{', '.join(f'--{one.key}' for one in plain if not one.of_metrics)}, one on a metric "
            f"({metrics}), or one against a baseline"
        )
    measured = conditions.need("accuracy", "outputs", "metrics")
    if conditions.need("accuracy"):
        _check_accuracy(evidence)
    totals = totals_of(evidence, measured)
    verdicts: list[Verdict] = []
    value: Number
    for asked, text in conditions.judged_from("totals"):
        value, limit = total_of(totals, asked.quantity), asked.limit(text, evidence.table)
        verdicts.append(Verdict(asked.quantity, value, limit, value <= limit))
    for asked, text in conditions.judged_from("memory"):
        value, limit = ram_of(evidence, conditions.target), asked.limit(text)
        verdicts.append(Verdict(asked.quantity, value, limit, value <= limit))
    for asked, text in conditions.judged_from("accuracy"):
        verdicts.append(_accuracy(judged_row(evidence), Fraction(asked.limit(text)), confidence))
    for asked, text in conditions.judged_from("accuracy", "fp32"):
        verdicts.append(_drop(evidence, Fraction(asked.limit(text)), confidence))
    for asked, text in conditions.judged_from("outputs", "fp32"):
        verdicts.append(_near(asked, Fraction(asked.limit(text)), evidence, confidence))
    for asked, text in conditions.judged_from("device"):
        value = device_value(evidence, asked.quantity, conditions.latency_mode)
        limit = asked.limit(text)
        verdicts.append(Verdict(asked.quantity, value, limit, value <= limit))
    if conditions.need("metrics"):
        row, evaluations = judged_row(evidence), evidence.evaluations
        reference = None if evaluations is None else evaluations.named(REFERENCE)
        if reference is not None and any(conditions.judged_from("metrics", "fp32")):
            check_pair(evidence, row, reference)
        verdicts += judge_metrics(conditions, row, confidence)
    if conditions.need("baseline"):
        verdicts += _against_baseline(conditions, evidence, totals, confidence)
    return tuple(verdicts)


def _against_baseline(
    conditions: Conditions, evidence: Evidence, totals: Mapping[str, Any], confidence: float
) -> list[Verdict]:
    baseline = evidence.baseline
    if baseline is None:
        raise InputError(
            "there is no baseline to compare with; name one with --baseline main.json, which "
            "`mpsearch gate --update-baseline main.json` writes"
        )
    verdicts: list[Verdict] = []
    value: Number
    for asked, text in conditions.judged_from("accuracy", "baseline"):
        row = judged_row(evidence)
        assert evidence.evaluations is not None
        if baseline.row is None:
            raise InputError(_lacks(baseline, "accuracy", "an evaluation.json or MODEL"))
        check_same_data(baseline, evidence.evaluations.data_digest)
        limit = Fraction(asked.limit(text))
        verdict = _paired(asked.quantity, baseline.row, row, baseline.source, limit, confidence)
        if is_same_network(baseline, identity_of(evidence)) and baseline.row.correct == row.correct:
            verdict = replace(verdict, interval=None, samples=None, needed=None)  # no luck in it
        verdicts.append(verdict)
    for asked, text in conditions.judged_from("totals", "baseline"):
        column = grown(asked.quantity)
        before = baseline.totals.get(column)
        if not before:
            raise InputError(_lacks(baseline, column, "an assignment with its table"))
        value = total_of(totals, column)
        changes = difference(evidence).changes
        verdicts.append(_growth(asked, value, before, text, baseline.source, changes))
    for asked, text in conditions.judged_from("memory", "baseline"):
        before = baseline.totals.get("ram_bytes")
        if not before:
            raise InputError(_lacks(baseline, "RAM", "an assignment and a profile.json"))
        if baseline.ram_target != conditions.target:
            raise InputError(
                f"RAM in {baseline.source} is of {_target(baseline.ram_target)}, and here of "
                f"{_target(conditions.target)}; give the same --target, or write it again with "
                "--update-baseline"
            )
        value = ram_of(evidence, conditions.target)
        verdicts.append(_growth(asked, value, before, text, baseline.source))
    for asked, text in conditions.judged_from("device", "baseline"):
        column, mode = grown(asked.quantity), conditions.latency_mode
        in_file = mode if column == "latency_s" else column
        before = baseline.device.get(in_file)
        if not before:
            lacking = f"{mode} latency" if column == "latency_s" else column
            raise InputError(_lacks(baseline, lacking, "a device.json"))
        value = device_value(evidence, column, mode)
        verdicts.append(_growth(asked, value, before, text, baseline.source))
    return verdicts


def _target(name: str | None) -> str:
    return "any processor" if name is None else name


def _growth(
    asked: Condition, value: Number, before: Number, text: str, source: str,
    changes: tuple[LayerChange, ...] = (),
) -> Verdict:  # fmt: skip
    stored = _exact(before)
    if _exact(value) > stored * 10**100:
        column = grown(asked.quantity)
        raise InputError(f"{source}: {column} of {before!r} is too small to compare with")
    growth, limit = _exact(value) / stored - 1, asked.limit(text)
    return Verdict(
        asked.quantity, growth, limit, growth <= limit, baseline=stored, changes=changes
    )  # fmt: skip


def _exact(value: Number) -> Fraction:
    """The decimal that is printed and stored."""
    return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)


def _lacks(baseline: Baseline, what: str, source: str) -> str:
    return (
        f"{baseline.source} has no {what} to compare with; write it again with "
        f"--update-baseline where there is {source}"
    )


def _check_accuracy(evidence: Evidence) -> None:
    """Raise InputError for a condition on accuracy where there is none."""
    row, evaluations = judged_row(evidence), evidence.evaluations
    if evaluations is not None and not evaluations.labelled:
        raise InputError(
            f"a condition on accuracy needs labels, and {evaluations.data_name} has none",
            "compare with FP32 instead: --min-agreement 98%, --max-kl 0.05 (of classes) or "
            "--min-sqnr 20",
        )
    check_classifies(row, "a condition on accuracy")


def _accuracy(row: Evaluation, limit: Fraction, confidence: float) -> Verdict:
    return _share("accuracy", sum(row.correct), row.n, limit, confidence)


def _share(quantity: str, hits: int, n: int, limit: Fraction, confidence: float) -> Verdict:
    """A share of the samples, by Wilson's interval."""
    value = Fraction(hits, n)
    return Verdict(
        quantity,
        value,
        limit,
        value >= limit,
        wilson_interval(hits, n, confidence=confidence),
        n,
        confidence,
        samples_for_accuracy(value, limit, confidence),
    )


def _near(asked: Condition, limit: Fraction, evidence: Evidence, confidence: float) -> Verdict:
    """How near the outputs are to FP32's on the same samples."""
    row = judged_row(evidence)
    check_pair(evidence, row, _reference(evidence, row))
    metric = row.metrics.get(asked.quantity)
    if metric is None:
        raise InputError(
            f"the row {row.name} of the evaluation does not say its {asked.title}; measure it with "
            f"`mpsearch evaluate … --metric {asked.quantity}`"
        )
    if metric.method == "wilson":
        return _share(asked.quantity, round(metric.value * row.n), row.n, limit, confidence)
    _check_stored(confidence)
    return _verdict(
        asked.quantity, metric.value, limit, metric.interval, row.n, asked.at_least
    )  # fmt: skip


def _drop(evidence: Evidence, limit: Fraction, confidence: float) -> Verdict:
    row = judged_row(evidence)
    reference = _reference(evidence, row)
    check_pair(evidence, row, reference)
    return _paired("drop", reference, row, REFERENCE, limit, confidence)


def _reference(evidence: Evidence, row: Evaluation) -> Evaluation:
    """FP32's row on the samples of `row`."""
    reference = None if evidence.evaluations is None else evidence.evaluations.named(REFERENCE)
    if reference is None or reference.n != row.n:
        raise InputError(
            f"the evaluation has no row {REFERENCE} on the same {row.n} samples, and what is lost "
            "is measured against it; write one with `mpsearch evaluate`"
        )
    return reference


def _paired(
    quantity: str, before: Evaluation, after: Evaluation, name: str, limit: Fraction,
    confidence: float,
) -> Verdict:  # fmt: skip
    """A drop in points between two networks on the same samples, by Tango's interval."""
    if before.n != after.n:
        raise InputError(
            f"{name} was measured on {before.n} samples and the network judged on {after.n}; "
            "measure both on the same data"
        )
    pairs = list(zip(before.correct, after.correct, strict=True))
    lost = sum(one and not other for one, other in pairs)
    won = sum(other and not one for one, other in pairs)
    value = Fraction(lost - won, after.n) * 100
    low, high = drop_interval(lost, won, after.n, confidence)
    return Verdict(
        quantity,
        value,
        limit,
        value <= limit,
        (100 * low, 100 * high),
        after.n,
        confidence,
        samples_for_drop(lost, won, after.n, float(limit) / 100, confidence),
        Paired(name, lost, won, mcnemar_p(lost, won)),
    )

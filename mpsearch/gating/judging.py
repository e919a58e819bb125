"""`gate`: is the network small and accurate enough? One `Verdict` per condition."""

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation, check_classifies
from mpsearch.gating.baseline import Baseline, check_same_data, check_same_model, is_same_network
from mpsearch.gating.evidence import (
    Evidence,
    check_pair,
    device_value,
    identity_of,
    judged_row,
    total_of,
    totals_of,
)
from mpsearch.gating.limits import (
    CONDITIONS,
    Condition,
    Conditions,
    grown,
)
from mpsearch.gating.metrics import judge_metrics
from mpsearch.gating.verdict import Number, Paired, Verdict
from mpsearch.statistics import (
    check_confidence,
    drop_interval,
    mcnemar_p,
    samples_for_accuracy,
    samples_for_drop,
    wilson_interval,
)

__all__ = ["Conditions", "Evidence", "Verdict", "judge"]

REFERENCE = "FP32"


def judge(
    conditions: Conditions, evidence: Evidence, confidence: float = 0.95
) -> tuple[Verdict, ...]:
    """Every condition that was asked: size, BOPS, accuracy, drops, device, metrics, growth.

    Size and BOPS are recomputed from the table when there is one, accuracy and interval from the
    samples. Raises InputError without a condition, for a limit that cannot be read, for evidence
    that is missing, for evidence that contradicts itself, and for a baseline of another model or
    of accuracy on other data.
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
    if evidence.baseline is not None:
        check_same_model(evidence.baseline, identity_of(evidence))
    measured = conditions.need("accuracy", "metrics")
    if conditions.need("accuracy"):
        check_classifies(judged_row(evidence), "a condition on accuracy")
    totals = totals_of(evidence, measured)
    verdicts: list[Verdict] = []
    value: Number
    for asked, text in conditions.judged_from("totals"):
        value, limit = total_of(totals, asked.quantity), asked.limit(text, evidence.table)
        verdicts.append(Verdict(asked.quantity, value, limit, value <= limit))
    for asked, text in conditions.judged_from("accuracy"):
        verdicts.append(_accuracy(judged_row(evidence), Fraction(asked.limit(text)), confidence))
    for asked, text in conditions.judged_from("accuracy", "fp32"):
        verdicts.append(_drop(evidence, Fraction(asked.limit(text)), confidence))
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


def _growth(asked: Condition, value: Number, before: Number, text: str, source: str) -> Verdict:
    stored = _exact(before)
    if _exact(value) > stored * 10**100:
        column = grown(asked.quantity)
        raise InputError(f"{source}: {column} of {before!r} is too small to compare with")
    growth, limit = _exact(value) / stored - 1, asked.limit(text)
    return Verdict(asked.quantity, growth, limit, growth <= limit, baseline=stored)


def _exact(value: Number) -> Fraction:
    """The decimal that is printed and stored."""
    return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)


def _lacks(baseline: Baseline, what: str, source: str) -> str:
    return (
        f"{baseline.source} has no {what} to compare with; write it again with "
        f"--update-baseline where there is {source}"
    )


def _accuracy(row: Evaluation, limit: Fraction, confidence: float) -> Verdict:
    hits = sum(row.correct)
    value = Fraction(hits, row.n)
    return Verdict(
        "accuracy",
        value,
        limit,
        value >= limit,
        wilson_interval(hits, row.n, confidence=confidence),
        row.n,
        confidence,
        samples_for_accuracy(value, limit, confidence),
    )


def _drop(evidence: Evidence, limit: Fraction, confidence: float) -> Verdict:
    row = judged_row(evidence)
    assert evidence.evaluations is not None
    reference = evidence.evaluations.named(REFERENCE)
    if reference is None or reference.n != row.n:
        raise InputError(
            f"the evaluation has no row {REFERENCE} on the same {row.n} samples, and a drop is "
            "measured against it; write one with `mpsearch evaluate`"
        )
    check_pair(evidence, row, reference)
    return _paired("drop", reference, row, REFERENCE, limit, confidence)


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

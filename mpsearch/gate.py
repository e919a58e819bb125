"""`gate`: is the network small and accurate enough? One `Verdict` per condition."""

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from mpsearch.errors import InputError
from mpsearch.evaluation import Evaluation, check_classifies
from mpsearch.gate_baseline import Baseline, check_same_data, check_same_model, is_same_network
from mpsearch.gate_evidence import (
    Evidence,
    check_pair,
    device_value,
    identity_of,
    judged_row,
    total_of,
    totals_of,
)
from mpsearch.gate_limits import (
    ON_ACCURACY,
    ON_BASELINE,
    ON_METRICS,
    Conditions,
    parse_accuracy,
    parse_growth,
    parse_limit,
    parse_points,
)
from mpsearch.gate_metrics import judge_metrics
from mpsearch.gate_statistics import (
    check_confidence,
    drop_interval,
    mcnemar_p,
    samples_for_accuracy,
    samples_for_drop,
    wilson_interval,
)
from mpsearch.gate_verdict import Number, Paired, Verdict

__all__ = ["Conditions", "Evidence", "Verdict", "judge", "parse_accuracy", "parse_points"]

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
    if not conditions.asks():
        raise InputError(
            "no condition given; expected at least one of --max-size, --max-bops, --min-accuracy, "
            "--max-drop, --max-latency, --max-peak-memory, --max-energy, one on a metric (--min, "
            "--max, --max-rise, --max-fall), or one against a baseline"
        )
    if evidence.baseline is not None:
        check_same_model(evidence.baseline, identity_of(evidence))
    measured = conditions.asks(*ON_ACCURACY, *ON_METRICS)
    if conditions.asks(*ON_ACCURACY):
        check_classifies(judged_row(evidence), "a condition on accuracy")
    totals = totals_of(evidence, measured)
    verdicts = []
    for column, text in (("size_bytes", conditions.max_size), ("bops", conditions.max_bops)):
        if text is not None:
            value, limit = total_of(totals, column), parse_limit(evidence.table, column, text)
            verdicts.append(Verdict(column, value, limit, value <= limit))
    if conditions.min_accuracy is not None:
        limit = parse_accuracy(conditions.min_accuracy)
        verdicts.append(_accuracy(judged_row(evidence), limit, confidence))
    if conditions.max_drop is not None:
        verdicts.append(_drop(evidence, parse_points(conditions.max_drop), confidence))
    for column, text in (
        ("latency_s", conditions.max_latency),
        ("peak_memory_bytes", conditions.max_peak_memory),
        ("energy_j", conditions.max_energy),
    ):
        if text is not None:
            exact = device_value(evidence, column, conditions.latency_mode)
            limit = parse_limit(None, column, text)
            verdicts.append(Verdict(column, exact, limit, exact <= limit))
    if conditions.asks(*ON_METRICS):
        row, evaluations = judged_row(evidence), evidence.evaluations
        reference = None if evaluations is None else evaluations.named(REFERENCE)
        if reference is not None and conditions.asks("max_rise", "max_fall"):
            check_pair(evidence, row, reference)
        verdicts += judge_metrics(conditions, row, confidence)
    if conditions.asks(*ON_BASELINE):
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
    verdicts = []
    if conditions.max_drop_baseline is not None:
        row = judged_row(evidence)
        assert evidence.evaluations is not None
        if baseline.row is None:
            raise InputError(_lacks(baseline, "accuracy", "an evaluation.json or MODEL"))
        check_same_data(baseline, evidence.evaluations.data_digest)
        limit = parse_points(conditions.max_drop_baseline)
        verdict = _paired("drop_baseline", baseline.row, row, baseline.source, limit, confidence)
        if is_same_network(baseline, identity_of(evidence)) and baseline.row.correct == row.correct:
            verdict = replace(verdict, interval=None, samples=None, needed=None)  # no luck in it
        verdicts.append(verdict)
    for column, text in (
        ("size_bytes", conditions.max_size_growth),
        ("bops", conditions.max_bops_growth),
    ):
        if text is not None:
            before = baseline.totals.get(column)
            if not before:
                raise InputError(_lacks(baseline, column, "an assignment with its table"))
            value = total_of(totals, column)
            verdicts.append(_growth(column, value, before, text, baseline.source))
    if conditions.max_latency_growth is not None:
        mode = conditions.latency_mode
        before = baseline.device.get(mode)
        if not before:
            raise InputError(_lacks(baseline, f"{mode} latency", "a device.json"))
        latency = device_value(evidence, "latency_s", mode)
        text = conditions.max_latency_growth
        verdicts.append(_growth("latency_s", latency, before, text, baseline.source))
    return verdicts


def _growth(column: str, value: Number, before: Number, text: str, source: str) -> Verdict:
    stored = _exact(before)
    if _exact(value) > stored * 10**100:
        raise InputError(f"{source}: {column} of {before!r} is too small to compare with")
    growth, limit = _exact(value) / stored - 1, parse_growth(text)
    return Verdict(f"{column}_growth", growth, limit, growth <= limit, baseline=stored)


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

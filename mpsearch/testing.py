"""For tests of others: whether a solver is right, and whether a network keeps its budget."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mpsearch.conformance import TOLERANCE, Conformance, check_solver, examine_solver

if TYPE_CHECKING:
    from mpsearch.assignment import Assignment
    from mpsearch.gate_verdict import Verdict
    from mpsearch.table import LayerTable

__all__ = ["TOLERANCE", "Conformance", "assert_budget", "check_solver", "examine_solver"]


def assert_budget(
    subject: "Assignment | str | os.PathLike[str]",
    table: "LayerTable | str | os.PathLike[str] | None" = None,
    *,
    max_size: str | int | None = None,
    max_bops: str | int | None = None,
    min_accuracy: str | float | None = None,
    max_drop: str | float | None = None,
    max_latency: str | float | None = None,
    max_peak_memory: str | int | None = None,
    max_energy: str | float | None = None,
    max_drop_baseline: str | float | None = None,
    max_size_growth: str | None = None,
    max_bops_growth: str | None = None,
    max_latency_growth: str | None = None,
    min_metrics: Mapping[str, str | float] | None = None,
    max_metrics: Mapping[str, str | float] | None = None,
    max_rise: Mapping[str, str | float] | None = None,
    max_fall: Mapping[str, str | float] | None = None,
    evaluation: str | os.PathLike[str] | None = None,
    device: str | os.PathLike[str] | None = None,
    baseline: str | os.PathLike[str] | None = None,
    data: str | None = None,
    losses: Sequence[str] = (),
    fp32: str | os.PathLike[str] | None = None,
    confidence: float = 0.95,
    strict: bool = False,
    unverified: bool = False,
) -> "tuple[Verdict, ...]":
    """`mpsearch gate` for a test: raise AssertionError with its table unless every condition holds.

        assert_budget("assignment.json", "profile.csv", max_size="145KB")
        assert_budget("quantized.pt", data="test.npz", fp32="model.pt", max_drop=1.0, strict=True)
        assert_budget("quantized.pt", data="test.npz", fp32="model.pt", max_rise={"mse": "10%"})

    subject: an Assignment, an assignment.json, or a file of `mpsearch apply`, which is measured
    here and now. Limits as on the command line; a plain number is in bytes, operations, a share
    from 0 to 1 (accuracy), points (drops), seconds or joules. min_metrics, max_metrics: limits of
    other metrics, such as {"f1": 0.9}; max_rise, max_fall: of their difference from FP32's. losses:
    as `mpsearch evaluate --loss`. unverified: also take files that do not say which network they
    are of, as older versions wrote them. Nothing is read but what is named. Returns the verdicts.
    Raises InputError for what cannot be judged.
    """
    from mpsearch.assignment import Assignment
    from mpsearch.gate import Conditions, judge
    from mpsearch.gate_metrics import wanted_metrics
    from mpsearch.gate_reading import Sources, read_evidence
    from mpsearch.gate_report import Report
    from mpsearch.table import LayerTable

    def text(value: str | float | None, unit: str = "") -> str | None:
        return value if value is None or isinstance(value, str) else f"{value!r}{unit}"

    def limits(values: Mapping[str, str | float] | None) -> tuple[str, ...] | None:
        return None if values is None else tuple(f"{name}={text(v)}" for name, v in values.items())

    def path(value: object) -> str | None:
        return os.fspath(value) if isinstance(value, str | os.PathLike) else None

    named = path(subject)
    model = None
    if named is not None and not named.endswith(".json"):
        from mpsearch.model_files import ModelSource  # imports torch

        model, named = ModelSource(named), None
    conditions = Conditions(
        max_size=text(max_size, "B"),
        max_bops=text(max_bops),
        min_accuracy=text(min_accuracy),
        max_drop=text(max_drop),
        max_latency=text(max_latency),
        max_peak_memory=text(max_peak_memory, "B"),
        max_energy=text(max_energy),
        max_drop_baseline=text(max_drop_baseline),
        max_size_growth=max_size_growth,
        max_bops_growth=max_bops_growth,
        max_latency_growth=max_latency_growth,
        min=limits(min_metrics),
        max=limits(max_metrics),
        max_rise=limits(max_rise),
        max_fall=limits(max_fall),
    )
    sources = Sources(
        assignment=named,
        evaluation=path(evaluation),
        device=path(device),
        table=path(table),
        baseline=path(baseline),
        model=model,
        data=data,
        fp32=path(fp32),
        metrics=wanted_metrics(conditions),
        losses=tuple(losses),
        unverified=unverified,
    )
    evidence = read_evidence(sources, usual=False)
    if isinstance(subject, Assignment):
        evidence = replace(evidence, assignment=subject)
    if isinstance(table, LayerTable):
        evidence = replace(evidence, table=table)
    verdicts = judge(conditions, evidence, confidence)
    report = Report(verdicts, evidence, "strict" if strict else "measured", confidence)
    if report.says_no:
        raise AssertionError(report.text())
    return verdicts

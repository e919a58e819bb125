"""For tests of others: whether a solver is right, and whether a network keeps its budget."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpsearch.testing.conformance import TOLERANCE, Conformance, check_solver, examine_solver

if TYPE_CHECKING:
    from typing import Unpack

    from mpsearch.gating.conditions import Limits
    from mpsearch.gating.words import Verdict
    from mpsearch.tables.assignment import Assignment
    from mpsearch.tables.table import LayerTable

__all__ = ["TOLERANCE", "Conformance", "assert_budget", "check_solver", "examine_solver"]


def assert_budget(
    subject: "Assignment | str | os.PathLike[str]",
    table: "LayerTable | str | os.PathLike[str] | None" = None,
    *,
    evaluation: str | os.PathLike[str] | None = None,
    device: str | os.PathLike[str] | None = None,
    baseline: str | os.PathLike[str] | None = None,
    data: str | None = None,
    losses: Sequence[str] = (),
    fp32: str | os.PathLike[str] | None = None,
    confidence: float = 0.95,
    strict: bool = False,
    unverified: bool = False,
    **limits: "Unpack[Limits]",
) -> "tuple[Verdict, ...]":
    """`mpsearch gate` for a test: raise AssertionError with its table unless it says yes.

        assert_budget("assignment.json", "profile.csv", max_size="145KB")
        assert_budget("quantized.pt", data="test.npz", fp32="model.pt", max_drop=1.0, strict=True)
        assert_budget("quantized.pt", data="test.npz", fp32="model.pt", max_rise={"mse": "10%"})

    subject: an Assignment, an assignment.json, or a file of `mpsearch apply`, which is measured
    here and now. limits: as on the command line, max_size, max_bops, min_accuracy, max_drop,
    min_agreement and so on; a plain number is in bytes, operations, percent (accuracy, agreement),
    points (drops), decibels, nats, seconds or joules. min_metrics, max_metrics: limits of other
    metrics, such as {"f1": 0.9}; max_rise, max_fall: of their difference from FP32's. losses: as
    `mpsearch evaluate --loss`. unverified: also take files that do not say which network they are
    of, as older versions wrote them. Nothing is read but what is named. Returns the verdicts.
    Raises InputError for what cannot be judged.
    """
    from mpsearch.gating.report import gate

    report = gate(
        subject, table, evaluation=evaluation, device=device, baseline=baseline, data=data,
        losses=losses, fp32=fp32, confidence=confidence, unverified=unverified,
        policy="strict" if strict else "measured", **limits,
    )  # fmt: skip
    if report.says_no:
        raise AssertionError(report.text())
    return report.verdicts

"""`GateReport`: everything that one run of the gate found, for whoever prints it."""

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mpsearch.comparing.baseline import Baseline, save_baseline
from mpsearch.device.profile import Mode, device_figure
from mpsearch.errors import InputError
from mpsearch.gating.conditions import Conditions, Limits
from mpsearch.gating.evidence import (
    Evidence,
    identity_of,
    judged_layers,
    judged_row,
    matching_device,
    totals_of,
)
from mpsearch.gating.judging import judge, wanted_metrics
from mpsearch.gating.memory import ram_of
from mpsearch.gating.next_steps import next_steps
from mpsearch.gating.sources import Sources, read_evidence
from mpsearch.gating.words import (
    Number,
    Policy,
    Verdict,
    conclusion,
    notes_of,
    row_of,
    says_no,
    sentence,
)
from mpsearch.running.notebook import html_table
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.table import LayerTable

if TYPE_CHECKING:
    from typing import Unpack


@dataclass(frozen=True)
class GateReport:
    """What one run of the gate found."""

    verdicts: tuple[Verdict, ...]
    """One for each condition."""
    evidence: Evidence
    """What is known of the network: its assignment, evaluations, device figures, baseline."""
    policy: Policy = "measured"
    """What an inconclusive condition does: `measured`, `strict` or `lenient`."""
    confidence: float = 0.95
    """Of the intervals: 0.95."""
    config: str | None = None
    """The file that conditions came from; None: no file."""
    update: tuple[str, bool] | None = None
    """The baseline's path, and whether it was written; None where that was not asked for."""
    remarks: tuple[str, ...] = ()
    """Further notes, a sentence each."""

    @property
    def says_no(self) -> bool:
        """Whether the exit code is 1."""
        return says_no(self.verdicts, self.policy)

    @cached_property
    def notes(self) -> list[str]:
        """What a reader should know."""
        return [*self.remarks, *notes_of(self.verdicts, self.evidence, self.policy)]

    @cached_property
    def next_steps(self) -> list[str]:
        """What to do about each condition that stops the network, with a command."""
        return next_steps(self.verdicts, self.evidence, self.policy)

    @property
    def conclusion(self) -> str:
        """Yes or no in one line."""
        return conclusion(self.verdicts, self.policy)

    def with_update(self, update: tuple[str, bool] | None) -> "GateReport":
        """The same with what became of the baseline."""
        return replace(self, update=update)

    def text(self) -> str:
        """Conclusion, one line per condition and the notes, as plain text."""
        lines = [self.conclusion]
        lines += [f"  {v.outcome.upper():<12}  {sentence(v)}" for v in self.verdicts]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join([*lines, *(f"  next: {step}" for step in self.next_steps)])

    def __repr__(self) -> str:
        met = sum(verdict.passed for verdict in self.verdicts)
        return f"GateReport({self.conclusion}; {met} of {len(self.verdicts)} conditions met)"

    def _repr_html_(self) -> str:
        """For notebooks: what `mpsearch gate` prints."""
        rows = [
            [row.outcome, row.condition, row.measured, row.limit, row.interval]
            for row in map(row_of, self.verdicts)
        ]
        columns = ["", "condition", "measured", "limit", "interval"]
        return html_table([self.conclusion, *self.notes], columns, rows)

    def document(self) -> dict[str, Any]:
        """The report as JSON. `passed` of a condition: it does not stop the network."""
        baseline = self.evidence.baseline
        return {
            "passed": not self.says_no,
            "policy": self.policy,
            "confidence": self.confidence,
            "config": self.config,
            "baseline": None if baseline is None else baseline.source,
            "conditions": [_condition(verdict, self.policy) for verdict in self.verdicts],
            "notes": self.notes,
            "next": self.next_steps,
            "wrote": self.update[0] if self.update is not None and self.update[1] else None,
        }


Report = GateReport  # in this room no other is near


def gate(
    subject: Assignment | str | os.PathLike[str],
    table: LayerTable | str | os.PathLike[str] | None = None,
    *,
    evaluation: str | os.PathLike[str] | None = None,
    device: str | os.PathLike[str] | None = None,
    baseline: str | os.PathLike[str] | None = None,
    data: str | None = None,
    losses: Sequence[str] = (),
    fp32: str | os.PathLike[str] | None = None,
    confidence: float = 0.95,
    policy: Policy = "measured",
    unverified: bool = False,
    **limits: "Unpack[Limits]",
) -> GateReport:
    """Judge a network as `mpsearch gate` does; `says_no` of what comes back is its exit code 1.

    subject: an Assignment, an assignment.json, or a file of `mpsearch apply`, which is measured
    here and now. limits: as on the command line, max_size, max_bops, min_accuracy, max_drop,
    min_agreement and so on; a plain number is in bytes, operations, percent (accuracy, agreement),
    points (drops), decibels, nats, seconds or joules; min_metrics, max_metrics, max_rise, max_fall
    by metric: {"f1": 0.9}. losses: as `mpsearch evaluate --loss`. policy: what an inconclusive
    condition does, `measured` (the value decides), `strict` (it stops) or `lenient`. unverified:
    also take files that do not say which network they are of. Nothing is read but what is named.
    Raises InputError for what cannot be judged.
    """

    def path(value: object) -> str | None:
        return os.fspath(value) if isinstance(value, str | os.PathLike) else None

    named = path(subject)
    model = None
    if named is not None and not named.endswith(".json"):
        from mpsearch.importers.loading import ModelSource  # imports torch

        model, named = ModelSource(named), None
    conditions = Conditions.of(limits)
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
    measure = conditions.need("accuracy", "outputs", "metrics")
    evidence = read_evidence(sources, usual=False, measure=measure)
    if isinstance(subject, Assignment):
        evidence = replace(evidence, assignment=subject)
    if isinstance(table, LayerTable):
        evidence = replace(evidence, table=table)
    return GateReport(judge(conditions, evidence, confidence), evidence, policy, confidence)


def _condition(verdict: Verdict, policy: Policy) -> dict[str, Any]:
    paired = verdict.paired
    return {
        "quantity": verdict.quantity,
        "value": _number(verdict.value),
        "limit": _number(verdict.limit),
        "passed": not verdict.stops(policy),
        "met": verdict.passed,
        "outcome": verdict.outcome,
        "decided": verdict.decided,
        "interval": verdict.interval and [_number(end) for end in verdict.interval],
        "samples": verdict.samples,
        "needed_samples": verdict.needed,
        "baseline": None if verdict.baseline is None else _number(verdict.baseline),
        "changes": [change.to_json() for change in verdict.changes],
        "paired": None if paired is None else {
            "reference": paired.reference,
            "lost": paired.lost,
            "won": paired.won,
            "mcnemar_p": paired.p_no_drop,
        },
    }  # fmt: skip


def _number(value: Number) -> int | float | None:
    """None for what is infinite, which JSON does not know."""
    if isinstance(value, int):
        return value
    return float(value) if math.isfinite(value) else None


def baseline_of(
    evidence: Evidence, path: str | os.PathLike[str], target: str | None = None
) -> Baseline:
    """Write what is known as the baseline. Raises InputError where files contradict each other, and
    where nothing is known; figures of a device that do not count are left out."""
    row = None if evidence.evaluations is None else judged_row(evidence)
    totals = totals_of(evidence, measured=row is not None)
    evaluations = evidence.evaluations
    known = {name: totals[name] for name in ("size_bytes", "bops") if name in totals}
    with contextlib.suppress(InputError):  # not every network has an integer form
        known["ram_bytes"] = ram_of(evidence, target)
    baseline = Baseline(
        identity=identity_of(evidence),
        totals=known,
        ram_target=target if "ram_bytes" in known else None,
        device=_device_figures(evidence),
        device_host=None if evidence.device is None else evidence.device.host,
        row=row,
        data_name=None if evaluations is None else evaluations.data_name,
        data_digest=None if evaluations is None else evaluations.data_digest,
        held_out=evaluations is None or evaluations.held_out,
        source=os.fspath(path),
        layers=judged_layers(evidence),
    )
    save_baseline(baseline, path)
    return baseline


def _device_figures(evidence: Evidence) -> Mapping[str, float]:
    """What the device took; figures that were not measured, or do not count, are left out."""
    if evidence.device is None:
        return {}
    device = matching_device(evidence)
    wanted: tuple[tuple[str, str, Mode], ...] = (
        ("steady", "latency_s", "steady"),
        ("process", "latency_s", "process"),
        ("cold", "latency_s", "cold"),
        ("peak_memory_bytes", "peak_memory_bytes", "steady"),
        ("energy_j", "energy_j", "steady"),
        ("instructions", "instructions", "steady"),
    )
    figures = {}
    for key, column, mode in wanted:
        with contextlib.suppress(InputError):
            figures[key] = device_figure(device, column, mode)
    return figures

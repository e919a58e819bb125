"""A run reported, and judged by the gate, from what is in memory or in files."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from mpsearch.errors import InputError, did_you_mean
from mpsearch.evaluation.evaluation import Evaluation, Evaluations
from mpsearch.gating.conditions import Conditions, Limits
from mpsearch.gating.judging import judge, wanted_metrics
from mpsearch.gating.report import GateReport
from mpsearch.gating.report import gate as gate_files
from mpsearch.gating.sources import Sources, read_evidence
from mpsearch.gating.words import Policy
from mpsearch.pareto.front import Front
from mpsearch.python.limits import as_losses, as_table
from mpsearch.reports.facts import Point
from mpsearch.reports.gather import fp32_facts, uniform_points
from mpsearch.reports.run_folder import Run
from mpsearch.reports.writing import Reported, plot_front
from mpsearch.reports.writing import report as write_report
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.solution import Solution

if TYPE_CHECKING:
    from typing import Unpack

REPORT_FORMATS = ("html", "md", "json")
Path = str | os.PathLike[str]


def gate(
    subject: Any,
    table: Any = None,
    *,
    data: Any = None,
    fp32: Any = None,
    loss: Any = None,
    evaluation: Evaluations | Path | None = None,
    device: Path | None = None,
    baseline: Path | None = None,
    confidence: float = 0.95,
    policy: Policy = "measured",
    unverified: bool = False,
    **limits: "Unpack[Limits]",
) -> GateReport:
    """Judge a network as `mpsearch gate` does; `says_no` of what comes back is its exit code 1.

    subject: what `solve`, `apply` or `finetune` returned, an Assignment, an assignment.json, or a
    quantized file. With `data`, in any form, it is measured here and now, beside `fp32`, the float
    model (by default the one that it was made from in this program); or `evaluation` says what was
    measured. table: the one that an Assignment was solved from. limits: as on the command line,
    max_size="45KB", max_bops, min_accuracy="90%", max_drop=1.0, min_agreement and so on; a plain
    number is in bytes, operations, percent (accuracy, agreement), points (drops), decibels, nats,
    seconds or joules; min_metrics, max_metrics, max_rise, max_fall by metric: {"f1": 0.9}. device,
    baseline: files. policy: what an inconclusive condition does, `measured` (the value decides),
    `strict` (it stops) or `lenient`. unverified: also take files that do not say which network they
    are of. Nothing is read but what is named. Raises InputError for what cannot be judged.

    >>> mpsearch.gate(solution, max_size="60%").says_no
    False
    >>> mpsearch.gate(quantized, data=(x, y), max_size="1KB", min_accuracy="10%").says_no
    False
    """
    conditions = Conditions.of(limits)
    if isinstance(subject, Solution) and table is None:
        table = subject.table
    table = None if table is None else as_table(table)
    in_files = all(isinstance(one, str | os.PathLike | None) for one in (data, fp32, evaluation))
    if in_files and isinstance(subject, str | os.PathLike):
        return gate_files(
            subject, table, evaluation=cast("Path | None", evaluation),
            device=device, baseline=baseline, data=None if data is None else os.fspath(data),
            losses=as_losses(loss), fp32=fp32, confidence=confidence, policy=policy,
            unverified=unverified, **limits,
        )  # fmt: skip
    stored = None if isinstance(evaluation, Evaluations) else evaluation
    named = [None if one is None else os.fspath(one) for one in (stored, device, baseline)]
    evidence = read_evidence(
        Sources(
            evaluation=named[0], device=named[1], baseline=named[2],
            metrics=wanted_metrics(conditions), unverified=unverified,
        ),
        usual=False,
    )  # fmt: skip
    found = evaluation if isinstance(evaluation, Evaluations) else evidence.evaluations
    if isinstance(subject, Assignment) or (isinstance(subject, Solution) and data is None):
        chosen = subject.to_assignment() if isinstance(subject, Solution) else subject
    else:
        from mpsearch.python.measuring import measured_now  # imports torch

        metrics = wanted_metrics(conditions)
        chosen, now = measured_now(subject, data, fp32, as_losses(loss), metrics)
        found = now or found
        evidence = replace(evidence, measured=now is not None)
    evidence = replace(
        evidence, assignment=chosen, table=table, evaluations=found,
        model_digest=chosen.model_digest,
    )  # fmt: skip
    return GateReport(judge(conditions, evidence, confidence), evidence, policy, confidence)


def report(
    run: Path | Solution | Assignment = ".",
    output: Path | None = None,
    format: str | None = None,
    figures: Path | None = None,
    files: Mapping[str, str | None] | None = None,
    *,
    table: Any = None,
    front: Front | None = None,
    evaluation: Evaluations | Evaluation | None = None,
) -> Reported:
    """Write one self-contained page about a run, as `mpsearch report` does.

    run: a folder with the files of a run, or what `solve` returned, with a front and evaluations if
    they are there. output: default `report.html` (`.md`, `.json`) in the folder; format: `html`,
    `md` or `json`, default: as `output` ends. figures: a folder that gets every figure as .svg,
    .pdf and .png. files: others than the usual ones in the folder, by piece: profile, assignment,
    front, evaluation, device. Raises InputError where there is nothing to report, and for a named
    file that is damaged or not there.

    >>> mpsearch.report(solution, "report.md", front=table.front()).written
    ('report.md',)
    """
    if format not in (None, *REPORT_FORMATS):
        close = did_you_mean(format, REPORT_FORMATS)
        raise InputError(f"got the format {format!r}{close}; expected {', '.join(REPORT_FORMATS)}")
    if isinstance(run, str | os.PathLike):
        if table is not None or front is not None or evaluation is not None:
            raise InputError(
                "got a folder beside objects; expected report(folder, files={'front': path}), or "
                "report(solution, front=…, evaluation=…)"
            )
        return write_report(run, output, format, figures, files)
    if not isinstance(run, Solution | Assignment):
        raise InputError(
            f"got {type(run).__name__} for the run; expected a folder, or what mpsearch.solve "
            "returned"
        )
    searched = table if table is not None else getattr(run, "table", None)
    searched = None if searched is None else as_table(searched)
    if isinstance(evaluation, Evaluation):
        raise InputError(
            "got one measured network; expected several on the same data: "
            'mpsearch.evaluate({"FP32": model, "assignment": quantized}, data)'
        )
    gathered = Run(
        table=searched,
        provenance={} if searched is None else searched.provenance,
        assignment=run.to_assignment() if isinstance(run, Solution) else run,
        front=front,
        evaluations=evaluation,
        in_memory=True,
    )
    return write_report(gathered, output, format, figures)


@dataclass(frozen=True)
class Picture:
    """A figure that a notebook shows."""

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return "Picture(an SVG that a notebook shows; .plot('front.png') writes a file)"


def plot(front: Front, path: Path | None = None) -> Picture | None:
    """Ω against the front's resource, and measured accuracies above, as `mpsearch front --plot`.

    path: write this file (.png, .svg or .pdf) instead of returning what a notebook shows. Needs
    matplotlib. Raises InputError for an empty front and another ending.
    """
    uniform: tuple[Point, ...] = ()
    fp32 = None
    if front.table is not None:
        uniform = uniform_points(front.table)
        fp32 = fp32_facts(Run(provenance=front.table.provenance), front)
    if path is not None:
        plot_front(front, path, uniform, fp32)
        return None
    with TemporaryDirectory() as folder:
        file = os.path.join(folder, "front.svg")
        plot_front(front, file, uniform, fp32)
        with open(file, encoding="utf-8") as stream:
            return Picture(stream.read())

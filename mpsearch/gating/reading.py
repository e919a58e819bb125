"""Reading the gate's evidence: files that are named or usual, or a measurement made now."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpsearch.device.profile import load_device_profile
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluations, load_evaluations
from mpsearch.gating.baseline import load_baseline
from mpsearch.gating.evidence import Evidence
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.finding import table_of
from mpsearch.tables.provenance import load_provenance, model_digest_of
from mpsearch.tables.table import LayerTable

if TYPE_CHECKING:
    from mpsearch.importers.loading import ModelSource

USUAL = {
    "assignment": "assignment.json",
    "evaluation": "evaluation.json",
    "device": "device.json",
    "table": "profile.csv",
}


@dataclass(frozen=True)
class Sources:
    """Paths; None: the usual file where it is there.

    network: the row of the evaluation that is judged. model: measure this one now, on `data` or
    the sample that it carries, instead of reading an evaluation; metrics, losses: then by these.
    unverified: take evidence that does not say what it is of.
    """

    assignment: str | None = None
    evaluation: str | None = None
    device: str | None = None
    table: str | None = None
    baseline: str | None = None
    network: str | None = None
    model: "ModelSource | None" = None
    data: str | None = None
    calibration: str | None = None
    fp32: str | None = None
    batch_size: int = 64
    metrics: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    unverified: bool = False


def read_evidence(sources: Sources, on_device: bool = False, usual: bool = True) -> Evidence:
    """Everything that is there. Raises InputError for what is named and is not, or is damaged.

    on_device: also look for the usual device.json; usual: look for usual files at all.
    """

    def path(piece: str, named: str | None) -> str | None:
        there = usual and Path(USUAL[piece]).exists()
        return named or (USUAL[piece] if there else None)

    assignment_path = sources.assignment
    if sources.network is None:
        assignment_path = path("assignment", assignment_path)
    assignment = Assignment.load(assignment_path) if assignment_path else None
    table_path, remarks = sources.table, []
    if table_path is None and usual:
        found = table_of(assignment, USUAL["table"], Path(assignment_path or ".").parent)
        table_path = None if found is None else str(found)
        if table_path not in (None, USUAL["table"]):
            remarks.append(f"the assignment was solved from {table_path}, which is its table here")
    device_path = path("device", sources.device) if on_device else sources.device
    evaluations, digest = None, None
    if sources.model is not None:
        evaluations, assignment, digest = _measure(
            sources, sources.model, assignment_path, assignment
        )
    elif sources.data is not None or sources.fp32 is not None or sources.calibration is not None:
        raise InputError(
            "--data, --calibration and --fp32 say how to measure, and there is nothing to measure; "
            "expected `mpsearch gate MODEL --data D`"
        )
    else:
        evaluation_path = path("evaluation", sources.evaluation)
        evaluations = load_evaluations(evaluation_path) if evaluation_path else None
    if digest is None and table_path is not None:
        digest = model_digest_of(load_provenance(table_path))
    return Evidence(
        assignment=assignment,
        table=LayerTable.read_csv(table_path) if table_path else None,
        evaluations=evaluations,
        network=sources.network,
        device=load_device_profile(device_path) if device_path else None,
        baseline=load_baseline(sources.baseline) if sources.baseline else None,
        model_digest=digest,
        measured=sources.model is not None,
        unverified=sources.unverified,
        remarks=tuple(remarks),
    )


def _measure(
    sources: Sources, model: "ModelSource", path: str | None, assignment: Assignment | None
) -> tuple[Evaluations, Assignment | None, str | None]:
    """What `evaluate` measures: a float network at the assignment, or a quantized file as it is.
    With it the assignment of what was measured, and the digest of its weights."""
    from mpsearch.evaluation.subjects import EvaluationRequest, run
    from mpsearch.importers.kinds import QUANTIZED, detect

    quantized = detect(model.path) == QUANTIZED
    evaluations = run(EvaluationRequest(
        model, None if quantized else path, data=sources.data, calibration=sources.calibration,
        fp32=sources.fp32, batch_size=sources.batch_size, losses=sources.losses,
        metrics=sources.metrics,
    ))  # fmt: skip
    row = evaluations.rows[-1]  # after FP32's, where that was measured too
    own = row.origin.layers
    if quantized and own is not None:
        if assignment is not None and dict(assignment.layers) != dict(own):
            raise InputError(
                f"{model.path} has other bits than the assignment; apply this assignment, or name "
                "the one that was applied with --assignment"
            )
        stated = {"size_bytes": row.size_bytes, "bops": row.bops}
        totals = {name: total for name, total in stated.items() if total is not None}
        assignment = assignment or Assignment(own, totals=totals)
    return evaluations, assignment, row.origin.model

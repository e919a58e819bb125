"""Reading the gate's evidence: files that are named or usual, or a measurement made now."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpsearch.comparing.baseline import (
    load_baseline,
)
from mpsearch.comparing.layers import NetworkLayer
from mpsearch.device.profile import load_device_profile
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluations, load_evaluations
from mpsearch.foreign_tables.reading import read_again
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import (
    load_provenance,
    model_digest_of,
    table_of,
)

if TYPE_CHECKING:
    from mpsearch.importers.loading import ModelSource


from mpsearch.gating.evidence import USUAL_ASSIGNMENT, Evidence

USUAL = {
    "assignment": USUAL_ASSIGNMENT,
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


def read_evidence(
    sources: Sources, on_device: bool = False, usual: bool = True, measure: bool = True
) -> Evidence:
    """Everything that is there. Raises InputError for what is named and is not, or is damaged.

    on_device: also look for the usual device.json; usual: look for usual files at all. measure:
    figures of samples are needed, so that a model is measured; else only read.
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
    evaluations, digest, layers = None, None, None
    if sources.model is not None:
        if measure or sources.data is not None or sources.fp32 is not None:
            evaluations, assignment, digest = _measure(
                sources, sources.model, assignment_path, assignment
            )
        if evaluations is None or (table_path is None and assignment is not None):
            layers, assignment, digest = _read_model(sources.model, assignment)
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
        table=read_again(table_path, {} if assignment is None else assignment.search)
        if table_path
        else None,
        evaluations=evaluations,
        network=sources.network,
        device=load_device_profile(device_path) if device_path else None,
        baseline=load_baseline(sources.baseline) if sources.baseline else None,
        model_digest=digest,
        measured=sources.model is not None,
        unverified=sources.unverified,
        remarks=tuple(remarks),
        layers=layers,
        source=_judged_file(sources, assignment_path),
    )


def _judged_file(sources: Sources, assignment_path: str | None) -> str:
    """The file whose bits are judged: of a float model they stand in the assignment."""
    model = sources.model
    if model is None:
        return assignment_path or USUAL_ASSIGNMENT
    from mpsearch.importers.kinds import QUANTIZED, detect

    return model.path if detect(model.path) == QUANTIZED else assignment_path or model.path


def _read_model(
    source: "ModelSource", assignment: Assignment | None
) -> tuple[Mapping[str, NetworkLayer], Assignment, str | None]:
    """Layers, assignment and weights of a model's file, which needs no data.

    Raises InputError for a float model without an assignment, or with one of other layers, and for
    a quantized file of other bits than the assignment.
    """
    from mpsearch.comparing.networks import layers_of_network, read_model
    from mpsearch.quantization.quantized import check_assignment

    found = read_model(source)
    if found.choices is not None:
        _check_applied(source.path, found.choices, assignment)
        assignment = assignment or Assignment(found.choices)
    elif assignment is None:
        raise InputError(
            f"{source.path} is a float model, and no assignment says its bits; name one with "
            "--assignment, or give the file that `mpsearch apply` wrote"
        )
    check_assignment(found.network, assignment)
    return layers_of_network(found.network, assignment.layers), assignment, found.model_digest


def _check_applied(path: str, own: Mapping[str, Choice], assignment: Assignment | None) -> None:
    if assignment is not None and dict(assignment.layers) != dict(own):
        raise InputError(
            f"{path} has other bits than the assignment; apply this assignment, or name "
            "the one that was applied with --assignment"
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
        _check_applied(model.path, own, assignment)
        stated = {"size_bytes": row.size_bytes, "bops": row.bops}
        totals = {name: total for name, total in stated.items() if total is not None}
        assignment = assignment or Assignment(own, totals=totals)
    return evaluations, assignment, row.origin.model

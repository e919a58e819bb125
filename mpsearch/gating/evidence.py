"""What the gate knows of a network, and whether it fits together.

Reading the gate's evidence: files that are named or usual, or a measurement made now.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpsearch.comparing.baseline import (
    Baseline,
    Difference,
    Identity,
    difference_from,
    layers_digest,
    load_baseline,
    shapes_digest,
)
from mpsearch.comparing.layers import NetworkLayer, layers_of, totals_of_layers
from mpsearch.device.profile import DeviceProfile, Mode, device_figure, load_device_profile
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation, Evaluations, load_evaluations
from mpsearch.tables.assignment import Assignment, contradictions, recomputed_totals
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import (
    Judged,
    check_bits,
    check_tied,
    check_weights,
    is_of_another,
    load_provenance,
    model_digest_of,
    network_digest,
    not_its_table,
    table_of,
)
from mpsearch.tables.table import LayerTable

if TYPE_CHECKING:
    from mpsearch.importers.loading import ModelSource


USUAL_ASSIGNMENT = "assignment.json"
DEFAULT_NETWORKS = ("assignment", "quantized")


@dataclass(frozen=True)
class Evidence:
    """What is known of the network; None: not at hand.

    Size and BOPS are those of the assignment, or without one those of the evaluation's row.
    network: the name of that row; None: `assignment` or `quantized`. model_digest: of operators and
    weights, by the table's profile.json. measured: the model itself is judged, whose digest that is
    then, and an evaluation was made now. layers: of the model's file, where there is no table.
    unverified: figures that do not say what they are of count too. remarks: how the files were
    found. source: the file that says the bits, for messages.
    """

    assignment: Assignment | None = None
    table: LayerTable | None = None
    evaluations: Evaluations | None = None
    network: str | None = None
    device: DeviceProfile | None = None
    baseline: Baseline | None = None
    model_digest: str | None = None
    measured: bool = False
    unverified: bool = False
    remarks: tuple[str, ...] = ()
    layers: Mapping[str, NetworkLayer] | None = None
    source: str = USUAL_ASSIGNMENT


def judged_network(evidence: Evidence) -> Judged:
    """Weights and bits that figures have to be of, as far as they are known.

    A model that is measured now is what is judged, also at an assignment that was solved before it
    was trained again; otherwise what the assignment and its table say.
    """
    assignment, models = evidence.assignment, {}
    if evidence.model_digest is not None:
        models["the model" if evidence.measured else "the table"] = evidence.model_digest
    if not evidence.measured and assignment is not None and assignment.model_digest is not None:
        models["the assignment"] = assignment.model_digest
    return Judged(models, None if assignment is None else assignment.layers)


def identity_of(evidence: Evidence) -> Identity:
    """Digests of what is judged, as far as it is known."""
    table, assignment = evidence.table, evidence.assignment
    names, weights = None, evidence.model_digest
    if assignment is not None:
        weights = weights or assignment.model_digest
        names = layers_digest(assignment.layers)
    elif table is not None:
        names = layers_digest(dict.fromkeys(table.layer_names))
    return Identity(
        layers=names,
        shapes=None if table is None else shapes_digest(table),
        weights=weights,
        table=None if table is None else table.digest,
        assignment=None if assignment is None else network_digest(assignment.layers),
    )


def judged_layers(evidence: Evidence) -> Mapping[str, NetworkLayer]:
    """The layers of what is judged, as far as they are known."""
    if evidence.table is None and evidence.layers is not None:
        return evidence.layers
    return layers_of(evidence.assignment, evidence.table)


def difference(evidence: Evidence) -> Difference:
    """How what is judged differs from the network of the baseline, where there is one."""
    if evidence.baseline is None:
        return Difference(None)
    return difference_from(evidence.baseline, identity_of(evidence), judged_layers(evidence))


def matching_device(evidence: Evidence) -> DeviceProfile:
    """The stored measurement, which must be of the assignment that is judged."""
    if evidence.device is None:
        raise InputError(
            "there is no device.json to take figures of a device from; write one with `mpsearch "
            "device run EXPORT --host HOST`, or name yours with --device-file"
        )
    check_device(evidence.device, judged_network(evidence), evidence.unverified)
    row = find_row(evidence)
    ran = None if row is None else row.origin.quantized
    exported = evidence.device.quantized_digest
    if None not in (ran, exported) and ran != exported:
        raise InputError(
            f"the profile of {evidence.device.host} is of another quantized file than the "
            "accuracy: their integers differ",
            "export and measure the file that was evaluated",
        )
    return evidence.device


def device_value(evidence: Evidence, column: str, mode: Mode = "steady") -> Fraction:
    """A figure of that measurement: the decimal that is printed, as limits are."""
    return Fraction(repr(device_figure(matching_device(evidence), column, mode)))


def totals_of(evidence: Evidence, measured: bool) -> Mapping[str, Any]:
    """Size and BOPS of the network that is judged; with `measured` they must be those of the row
    that the accuracy is taken from. Raises InputError for evidence that contradicts itself."""
    made_now = evidence.measured and evidence.evaluations is not None
    row = judged_row(evidence) if measured or made_now else None
    if evidence.assignment is None:
        if row is None and evidence.evaluations is not None:
            row = judged_row(evidence)
        return {} if row is None else _stated(row)
    totals: Mapping[str, Any] = evidence.assignment.totals
    if evidence.table is not None:
        try:
            wrong = contradictions(evidence.assignment, evidence.table)
        except InputError as error:
            if is_of_another(evidence.assignment, evidence.table):
                other = not_its_table(evidence.assignment, evidence.table)
                raise InputError(other, " ".join(error.lines)) from None
            raise
        if wrong:
            raise InputError(
                f"the assignment does not fit {evidence.table.source}: {'; '.join(wrong)}; "
                "solve again, or name the table that belongs to it with --profile"
            )
        totals = recomputed_totals(evidence.assignment, evidence.table)
    read = {} if evidence.layers is None else totals_of_layers(evidence.layers)
    for column, value in {**read, **({} if row is None else _stated(row))}.items():
        if totals.get(column, value) != value:
            raise InputError(
                f"{column} is {totals[column]} for the assignment and {value} for the network that "
                "was measured; measure again, or judge the measured row alone with --row"
                if row is not None
                else f"{column} is {totals[column]} for the assignment and {value} for the model's "
                "file; apply the assignment again, or name the one that was applied"
            )
    # what was measured now is of this assignment; a file may be of an older one
    return (
        {**read, **_stated(row), **totals} if made_now and row is not None else {**read, **totals}
    )


def _stated(row: Evaluation) -> dict[str, Any]:
    stated = {"size_bytes": row.size_bytes, "bops": row.bops}
    return {column: value for column, value in stated.items() if value is not None}


def total_of(totals: Mapping[str, Any], column: str) -> int | float:
    """One of them. Raises InputError where it is not known."""
    value = totals.get(column)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f"the network's {column} is not known; give an assignment with its table "
            "(--assignment, --profile) or an evaluation that states it (--evaluation)"
        )
    return value


def find_row(evidence: Evidence) -> Evaluation | None:
    """The row of the evaluation that is judged, unchecked."""
    names = DEFAULT_NETWORKS if evidence.network is None else (evidence.network,)
    rows = () if evidence.evaluations is None else evidence.evaluations.rows
    return next((row for row in rows if row.name in names), None)


def judged_row(evidence: Evidence) -> Evaluation:
    """The measurement of the network that is judged.

    Raises InputError where there is none, where it is of other weights or bits, and, unless that
    is accepted, where it does not say what it is of.
    """
    if evidence.evaluations is None:
        raise InputError(
            "there is no evaluation.json to take the accuracy from; write one with `mpsearch "
            "evaluate model.pt --assignment assignment.json`, or name yours with --evaluation"
        )
    row = find_row(evidence)
    if row is None:
        wanted = " or ".join(DEFAULT_NETWORKS if evidence.network is None else (evidence.network,))
        known = ", ".join(row.name for row in evidence.evaluations.rows) or "none"
        raise InputError(f"the evaluation has no row {wanted}; it has: {known} (see --row)")
    if row.n == 0:
        raise InputError(f"the evaluation's row {row.name} has no samples; measure it again")
    if not evidence.measured:  # what was measured now is of the model itself
        check_row_is_of(row, judged_network(evidence), evidence.unverified)
    return row


def check_row_is_of(row: Evaluation, judged: Judged, unverified: bool = False) -> None:
    """Raise InputError for a row of an evaluation that is not of the network judged."""
    what = f"the evaluation's row {row.name!a}"
    measure = "measure it with `mpsearch evaluate model.pt --assignment assignment.json`"
    check_tied(row.origin.model is not None, what, measure, unverified)
    newer = f"{measure}; where the evaluation is the newer one, profile and solve again"
    check_weights(row.origin.model, what, judged, newer)
    if row.origin.model is not None:
        check_bits(row.origin.layers, what, judged, measure)


def check_pair(evidence: Evidence, row: Evaluation, reference: Evaluation) -> None:
    """Raise InputError unless FP32's row is of the float network that the other was made from."""
    what = f"the evaluation's row {reference.name}"
    measure = "measure both together with `mpsearch evaluate`"
    if not evidence.measured:
        check_tied(reference.origin.model is not None, what, measure, evidence.unverified)
    if reference.origin.layers is not None:
        raise InputError(f"{what} is of a quantized network", measure)
    if row.origin.model is not None:
        judged = Judged({f"the row {row.name!a}": row.origin.model})
        check_weights(reference.origin.model, what, judged, measure)


def check_device(device: DeviceProfile, judged: Judged, unverified: bool = False) -> None:
    """Raise InputError for figures of a device that are not of the network judged."""
    what = f"the profile of {device.host}"
    measure = "export and measure this network with `mpsearch device run`"
    if judged.layers is not None and network_digest(judged.layers) != device.network:
        raise InputError(
            f"{what} is of another assignment than the one judged: other bits or layers",
            f"{measure}, or name the assignment that was measured with --assignment",
        )
    check_tied(device.model_digest is not None, what, measure, unverified)
    check_weights(device.model_digest, what, judged, measure)


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
        table=LayerTable.read_csv(table_path) if table_path else None,
        evaluations=evaluations,
        network=sources.network,
        device=load_device_profile(device_path) if device_path else None,
        baseline=load_baseline(sources.baseline) if sources.baseline else None,
        model_digest=digest,
        measured=sources.model is not None,
        unverified=sources.unverified,
        remarks=tuple(remarks),
        layers=layers,
        source=assignment_path
        or (USUAL_ASSIGNMENT if sources.model is None else sources.model.path),
    )


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

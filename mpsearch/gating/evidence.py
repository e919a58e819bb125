"""What the gate knows of a network, and whether it fits together."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mpsearch.comparing.baseline import (
    Baseline,
    Difference,
    Identity,
    difference_from,
    layers_digest,
    shapes_digest,
)
from mpsearch.comparing.layers import NetworkLayer, layers_of, totals_of_layers
from mpsearch.device.profile import DeviceProfile, Mode, device_figure
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation, Evaluations
from mpsearch.tables.assignment import Assignment, contradictions, recomputed_totals
from mpsearch.tables.provenance import (
    Judged,
    check_bits,
    check_tied,
    check_weights,
    is_of_another,
    network_digest,
    not_its_table,
)
from mpsearch.tables.table import LayerTable

if TYPE_CHECKING:
    pass


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
            f"the network's {column} is not known: no assignment with its table, evaluation or "
            "quantized file that states it was named or found here",
            "make them with `mpsearch profile MODEL` and `mpsearch solve`, or name yours with "
            "--assignment and --profile, or --evaluation, or as MODEL",
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

"""What the gate knows of a network, and whether it fits together."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mpsearch.agreement import contradictions, recomputed_totals
from mpsearch.assignment import Assignment
from mpsearch.device.figures import device_figure
from mpsearch.device.profile import DeviceProfile, Mode, network_digest
from mpsearch.errors import InputError
from mpsearch.evaluation import Evaluation, Evaluations
from mpsearch.gate_baseline import Baseline, Identity, layers_digest, shapes_digest
from mpsearch.table import LayerTable

DEFAULT_NETWORKS = ("assignment", "quantized")


@dataclass(frozen=True)
class Evidence:
    """What is known of the network; None: not at hand.

    Size and BOPS are those of the assignment, or without one those of the evaluation's row.
    network: the name of that row; None: `assignment` or `quantized`. model_digest: of operators and
    weights. measured: the evaluation was made now, from the model itself.
    """

    assignment: Assignment | None = None
    table: LayerTable | None = None
    evaluations: Evaluations | None = None
    network: str | None = None
    device: DeviceProfile | None = None
    baseline: Baseline | None = None
    model_digest: str | None = None
    measured: bool = False


def identity_of(evidence: Evidence) -> Identity:
    """Digests of what is judged, as far as it is known."""
    table, assignment = evidence.table, evidence.assignment
    names = None
    if assignment is not None:
        names = layers_digest(assignment.layers)
    elif table is not None:
        names = layers_digest(dict.fromkeys(table.layer_names))
    return Identity(
        layers=names,
        shapes=None if table is None else shapes_digest(table),
        weights=evidence.model_digest,
        table=None if table is None else table.digest,
        assignment=None if assignment is None else network_digest(assignment.layers),
    )


def matching_device(evidence: Evidence) -> DeviceProfile:
    """The stored measurement, which must be of the assignment that is judged."""
    if evidence.device is None:
        raise InputError(
            "there is no device.json to take figures of a device from; write one with `mpsearch "
            "device run EXPORT --host HOST`, or name yours with --device"
        )
    chosen = evidence.assignment
    if chosen is not None and network_digest(chosen.layers) != evidence.device.network:
        raise InputError(
            f"the profile of {evidence.device.host} is of another assignment than the one judged; "
            "export and measure this one, or name the one that was measured with --assignment"
        )
    return evidence.device


def device_value(evidence: Evidence, column: str, mode: Mode = "steady") -> Fraction:
    """A figure of that measurement: the decimal that is printed, as limits are."""
    return Fraction(repr(device_figure(matching_device(evidence), column, mode)))


def totals_of(evidence: Evidence, measured: bool) -> Mapping[str, Any]:
    """Size and BOPS of the network that is judged; with `measured` they must be those of the row
    that the accuracy is taken from. Raises InputError for evidence that contradicts itself."""
    row = judged_row(evidence) if measured or evidence.measured else None
    if evidence.assignment is None:
        if row is None and evidence.evaluations is not None:
            row = judged_row(evidence)
        return {} if row is None else _stated(row)
    totals: Mapping[str, Any] = evidence.assignment.totals
    if evidence.table is not None:
        wrong = contradictions(evidence.assignment, evidence.table)
        if wrong:
            raise InputError(
                f"the assignment does not fit {evidence.table.source}: {'; '.join(wrong)}; "
                "solve again, or name the table that belongs to it with --profile"
            )
        totals = recomputed_totals(evidence.assignment, evidence.table)
    for column, value in ({} if row is None else _stated(row)).items():
        if totals.get(column, value) != value:
            raise InputError(
                f"{column} is {totals[column]} for the assignment and {value} for the network that "
                "was measured; measure again, or judge the measured row alone with --network"
            )
    # what was measured now is of this assignment; a file may be of an older one
    return {**_stated(row), **totals} if evidence.measured and row is not None else totals


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


def judged_row(evidence: Evidence) -> Evaluation:
    """The measurement of the network that is judged."""
    if evidence.evaluations is None:
        raise InputError(
            "there is no evaluation.json to take the accuracy from; write one with `mpsearch "
            "evaluate model.pt --assignment assignment.json`, or name yours with --evaluation"
        )
    names = DEFAULT_NETWORKS if evidence.network is None else (evidence.network,)
    row = next((row for row in evidence.evaluations.rows if row.name in names), None)
    if row is None:
        wanted = " or ".join(names)
        known = ", ".join(row.name for row in evidence.evaluations.rows) or "none"
        raise InputError(f"the evaluation has no row {wanted}; it has: {known} (see --network)")
    if row.n == 0:
        raise InputError(f"the evaluation's row {row.name} has no samples; measure it again")
    return row

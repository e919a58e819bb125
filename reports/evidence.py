"""Whether what a run has measured is of the network that the run is about."""

from collections.abc import Mapping
from typing import Any

from mpsearch.errors import InputError
from mpsearch.gating.evidence import DEFAULT_NETWORKS, check_device, check_row_is_of
from mpsearch.reports.run_folder import Run
from mpsearch.tables.evidence_digests import Judged, check_weights, network_digest
from mpsearch.tables.provenance import model_digest_of


def judged_network(run: Run) -> Judged:
    """Weights and bits that the run is about, as far as its files say."""
    models = {}
    of_table = model_digest_of(run.provenance)
    if of_table is not None:
        models["the table"] = of_table
    if run.assignment is not None and run.assignment.model_digest is not None:
        models["the assignment"] = run.assignment.model_digest
    return Judged(models, None if run.assignment is None else run.assignment.layers)


def check_evidence(run: Run) -> None:
    """Raise InputError for figures that are of other weights or bits than the run's network.

    Rows of other choices (FP32, w8a8) have to be of its weights. What does not say what it is of is
    no error here: `untied` lists it.
    """
    judged = judged_network(run)
    for row in run.evaluations.rows if run.evaluations else ():
        ours = row.name.partition(",")[0] in DEFAULT_NETWORKS  # also "assignment, integers"
        layers = judged.layers if ours else row.origin.layers
        check_row_is_of(row, Judged(judged.models, layers), unverified=True)
    if run.device is not None:
        check_device(run.device, judged, unverified=True)
    if run.front is not None and run.front.measured:
        digest = run.front.measurement.get("model_digest")
        remeasure = "measure it again with `mpsearch evaluate model.pt --front FRONT --remeasure`"
        known = digest if isinstance(digest, str) else None
        check_weights(known, "the measured front", judged, remeasure)
    if run.assignment is not None:
        for measured, option in (
            (run.assignment.measured, "--min-accuracy"),
            (run.assignment.refined, "--refine"),
        ):
            _check_answer(measured, option, judged)


def _check_answer(measured: Mapping[str, Any], option: str, judged: Judged) -> None:
    """What `solve` measured has to be of the assignment that holds it."""
    digest, bits = measured.get("model_digest"), measured.get("assignment_digest")
    what, again = "the answer in assignment.json", f"solve again with `mpsearch solve {option}`"
    check_weights(digest if isinstance(digest, str) else None, what, judged, again)
    if bits is not None and judged.layers and bits != network_digest(judged.layers):
        raise InputError(f"{what} was measured at other bits than its layers have", again)


def untied(run: Run) -> list[str]:
    """What is shown although it does not say which network it is of, a sentence each."""
    found = {}
    if run.evaluations is not None:
        rows = [row.name for row in run.evaluations.rows if row.origin.model is None]
        if rows:
            found[f"the evaluation's rows {', '.join(rows)}"] = "mpsearch evaluate"
    if run.device is not None and run.device.model_digest is None:
        found["the device's profile"] = "mpsearch device run"
    if (
        run.front is not None
        and run.front.measured
        and not run.front.measurement.get("model_digest")
    ):
        found["the measured front"] = "mpsearch evaluate --front"
    return [
        f"unverified: {what} does not say which weights and bits it is of; measure again with "
        f"`{command}`"
        for what, command in found.items()
    ]

"""What `refine` chose, as a Solution, and the record of it in assignment.json."""

from dataclasses import replace
from typing import Any

from mpsearch.refining.candidates import Asked
from mpsearch.refining.loop import Refined
from mpsearch.refining.repaired_errors import Trial
from mpsearch.tables.budget import total_of
from mpsearch.tables.provenance import network_digest
from mpsearch.tables.solution import Solution


def solution_of(refined: Refined, asked: Asked, solution: Solution) -> Solution:
    """The chosen assignment as a Solution. Objective, bound and gap stay those of Ω."""
    choices, table = dict(refined.best.candidate.choices), asked.table
    changed = replace(
        solution,
        choices=choices,
        seconds=solution.seconds + refined.seconds,
        solver=f"{solution.solver}, refined",
    )
    if refined.chosen == 0:
        return changed
    omega = float(table.total(choices, "omega"))
    bound = solution.bound
    return replace(
        changed,
        status="feasible",
        objective=omega,
        omega=omega,
        gap=None if bound is None or omega == 0 else (omega - bound) / abs(omega),
        totals={key: total_of(table, choices, key) for key in solution.totals},
    )


def to_document(refined: Refined) -> dict[str, Any]:
    """The field `refined` of assignment.json: docs/formats.md names its keys."""
    subject = refined.subject
    quantizing, samples = subject.quantizing, refined.first.samples
    mean, low, high = refined.gain
    right = refined.float_right
    return {
        "asked": refined.asked,
        "error": refined.loss,
        "data": subject.data.name,
        "data_digest": subject.data.digest,
        "samples": samples,
        "held_out": subject.held_out,
        "calibration": quantizing.calibration.name,
        "calibration_digest": quantizing.calibration.digest,
        "model_digest": subject.network.digest,
        "post_training": quantizing.post_training.to_json(),
        "assignment_digest": network_digest(refined.best.candidate.choices),
        "fp32_accuracy": None if right is None else right / samples,
        "chosen": refined.chosen,
        "gain": mean,
        "gain_interval": [low, high],
        "comparisons": refined.comparisons,
        "surely_better": refined.is_surely_better,
        "candidates": [_entry(trial) for trial in refined.trials],
    }


def _entry(trial: Trial) -> dict[str, Any]:
    return {
        "from": trial.candidate.source,
        "error": trial.error,
        "accuracy": trial.accuracy,
        "samples": trial.seen,
        "layers": {name: str(choice) for name, choice in trial.candidate.choices.items()},
    }

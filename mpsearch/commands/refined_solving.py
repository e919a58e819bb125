"""`solve --refine`: model and data for it, and its answer as a Solution."""

from dataclasses import replace

from mpsearch.commands.console import progress
from mpsearch.commands.measured_options import RefineRequest
from mpsearch.commands.model_options import source_of
from mpsearch.evaluation.subjects import load_subject
from mpsearch.post_training.repairing import PostTraining
from mpsearch.post_training.words import usual_ranges
from mpsearch.refining.candidates import Asked
from mpsearch.refining.loop import Refined, refine
from mpsearch.running.workers import join, leave
from mpsearch.tables.budget import total_of
from mpsearch.tables.provenance import Judged, check_weights
from mpsearch.tables.solution import Solution


def measure(
    request: RefineRequest,
    asked: Asked,
    solution: Solution,
    output: str,
    seconds: float | None = None,
    table_model: str | None = None,
) -> Refined:
    """Load model and data, and measure what may be better than `solution`.

    seconds: for the search of every column's optimum. Under torchrun the processes share the work,
    and all return the same. InputError as loading and `refine` raise, and for another network than
    the table's, whose digest is `table_model` where it is known.
    """
    subject = load_subject(
        source_of(request.network, **request.model), request.data, request.calibration,
        post_training=PostTraining(
            usual_ranges(request.rounding, request.bias_correction),
            rounding=request.rounding, correct_bias=request.bias_correction,
        ),
        need_labels=False,
        device=request.device,
    )  # fmt: skip
    if subject.calibration is None:  # the samples to measure on are those of the profile
        subject = replace(subject, calibration=subject.data)
    if table_model is not None:
        check_weights(
            subject.network.digest, request.network, Judged({"the table": table_model}),
            "profile it again, or name the model that was profiled with --network",
        )  # fmt: skip
    workers = join()
    with progress("refine", request.count) as step:
        found = refine(
            asked, solution.choices, subject, output, request.count, seconds, step, workers
        )
    leave(workers)
    return found


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

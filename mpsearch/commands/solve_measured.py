"""`solve` with a target for the accuracy: the front within the limits, then measurements.

A measured answer in words: what was measured, what was not, and how sure it is.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mpsearch.commands.console import echo, print_json, progress
from mpsearch.commands.measured_options import MeasuredRequest
from mpsearch.commands.remedy_text import with_remedies
from mpsearch.commands.solution_text import (
    front_lines,
    print_failure,
    print_outside,
    print_tables,
    to_document,
)
from mpsearch.data import bind, read_arrays
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation
from mpsearch.evaluation.measuring import labels_of
from mpsearch.measured import answer as measured_answer
from mpsearch.measured.answer import MeasuredAnswer, smallest_that_holds
from mpsearch.measured.min_accuracy import thin
from mpsearch.measured.solutions import front_within, solution_of
from mpsearch.pareto.front import Front
from mpsearch.search.solving import solve
from mpsearch.statistics import paired_drop
from mpsearch.tables.assignment import Assignment

if TYPE_CHECKING:
    from mpsearch.commands.solve import SolveRequest
    from mpsearch.refining.candidates import Asked


def describe(answer: MeasuredAnswer, front: Front) -> list[str]:
    """The lines under an assignment, or instead of one where none meets the target."""
    row, found = answer.row, answer.search
    lines = [
        f"{'measured' if answer.point is not None else 'best measured'}: "
        f"{_accuracy(answer, row)} on {row.n:,} samples of {answer.data.name}; asked: "
        f"{answer.target}",
        *_against(answer, row, answer.reference),
    ]
    if answer.point is not None:
        sure = "holds" if answer.lower_end_holds else "does not hold"
        lines.append(f"  at the unfavourable end of the 95 % interval it {sure}")
    if not answer.held_out:
        lines.append("  the data also set the ranges of the activations: not unseen data")
    lines.append(_claim(answer))
    lines.append(f"  {_candidates(answer, front)}")
    lines.append(
        f"  {len(found.held):,} measured, {answer.stopped:,} of them stopped when they could no "
        f"longer hold: {answer.passes:,} of {len(found.held) * row.n:,} samples run, "
        f"{answer.seconds:.1f} s"
    )
    if answer.point is None:
        return lines
    if answer.confirmed is not None:
        name, fresh, reference = answer.confirmed
        holds = "holds" if answer.holds_on(fresh, reference) else "does NOT hold"
        measured = _accuracy(answer, fresh)
        lines.append(f"confirmed: {measured} on {fresh.n:,} samples of {name}: {holds}")
        lines += _against(answer, fresh, reference)
    else:
        low, high = (100 * end for end in answer.interval_of_all)
        lines += [
            f"  it was chosen on these samples, which favours it: [{low:.2f}, {high:.2f}] holds "
            "for all candidates at once;",
            "  --confirm-data measures it on samples that took no part",
        ]
    return lines


def _accuracy(answer: MeasuredAnswer, row: Evaluation) -> str:
    low, high = row.accuracy_interval
    what = "accuracy" if answer.target.min_agreement is None else "agreement with FP32"
    return f"{what} {100 * row.accuracy:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"


def _against(answer: MeasuredAnswer, row: Evaluation, reference: Evaluation) -> list[str]:
    if answer.target.min_agreement is not None:
        return []  # FP32 is what the other was compared with
    drop, (low, high) = paired_drop(reference.correct, row.correct)
    return [
        f"  FP32 {100 * reference.accuracy:.2f} %; points lost {100 * drop:+.2f} "
        f"[{100 * low:+.2f}, {100 * high:+.2f}], on the same samples"
    ]


def _claim(answer: MeasuredAnswer) -> str:
    """What is said of the other candidates: no more than was measured."""
    found = answer.search
    total = f"{found.candidates:,} candidates"
    if answer.point is None:
        if found.unmeasured == 0:
            return f"none of the {total} holds: all were measured"
        return (
            f"none that was measured holds: {found.failed:,} of {total}; "
            f"{found.unmeasured:,} were not measured (--measure allows more, or all)"
        )
    smaller = found.failed + found.unmeasured
    if found.unmeasured == 0:
        return (
            f"smallest of {total} that holds: the {smaller:,} smaller ones were measured and fail"
        )
    return (
        f"smallest of {total} that was measured to hold: of {smaller:,} smaller ones "
        f"{found.failed:,} were measured and fail, {found.unmeasured:,} were not measured"
    )


def _candidates(answer: MeasuredAnswer, front: Front) -> str:
    kind = "exact front" if front.exact else "front, which is not exact"
    if answer.candidates == len(front):
        return f"candidates: all points of the {kind} of Ω against {front.resource}"
    return (
        f"candidates: {answer.candidates:,} of the {len(front):,} points of the {kind} of Ω "
        f"against {front.resource}; any other is at most {100 * answer.tolerance:g} % smaller "
        "than one of them"
    )


def solve_measured(
    request: "SolveRequest", wanted: MeasuredRequest, asked: "Asked", resource: str
) -> int:
    """The smallest assignment whose measured accuracy meets the target; else exit code 1."""
    table = asked.table
    if resource not in table.columns:
        raise InputError(
            f"got --minimize {resource}; expected one resource column, as accuracy is measured "
            f"along the front of Ω against it: {', '.join(table.columns)}"
        )
    found = front_within(
        table, resource, asked.budget, asked.pins, asked.exclude, request.from_front
    )
    if not len(found):
        infeasible = solve(table, asked.budget, pins=asked.pins, exclude=asked.exclude)
        infeasible = with_remedies(request, asked, infeasible)
        print_failure(infeasible)
        if request.as_json:
            print_json(to_document(infeasible, table))
        return 1
    answer = measure(wanted, found, request.output, request.table_model)
    solution = solution_of(answer, table, asked.budget, resource)
    document = measured_answer.to_document(answer)
    holds = answer.point is not None
    if holds:
        model = answer.provenance["model_digest"]
        recorded = {**table.recorded, **request.within.recorded, **request.reading.recorded}
        assignment = Assignment.from_solution(solution, table.digest, recorded, model)
        weights = table.layer_weights
        replace(assignment, measured=document, weights=weights).save(request.output)
    if request.as_json:
        print_json(to_document(solution, table) | {"measured": document})
    else:
        print_tables(table, solution)
        print_outside(request.provenance)
        echo(*front_lines(table, resource, asked.budget, asked.pins, asked.exclude))
        for line in describe(answer, found):
            echo(line)
        echo(f"wrote {request.output}" if holds else "wrote nothing")
    if not holds:
        echo(f"mpsearch: no measured assignment has {answer.target}", err=True)
    return 0 if holds else 1


def measure(
    wanted: MeasuredRequest, found: Front, output: str, table_model: str | None = None
) -> MeasuredAnswer:
    """Load model and data, and look for the smallest point that meets the target.

    InputError as `Measuring.subject` and the search raise.
    """
    labelled = wanted.target.min_agreement is None
    subject = wanted.on.subject(table_model, need_labels=labelled)
    confirm = None
    if wanted.confirm is not None:
        confirm = bind(read_arrays(wanted.confirm), subject.network)
        if labelled:
            labels_of(confirm)
    candidates = len(thin(found.totals[found.resource].astype(np.float64), wanted.tolerance))
    with progress("measure", min(wanted.most or candidates, candidates)) as step:
        return smallest_that_holds(
            found, subject, wanted.target, output, wanted.most, wanted.tolerance, confirm, step
        )

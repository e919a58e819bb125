"""`solve` with a target for the accuracy: the front within the limits, then measurements.

A measured answer in words: what was measured, what was not, and how sure it is.
"""

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mpsearch.commands.console import echo, print_json, progress
from mpsearch.commands.measured_options import MeasuredRequest
from mpsearch.commands.remedy_text import lines_of, remedies_of
from mpsearch.commands.remedy_text import to_document as remedies_document
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
from mpsearch.pareto.files import answer as place_in
from mpsearch.pareto.files import read_json
from mpsearch.pareto.front import Front, front
from mpsearch.search.solving import solve
from mpsearch.statistics import paired_drop
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import total_of
from mpsearch.tables.solution import Solution

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
    found = front_within(asked, resource, request.from_front)
    if not len(found):
        infeasible = solve(table, asked.budget, pins=asked.pins, exclude=asked.exclude)
        remedies = remedies_of(request, asked, infeasible)
        print_failure(infeasible)
        echo(*lines_of(remedies, asked), err=True)
        if request.as_json:
            print_json(to_document(infeasible, table) | remedies_document(remedies, asked))
        return 1
    answer = measure(wanted, found, request.output, request.table_model)
    solution = solution_of(answer, asked, resource)
    document = measured_answer.to_document(answer)
    holds = answer.point is not None
    if holds:
        model = answer.provenance["model_digest"]
        recorded = request.within.recorded
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


def front_within(
    asked: "Asked", resource: str, stored: str | os.PathLike[str] | None = None
) -> Front:
    """The front of Ω against `resource` within the limits, or what of a stored one is within them.

    Raises InputError for a stored front that is of another table, or of other limits.
    """
    budget = asked.budget
    if stored is None:
        return front(
            asked.table, resource, budget.limits, asked.pins, asked.exclude,
            at_least=budget.at_least,
        )  # fmt: skip
    found = read_json(stored)
    if found.resource != resource:
        raise InputError(
            f"{os.fspath(stored)} is a front against {found.resource}; expected one against "
            f"{resource}, or --minimize {found.resource}"
        )
    last = place_in(found, asked.table.digest, budget.limits, budget.at_least)
    end = 0 if last is None else last + 1
    return replace(
        found,
        omega=found.omega[:end],
        totals={name: values[:end] for name, values in found.totals.items()},
        assignments=found.assignments[:end],
        measured={name: values[:end] for name, values in found.measured.items()},
    )


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


def solution_of(measured: MeasuredAnswer, asked: "Asked", resource: str) -> Solution:
    """The answer, or the best that was measured, as a Solution: feasible, without a bound.

    A smaller assignment that is not on the front may do too, so nothing is proven of the size.
    """
    table, budget = asked.table, asked.budget
    choices = {layer: measured.choices[layer] for layer in table.layer_names}
    keys = dict.fromkeys([*table.columns, *budget.limits, *budget.at_least])
    return Solution(
        status="feasible",
        choices=choices,
        objective=float(table.total(choices, resource)),
        bound=None,
        gap=None,
        seconds=measured.seconds,
        solver="measured",
        totals={key: total_of(table, choices, key) for key in keys if key != "omega"},
        limits=budget.limits,
        at_least=budget.at_least,
        minimize=resource,
        omega=float(table.total(choices, "omega")),
    )

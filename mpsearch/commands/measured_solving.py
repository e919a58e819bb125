"""`solve` with an accuracy that has to hold: the front within the limits, then measurements."""

import os
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from mpsearch.commands.console import progress
from mpsearch.commands.measured_options import MeasuredRequest
from mpsearch.commands.model_options import source_of
from mpsearch.data import bind, read_arrays
from mpsearch.errors import InputError
from mpsearch.evaluation.measuring import labels_of
from mpsearch.evaluation.subjects import load_subject
from mpsearch.measured.answer import MeasuredAnswer, smallest_that_holds
from mpsearch.measured.min_accuracy import thin
from mpsearch.pareto.files import answer, read_json
from mpsearch.pareto.front import Front, front
from mpsearch.post_training.repairing import PostTraining
from mpsearch.post_training.words import usual_ranges
from mpsearch.tables.budget import Budget, total_of
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import Judged, check_weights
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable


def front_within(
    table: LayerTable,
    resource: str,
    budget: Budget,
    pins: Mapping[str, Choice],
    exclude: Mapping[str, Collection[Choice]],
    stored: str | os.PathLike[str] | None = None,
) -> Front:
    """The front of Ω against `resource` within the limits, or what of a stored one is within them.

    Raises InputError for a stored front that is of another table, or of other limits.
    """
    if stored is None:
        return front(table, resource, budget.limits, pins, exclude, at_least=budget.at_least)
    found = read_json(stored)
    if found.resource != resource:
        raise InputError(
            f"{os.fspath(stored)} is a front against {found.resource}; expected one against "
            f"{resource}, or --minimize {found.resource}"
        )
    last = answer(found, table.digest, budget.limits, budget.at_least)
    end = 0 if last is None else last + 1
    return replace(
        found,
        omega=found.omega[:end],
        totals={name: values[:end] for name, values in found.totals.items()},
        assignments=found.assignments[:end],
        measured={name: values[:end] for name, values in found.measured.items()},
    )


def measure(
    request: MeasuredRequest, found: Front, output: str, table_model: str | None = None
) -> MeasuredAnswer:
    """Load model and data, and look for the smallest point that holds.

    InputError as they raise, and for another network than the table's, whose digest is
    `table_model` where it is known.
    """
    subject = load_subject(
        source_of(request.network, **request.model), request.data, request.calibration,
        post_training=PostTraining(
            usual_ranges(request.rounding, request.bias_correction),
            rounding=request.rounding, correct_bias=request.bias_correction,
        ),
        device=request.device,
    )  # fmt: skip
    if table_model is not None:
        check_weights(
            subject.network.digest, request.network, Judged({"the table": table_model}),
            "profile it again, or name the model that was profiled with --network",
        )  # fmt: skip
    confirm = None
    if request.confirm is not None:
        confirm = bind(read_arrays(request.confirm), subject.network)
        labels_of(confirm)
    candidates = len(thin(found.totals[found.resource].astype(np.float64), request.tolerance))
    with progress("measure", min(request.most or candidates, candidates)) as step:
        return smallest_that_holds(
            found, subject, request.target, output, request.most, request.tolerance, confirm, step
        )


def solution_of(
    measured: MeasuredAnswer, table: LayerTable, budget: Budget, resource: str
) -> Solution:
    """The answer, or the best that was measured, as a Solution: feasible, without a bound.

    A smaller assignment that is not on the front may hold too, so nothing is proven of the size.
    """
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

"""The front that a measured search takes, and its answer as a Solution."""

import os
from collections.abc import Collection, Mapping

from mpsearch.errors import InputError
from mpsearch.measured.answer import MeasuredAnswer
from mpsearch.pareto.files import answer as place_in
from mpsearch.pareto.files import read_json
from mpsearch.pareto.front import Front, front
from mpsearch.tables.budget import Budget, total_of
from mpsearch.tables.choice import Choice
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable


def front_within(
    table: LayerTable,
    resource: str,
    budget: Budget,
    pins: Mapping[str, Choice],
    exclude: Mapping[str, Collection[Choice]],
    stored: Front | str | os.PathLike[str] | None = None,
) -> Front:
    """The front of Ω against `resource` within the limits, or what of a stored one is within them.

    Raises InputError for a stored front that is of another table, or of other limits.
    """
    if stored is None:
        return front(table, resource, budget.limits, pins, exclude, at_least=budget.at_least)
    found = stored if isinstance(stored, Front) else read_json(stored)
    if found.resource != resource:
        name = "the front" if isinstance(stored, Front) else os.fspath(stored)
        raise InputError(
            f"{name} is a front against {found.resource}; expected one against "
            f"{resource}, or --minimize {found.resource}"
        )
    last = place_in(found, table.digest, budget.limits, budget.at_least)
    end = 0 if last is None else last + 1
    return found.part(slice(end))


def solution_of(
    measured: MeasuredAnswer, table: LayerTable, budget: Budget, resource: str
) -> Solution:
    """The answer, or the best that was measured, as a Solution: feasible, without a bound.

    A smaller assignment that is not on the front may do too, so nothing is proven of the size.
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

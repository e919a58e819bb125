"""Why every layer has its bits: what its alternatives cost and what the limits are worth."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError
from mpsearch.explaining.decisions import Decision, bound_value, decide, omega_value
from mpsearch.explaining.marginal import Marginal, marginals
from mpsearch.explaining.prices import shadow_prices
from mpsearch.knapsack.instance import Instance
from mpsearch.search.solving import solve
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable

Pins = Mapping[str, Choice]
Excludes = Mapping[str, Collection[Choice]]
Status = Literal["optimal", "not optimal", "unproven", "outside"]


@dataclass(frozen=True)
class Explanation:
    """status: of the assignment under its limits; optimum: the least Ω within them, if proven.

    bound: no assignment within the limits has less Ω; gap: (omega - bound) / omega. slack: limited
    column -> what is left, negative where the limit is broken. Without any assignment within the
    limits `solution` says so, and there are no prices. lp_bound: q at the prices.
    """

    status: Status
    omega: float
    optimum: float | None
    bound: float | None
    gap: float | None
    lp_bound: float | None
    totals: Mapping[str, int | float]
    limits: Mapping[str, int | float]
    slack: Mapping[str, int | float]
    decisions: tuple[Decision, ...]
    marginals: tuple[Marginal, ...]
    solution: Solution


def explain(
    table: LayerTable,
    assignment: Assignment,
    pins: Pins | None = None,
    exclude: Excludes | None = None,
    time_limit: float | None = None,
) -> Explanation:
    """Explain an assignment under its own limits; pins and excludes as they were for `solve`.

    time_limit: seconds for each search. Raises InputError for an assignment of another table, of
    other layers, with layers of one group that differ, or against the pins and excludes.

    >>> assignment = mpsearch.Assignment.from_solution(solution, table.digest)
    >>> mpsearch.explain(table, assignment).status
    'optimal'
    """
    check_table(table, assignment)
    limits = dict(assignment.limits)
    unlimited = ["omega", *(column for column in table.columns if column not in limits)]
    instance = Instance.build(table, limits, pins, exclude, unlimited)
    chosen = indices(table, instance, assignment)
    rows = {name: row for row, name in enumerate(instance.columns)}
    limited = tuple(row for name, row in rows.items() if name not in unlimited)
    solution = solve(table, Budget(limits), "auto", pins, exclude, time_limit)

    own = instance.sum(instance.resources[rows["omega"]], chosen)
    feasible = instance.is_feasible(chosen)
    least, prices = None, None
    if solution.choices:
        other = indices(table, instance, Assignment(solution.choices))
        least = instance.sum(instance.resources[rows["omega"]], other)
        prices = shadow_prices(instance, rows["omega"], limited, least)
    status = _status(solution, feasible, least is not None and own > least)
    omega = omega_value(instance, rows, Fraction(own))
    slack = {
        row: instance.limits[row] - instance.sum(instance.resources[row], chosen) for row in limited
    }
    bound = omega if status == "optimal" else solution.bound
    return Explanation(
        status=status,
        omega=omega,
        optimum=solution.objective if solution.status == "optimal" else None,
        bound=bound,
        gap=None if bound is None or not feasible else (omega - bound) / omega if omega else 0.0,
        lp_bound=None if prices is None else bound_value(instance, rows, prices.bound),
        totals={column: table.total(assignment.layers, column) for column in table.columns},
        limits=limits,
        slack={
            instance.columns[row]: instance.resource_value(row, left) for row, left in slack.items()
        },
        decisions=tuple(
            decide(table, instance, rows, slack, layer, current, own, prices)
            for layer, current in enumerate(chosen.tolist())
        ),
        marginals=()
        if prices is None
        else marginals(table, instance, rows["omega"], limited, prices, solution, limits,
                       pins, exclude, time_limit),
        solution=solution,
    )  # fmt: skip


def check_table(table: LayerTable, assignment: Assignment) -> None:
    """InputError for an assignment of another table or of other layers, or with broken limits."""
    if assignment.table_digest not in (None, table.digest):
        raise InputError(
            f"the assignment was searched in another table than {table.source}",
            f"name its own with --table, or search this one: mpsearch solve {table.source}",
        )
    table.total(assignment.layers, "omega")
    if assignment.minimize != "omega" or assignment.at_least or "max-distinct" in assignment.search:
        raise InputError(
            "explain reads assignments of least Ω under upper limits; this one was searched with "
            "--minimize, --min-accuracy, --at-least, --max-distinct or --interactions of 0.1"
        )
    for column, limit in assignment.limits.items():
        if limit is None or not isfinite(limit):
            raise InputError(f"the assignment limits {column} to {limit}; expected a finite number")


def indices(table: LayerTable, instance: Instance, assignment: Assignment) -> NDArray[np.int64]:
    """Indices [L] of what the assignment gives every decision."""
    chosen = []
    for layer, members in enumerate(instance.members):
        choices = {assignment.layers[name] for name in members}
        if len(choices) > 1:
            given = ", ".join(f"{name}={assignment.layers[name]}" for name in members)
            raise InputError(
                f"the assignment gives layers of one group different choices: {given}",
                f"in {table.source} they share one; give them the same",
            )
        choice = choices.pop()
        chosen.append(instance.choices.index(choice))
        if not instance.allowed[layer, chosen[-1]]:
            raise InputError(
                f"the assignment has {members[0]}={choice}, which --pin or --exclude rules out, or "
                "which takes no less within its limits than a choice of more activation bits",
                "give the pins and excludes that it was searched with, or solve again",
            )
    return np.array(chosen, dtype=np.int64)


def _status(solution: Solution, feasible: bool, worse: bool) -> Status:
    if not feasible:
        return "outside"
    if worse:
        return "not optimal"
    return "optimal" if solution.status == "optimal" else "unproven"

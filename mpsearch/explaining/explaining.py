"""Why every layer has its bits: what its alternatives cost and what the limits are worth.

One decision of an assignment: its alternatives, and how far it is from being replaced.

What if: the best assignment under the same limits once some layers are pinned.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import isfinite
from operator import le
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError
from mpsearch.explaining.prices import Marginal, Prices, marginals, shadow_prices
from mpsearch.knapsack.instance import Instance
from mpsearch.running.notebook import html_table
from mpsearch.search.solving import solve
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.exact import float_below
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable


@dataclass(frozen=True)
class Alternative:
    """One decision changed alone: what becomes of Ω and of every resource column.

    over: limited column -> by how much its limit would be exceeded; empty if the change fits.
    """

    choice: Choice
    omega: float
    changes: Mapping[str, int | float]
    over: Mapping[str, int | float]


@dataclass(frozen=True)
class Decision:
    """A layer, or the layers of a group, which change together: their numbers are sums.

    better: the next choice with less Ω, of those that no other one beats in Ω without more of a
    limited resource; cheaper: the next with less of a limited resource (of any resource without
    limits). rival: the other choice with the least Ω + prices . resources, and margin: by how much
    that exceeds the chosen one's (negative: at these prices the rival is the better buy).
    at_least: within the limits, every assignment with another choice here has at least that much
    more Ω than this one (0: not proven by the prices alone).
    """

    layers: tuple[str, ...]
    choice: Choice
    omega: float
    resources: Mapping[str, int | float]
    better: Alternative | None
    cheaper: Alternative | None
    rival: Choice | None = None
    margin: float | None = None
    at_least: float | None = None


def decide(
    table: LayerTable,
    instance: Instance,
    rows: Mapping[str, int],
    slack: Mapping[int, int],
    layer: int,
    current: int,
    own: int,
    prices: Prices | None,
) -> Decision:
    """Everything about one decision, in exact integers until the end.

    rows: column -> position in the instance, "omega" among them; slack: position of a limited row
    -> what the assignment leaves; current: the chosen index; own: the assignment's total Ω.
    """
    omega = instance.resources[rows["omega"]][layer].tolist()
    columns = [rows[name] for name in table.columns if name in rows]
    cost = {row: instance.resources[row][layer].tolist() for row in {*columns, *slack}}
    tight = tuple(slack) or tuple(columns)
    others = [c for c in np.flatnonzero(instance.allowed[layer]).tolist() if c != current]

    def alternative(choice: int) -> Alternative:
        excess = {row: cost[row][choice] - cost[row][current] - slack[row] for row in slack}
        return Alternative(
            choice=instance.choices[choice],
            omega=omega_value(instance, rows, Fraction(omega[choice] - omega[current])),
            changes={
                instance.columns[row]: instance.resource_value(
                    row, cost[row][choice] - cost[row][current]
                )
                for row in columns
            },
            over={
                instance.columns[row]: instance.resource_value(row, by)
                for row, by in excess.items()
                if by > 0
            },
        )

    cheaper = [c for c in others if any(cost[row][c] < cost[row][current] for row in tight)]
    step = {c: [cost[row][c] for row in tight] for c in others}
    # More bits can have more Ω (chance, or a repair that went less well): nobody would take those.
    better = [
        c
        for c in others
        if omega[c] < omega[current]
        and not any(omega[o] < omega[c] and all(map(le, step[o], step[c])) for o in others)
    ]
    nearest_better = max(better, key=lambda c: (omega[c], [-x for x in step[c]]), default=None)
    nearest_cheaper = min(cheaper, key=lambda c: (omega[c], step[c]), default=None)
    rival, margin, at_least = None, None, None
    if prices is not None and others:
        reduced = prices.reduced[layer].tolist()
        second = min(others, key=lambda c: reduced[c])
        lead = Fraction(reduced[second] - reduced[current], prices.denominator)
        rival, margin = instance.choices[second], omega_value(instance, rows, lead)
        forced = prices.bound + max(lead, Fraction(0)) - own
        at_least = max(bound_value(instance, rows, forced), 0.0)
    return Decision(
        layers=instance.members[layer],
        choice=instance.choices[current],
        omega=omega_value(instance, rows, Fraction(omega[current])),
        resources={
            instance.columns[row]: instance.resource_value(row, cost[row][current])
            for row in columns
        },
        better=None if nearest_better is None else alternative(nearest_better),
        cheaper=None if nearest_cheaper is None else alternative(nearest_cheaper),
        rival=rival,
        margin=margin,
        at_least=at_least,
    )


def omega_value(instance: Instance, rows: Mapping[str, int], value: Fraction) -> float:
    """Units of the instance's Ω -> Ω."""
    return float(value * Fraction(1, 10 ** instance.digits[1 + rows["omega"]]))


def bound_value(instance: Instance, rows: Mapping[str, int], value: Fraction) -> float:
    """The same for a lower bound, which is rounded down."""
    return float_below(value * Fraction(1, 10 ** instance.digits[1 + rows["omega"]]))


Pins = Mapping[str, Choice]
Excludes = Mapping[str, Collection[Choice]]
Status = Literal["optimal", "not optimal", "unproven", "outside"]


@dataclass(frozen=True)
class Explanation:
    """How far an assignment is from the optimum, and why every layer has its bits."""

    status: Status
    """`optimal`, `not optimal`, `unproven` (no better one is known) or `outside` (of the
    limits)."""
    omega: float
    """Total Ω of the assignment."""
    optimum: float | None
    """The least Ω within the limits; None where that is not proven."""
    bound: float | None
    """No assignment within the limits has less Ω; None where nothing is proven."""
    gap: float | None
    """(omega - bound) / omega; None without a bound and outside the limits."""
    lp_bound: float | None
    """The bound that the prices prove, of the linear relaxation; None without prices."""
    totals: Mapping[str, int | float]
    """Resource column -> what the assignment takes, exact."""
    limits: Mapping[str, int | float]
    """Limited column -> its upper limit."""
    slack: Mapping[str, int | float]
    """Limited column -> what is left of its limit; negative where the limit is broken."""
    decisions: tuple[Decision, ...]
    """One for each layer, or group of layers, in the table's order."""
    marginals: tuple[Marginal, ...]
    """What a little more or less of each limit is worth; empty without any assignment within the
    limits."""
    solution: Solution
    """What the search found within the same limits, also that there is nothing."""

    def __repr__(self) -> str:
        return f"Explanation({self.status}: Ω {self.omega:.4g}, {len(self.decisions)} decisions)"

    def _repr_html_(self) -> str:
        """For notebooks: what every layer has, and what else it could have."""
        rows = [
            [
                ", ".join(one.layers), str(one.choice), f"{one.omega:.4g}",
                *("" if other is None else f"{other.choice}: Ω {other.omega:+.3g}"
                  for other in (one.better, one.cheaper)),
                "" if not one.at_least else f"{one.at_least:+.3g}",
            ]
            for one in self.decisions
        ]  # fmt: skip
        columns = ["layer", "bits", "Ω", "next better", "next cheaper", "any other: Ω at least"]
        return html_table([f"{self.status}: Ω {self.omega:.4g}"], columns, rows)


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
            f"name its own with --profile, or search this one: mpsearch solve {table.source}",
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


@dataclass(frozen=True)
class WhatIf:
    """The optimum with further pins: omega is its Ω less the assignment's, None if there is none.

    changed: layer -> its choices before and after; changes: column -> by how much totals move.
    """

    pins: Mapping[str, Choice]
    solution: Solution
    omega: float | None = None
    changed: Mapping[str, tuple[Choice, Choice]] = field(default_factory=dict)
    changes: Mapping[str, int | float] = field(default_factory=dict)


def what_if(
    table: LayerTable,
    assignment: Assignment,
    change: Pins,
    pins: Pins | None = None,
    exclude: Excludes | None = None,
    time_limit: float | None = None,
) -> WhatIf:
    """The best assignment under the same limits with the pins of `change` added, all at once.

    A pin in `change` replaces one for the same layer. Among equally good assignments it is not
    said that the one with the fewest changed layers is found, except that an optimum which has the
    pinned choices already stays as it is.
    """
    check_table(table, assignment)
    together = {**(pins or {}), **change}
    solution = solve(table, Budget(assignment.limits), "auto", together, exclude, time_limit)
    if not solution.choices:
        return WhatIf(change, solution)
    before, after = assignment.layers, solution.choices
    omega = _difference(table, "omega", before, after)
    instance = Instance.build(table, assignment.limits, assignment.layers)
    if omega == 0 and instance.is_feasible(indices(table, instance, assignment)):
        agrees = all(before[layer] == choice for layer, choice in together.items())
        after = before if agrees else after
    return WhatIf(
        pins=change,
        solution=solution,
        omega=float(omega),
        changed={
            layer: (before[layer], after[layer])
            for layer in table.layer_names
            if before[layer] != after[layer]
        },
        changes={
            column: int(moved) if moved.denominator == 1 else float(moved)
            for column in table.columns
            for moved in [_difference(table, column, before, after)]
        },
    )


def _difference(table: LayerTable, column: str, before: Pins, after: Pins) -> Fraction:
    """Total after less total before, exactly in the table's decimals."""
    values = table.column(column)
    return sum(
        (
            Fraction(repr(values[table.row_of(layer, after[layer])].item()))
            - Fraction(repr(values[table.row_of(layer, before[layer])].item()))
            for layer in table.layer_names
            if before[layer] != after[layer]
        ),
        Fraction(0),
    )

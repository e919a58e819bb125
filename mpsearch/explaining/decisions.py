"""One decision of an assignment: its alternatives, and how far it is from being replaced."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from operator import le

import numpy as np

from mpsearch.explaining.prices import Prices
from mpsearch.knapsack.instance import Instance
from mpsearch.tables.choice import Choice
from mpsearch.tables.exact import float_below
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

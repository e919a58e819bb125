"""What limits are feasible: the least total of every limited key, alone and beside the others."""

import time
from collections.abc import Collection, Mapping

import numpy as np

from mpsearch.knapsack.instance import Instance
from mpsearch.search.proof import guess, prove, smallest
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.exact import to_integers, to_number
from mpsearch.tables.limits import PEAK, values_of
from mpsearch.tables.solution import Smallest
from mpsearch.tables.table import LayerTable

SECONDS = 5.0

Excludes = Mapping[str, Collection[Choice]]


def smallest_feasible(
    table: LayerTable,
    budget: Budget,
    pins: Mapping[str, Choice] | None = None,
    exclude: Excludes | None = None,
) -> dict[str, Smallest]:
    """By limited key the least total, of lower limits (keyed `>=COLUMN`) the largest one.

    `with_others` is None where the others are infeasible by themselves, or after 5 s in all.
    """
    deadline = time.monotonic() + SECONDS
    sums = {key: limit for key, limit in budget.limits.items() if not key.startswith(PEAK)}
    alone = Instance.build(table, sums, pins, exclude, at_least=budget.at_least)
    whole = Instance.build(table, budget.limits, pins, exclude, at_least=budget.at_least)
    result = {}
    for position, column in enumerate(alone.columns):
        others = smallest(whole, position, deadline)
        key = column if alone.mosts[position] is None else f">={column}"
        result[key] = Smallest(
            alone=alone.resource_value(position, alone.base[1 + position]),
            with_others=None if others is None else whole.resource_value(position, others),
        )
    for key in budget.limits:
        if key.startswith(PEAK):
            result[key] = _smallest_peak(table, key, budget, pins, exclude, deadline)
    return result


def _smallest_peak(
    table: LayerTable,
    key: str,
    budget: Budget,
    pins: Mapping[str, Choice] | None,
    exclude: Excludes | None,
    deadline: float,
) -> Smallest:
    """By bisection over the values of the column: a higher peak never makes less feasible."""
    integers, digits = to_integers(values_of(table, key))
    values = [to_number(value, digits) for value in np.unique(integers).tolist()]

    def first(limits: Mapping[str, int | float], at_least: Mapping[str, int | float]) -> int | None:
        low, high = 0, len(values)
        while low < high:
            middle = (low + high) // 2
            tried = {**limits, key: values[middle]}
            instance = Instance.build(table, tried, pins, exclude, at_least=at_least)
            fits = not instance.is_empty
            if fits and instance.columns:
                proof = prove(instance, guess(instance), deadline)
                if proof.chosen is None and not proof.complete:
                    return None
                fits = proof.chosen is not None
            low, high = (low, middle) if fits else (middle + 1, high)
        return low if low < len(values) else None

    by_itself = first({}, {})
    assert by_itself is not None
    beside = first(budget.limits, budget.at_least)
    return Smallest(values[by_itself], None if beside is None else values[beside])

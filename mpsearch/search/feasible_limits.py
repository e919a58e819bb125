"""What limits can be: the least total of every key, alone and beside the others; what is of use."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from mpsearch.knapsack.instance import Instance
from mpsearch.search.proof import Proof, fewest_choices, guess, prove
from mpsearch.tables.budget import PEAK, Budget, values_of
from mpsearch.tables.choice import Choice
from mpsearch.tables.exact import to_integers, to_number
from mpsearch.tables.solution import Smallest
from mpsearch.tables.table import LayerTable

Excludes = Mapping[str, Collection[Choice]]
Optimum = Callable[[Instance], Proof]


def smallest(
    instance: Instance,
    position: int,
    deadline: float | None = None,
    optimum: Optimum | None = None,
) -> int | None:
    """The least total of one resource while the other limits hold, exactly; None if unknown.

    optimum: what proves an instance, where that is more than its limits."""
    others = [index for index in range(len(instance.resources)) if index != position]
    swapped = replace(
        instance,
        omega=instance.resources[position],
        columns=tuple(instance.columns[index] for index in others),
        resources=tuple(instance.resources[index] for index in others),
        limits=tuple(instance.limits[index] for index in others),
        digits=(instance.digits[1 + position], *(instance.digits[1 + index] for index in others)),
        mosts=tuple(instance.mosts[index] for index in others),
    )
    if swapped.is_empty:
        return None
    proof = prove(swapped, guess(swapped), deadline) if optimum is None else optimum(swapped)
    return proof.upper if proof.optimal else None


SECONDS = 5.0  # for all columns together; only `with_others` is searched for


@dataclass(frozen=True)
class Range:
    """The totals of one resource column that a limit can ask for, exact.

    least: no assignment takes less. with_others: the least while the other limits hold; None where
    they are infeasible by themselves, or time ran out. useful: the least total of an assignment
    with the least Ω of all; a larger limit on this column alone improves nothing. most: the
    largest choice of every layer.
    """

    least: int | float
    with_others: int | float | None
    useful: int | float
    most: int | float


def ranges(
    table: LayerTable,
    pins: Mapping[str, Choice] | None = None,
    exclude: Mapping[str, Collection[Choice]] | None = None,
    limits: Mapping[str, int | float] | None = None,
    seconds: float = SECONDS,
    at_least: Mapping[str, int | float] | None = None,
) -> dict[str, Range]:
    """Column -> range, for every resource column of the table.

    `useful` leaves the limits aside, pins and excludes hold throughout. Raises InputError as
    `Instance.build` does.
    """
    limits = limits or {}
    keys = ("omega", *table.columns)
    deadline = time.monotonic() + seconds
    found = {}
    for column in table.columns:
        paid = (column,)
        instance = Instance.build(table, {}, pins, exclude, keys, paid=paid)
        whole = Instance.build(table, limits, pins, exclude, keys, at_least, paid=paid)
        omega = instance.resources[instance.columns.index("omega")]
        best = instance.allowed & (omega == instance.row_minimum(omega)[:, None]).astype(bool)
        row = instance.columns.index(column)
        matrix = instance.resources[row]
        least = instance.base[1 + row]
        limited = bool(at_least) or any(other != column for other in limits)
        within: int | None = least
        if limited:
            within = smallest(whole, whole.columns.index(column), deadline)
        useful = np.where(best, matrix, matrix.max()).min(axis=1)
        most = np.where(instance.allowed, matrix, matrix.min()).max(axis=1)
        found[column] = Range(
            least=instance.resource_value(row, least),
            with_others=None if within is None else instance.resource_value(row, within),
            useful=instance.resource_value(row, sum(useful.tolist())),
            most=instance.resource_value(row, sum(most.tolist())),
        )
    return found


def smallest_feasible(
    table: LayerTable,
    budget: Budget,
    pins: Mapping[str, Choice] | None = None,
    exclude: Excludes | None = None,
    max_distinct: int | None = None,
) -> dict[str, Smallest]:
    """By limited key the least total, of lower limits (keyed `>=COLUMN`) the largest one; all of it
    with `max_distinct` different choices at most.

    `with_others` is None where the others are infeasible by themselves, or after 5 s in all.
    """
    deadline = time.monotonic() + SECONDS
    sums = {key: limit for key, limit in budget.limits.items() if not key.startswith(PEAK)}
    alone = Instance.build(table, sums, pins, exclude, at_least=budget.at_least)
    whole = Instance.build(table, budget.limits, pins, exclude, at_least=budget.at_least)

    def optimum(instance: Instance) -> Proof:
        if max_distinct is None or max_distinct >= len(table.choices):
            return prove(instance, guess(instance), deadline)
        return fewest_choices(
            instance, max_distinct, lambda part: prove(part, guess(part), deadline)
        )

    most = tuple(sum(row.max(axis=1).tolist()) for row in alone.resources)
    alone = replace(alone, limits=most)  # which allow everything
    result = {}
    for position, column in enumerate(alone.columns):
        others = smallest(whole, position, optimum=optimum)
        least = smallest(alone, position, optimum=optimum)
        key = column if alone.mosts[position] is None else f">={column}"
        result[key] = Smallest(
            alone=alone.resource_value(
                position, alone.base[1 + position] if least is None else least
            ),
            with_others=None if others is None else whole.resource_value(position, others),
        )
    for key in budget.limits:
        if key.startswith(PEAK):
            result[key] = _smallest_peak(table, key, budget, pins, exclude, optimum)
    return result


def _smallest_peak(
    table: LayerTable,
    key: str,
    budget: Budget,
    pins: Mapping[str, Choice] | None,
    exclude: Excludes | None,
    optimum: Optimum,
) -> Smallest:
    """By bisection over the values of the column: a higher peak never makes less feasible."""
    integers, digits = to_integers(values_of(table, key))
    values = [to_number(value, digits) for value in np.unique(integers).tolist()]

    def first(
        limits: Mapping[str, int | float],
        at_least: Mapping[str, int | float],
        searched: bool = True,
    ) -> int | None:
        low, high = 0, len(values)
        while low < high:
            middle = (low + high) // 2
            tried = {**limits, key: values[middle]}
            instance = Instance.build(table, tried, pins, exclude, at_least=at_least)
            fits = not instance.is_empty
            if fits and searched:
                proof = optimum(instance)
                if proof.chosen is None and not proof.complete:
                    return None
                fits = proof.chosen is not None
            low, high = (low, middle) if fits else (middle + 1, high)
        return low if low < len(values) else None

    by_itself = first({}, {})
    if by_itself is None:  # so few different choices do not do, or time ran out: what layers have
        by_itself = first({}, {}, searched=False) or 0
    beside = first(budget.limits, budget.at_least)
    return Smallest(values[by_itself], None if beside is None else values[beside])

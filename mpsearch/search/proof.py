"""Proof of optimality, whoever found the assignment: exact bounds, and a better one if any.

What every limit can be, before any search: between too little and more than is of use.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.knapsack.instance import Instance
from mpsearch.knapsack.problem import scale
from mpsearch.solvers.dual import maximise
from mpsearch.solvers.lagrangian import search
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable

ROUNDS = 40  # each takes off 60 bits; all doubles from 5e-324 to 1.8e308 have 2,100


@dataclass(frozen=True, eq=False)
class Proof:
    """chosen: the best assignment known, or None; upper, lower: exact Ω that enclose the optimum.

    `complete`: the search dropped nothing, so that None means infeasible.
    """

    chosen: NDArray[Any] | None
    upper: int | None
    lower: int
    complete: bool

    @property
    def optimal(self) -> bool:
        """Whether upper and lower agree: exactly, or to 13 digits where Ω takes over 60 bits."""
        if self.upper is None:
            return False
        return (self.upper - self.lower) * 10**13 <= abs(self.upper)


def guess(instance: Instance) -> NDArray[Any] | None:
    """A feasible assignment from the Lagrangian dual, or None: what scales the problem."""
    problem, _ = scale(instance, None)
    if not problem.allowed.any(axis=1).all():
        return None
    found = [one for one in maximise(problem).incumbents if instance.is_feasible(one)]
    return min(found, key=lambda one: instance.sum(instance.omega, one), default=None)


def prove(
    instance: Instance,
    incumbent: NDArray[Any] | None,
    deadline: float | None = None,
    max_states: int | None = None,
) -> Proof:
    """Improve on the incumbent or prove that nothing is better, in exact units.

    Ω that needs more than 60 bits is rounded down; each round's better assignment shortens the
    range and so sharpens the unit, until the rounding is below the accuracy of a double.
    """
    chosen = incumbent
    lower = instance.base[0]
    complete = False
    for _ in range(ROUNDS):
        upper = None if chosen is None else instance.sum(instance.omega, chosen)
        problem, shift = scale(instance, upper)
        found = search(problem, chosen, deadline, max_states)
        complete = found.complete
        lower = max(lower, instance.base[0] + (found.bound << shift))
        better = found.chosen
        if better is not None and not instance.is_feasible(better):
            # Rounded weights admitted too much: search among those that are surely feasible.
            problem, _ = scale(instance, upper, round_up=True)
            better = search(problem, chosen, deadline, max_states).chosen
            complete = complete and better is not None
        if better is None:
            return Proof(chosen, upper, lower, complete)
        total = instance.sum(instance.omega, better)
        progress = upper is None or total < upper
        if progress:
            chosen, upper = better, total
        assert upper is not None
        proof = Proof(chosen, upper, min(lower, upper), complete)
        late = deadline is not None and time.monotonic() > deadline
        if proof.optimal or shift == 0 or not complete or late or not progress:
            return proof
    return proof


def smallest(instance: Instance, position: int, deadline: float | None) -> int | None:
    """The least total of one resource while the other limits hold, exactly; None if unknown."""
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
    proof = prove(swapped, guess(swapped), deadline)
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

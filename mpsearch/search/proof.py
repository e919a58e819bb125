"""Proof of optimality, whoever found the assignment: exact bounds, and a better one if any."""

import time
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from mpsearch.knapsack.instance import Instance
from mpsearch.knapsack.problem import scale
from mpsearch.solvers.dual import maximise
from mpsearch.solvers.lagrangian import search

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

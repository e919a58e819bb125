"""Proof of optimality, whoever found the assignment: exact bounds, and a better one if any.

At most k distinct choices in the whole network: the best subset of k choices, proven. Every subset
is an instance of its own with the other choices forbidden, so that every solver can take part. A
quick bound for each comes first; subsets that cannot beat the best one are never searched.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError
from mpsearch.knapsack.instance import Instance
from mpsearch.knapsack.problem import scale
from mpsearch.solvers.dual import maximise
from mpsearch.solvers.lagrangian import search

ROUNDS = 40  # each takes off 60 bits; all doubles from 5e-324 to 1.8e308 have 2,100
MOST_SUBSETS = 10_000


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


def fewest_choices(instance: Instance, most: int, run: Callable[[Instance], Proof]) -> Proof:
    """The best assignment with at most `most` different choices; `run` proves one instance."""
    columns = np.flatnonzero(instance.allowed.any(axis=0)).tolist()
    most = min(most, len(columns))
    if comb(len(columns), most) > MOST_SUBSETS:
        raise InputError(
            f"{len(columns)} choices have {comb(len(columns), most):,} subsets of {most}; exclude "
            f"some choices: at most {MOST_SUBSETS:,} subsets are searched"
        )
    bounded = []
    complete = True
    for subset in combinations(columns, most):
        only = np.zeros(instance.allowed.shape[1], dtype=bool)
        only[list(subset)] = True
        part = replace(instance, allowed=instance.allowed & only)
        if not part.is_empty:
            quick = prove(part, guess(part), max_states=1)
            if quick.chosen is not None or not quick.complete:
                bounded.append((quick.lower, part))
    best = Proof(None, None, instance.base[0], complete)
    lowest = None
    for lower, part in sorted(bounded, key=lambda one: one[0]):
        if best.upper is not None and lower >= best.upper:
            break
        proof = run(part)
        complete &= proof.complete
        lowest = proof.lower if lowest is None else min(lowest, proof.lower)
        if proof.upper is not None and (best.upper is None or proof.upper < best.upper):
            best = proof
    if best.upper is None or lowest is None:
        return replace(best, complete=complete)
    return Proof(best.chosen, best.upper, min(lowest, best.upper), complete)

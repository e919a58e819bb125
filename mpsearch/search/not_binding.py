"""Limits that do not bind: without one of them the optimum is no better. And where they would.

Every statement is proven in the table's exact integers, or not made.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mpsearch.knapsack.instance import Instance
from mpsearch.search.feasible_limits import Excludes, smallest
from mpsearch.search.proof import Proof, fewest_choices, guess, prove
from mpsearch.tables.budget import PEAK, Budget, Minimand, values_of
from mpsearch.tables.choice import Choice
from mpsearch.tables.exact import to_integers, to_number
from mpsearch.tables.solution import Useful
from mpsearch.tables.table import LayerTable

SECONDS = 1.0  # for all limits together
LOWER = ">="


def not_binding(
    table: LayerTable,
    budget: Budget,
    choices: Mapping[str, Choice],
    pins: Mapping[str, Choice] | None = None,
    exclude: Excludes | None = None,
    minimize: Minimand | None = None,
    max_distinct: int | None = None,
    seconds: float | None = None,
) -> dict[str, Useful]:
    """Of an optimum within a budget, by key (`>=` before those of lower limits): limits without all
    of which nothing would be better; where there is no limit, all columns of the table.

    Where one of two limits is enough, the first one is said not to bind. seconds: at most, and
    never more than one; a limit of which nothing is proven in it is left out.
    """
    deadline = time.monotonic() + min(SECONDS, SECONDS if seconds is None else seconds)
    asked = _Asked(table, budget, choices, pins, exclude, minimize, max_distinct, deadline)
    limits = [*budget.limits, *(f"{LOWER}{key}" for key in budget.at_least)]
    if not limits:
        return {column: asked.useful(column, None) for column in table.columns}
    found: dict[str, Useful] = {}
    for key in limits:
        best = asked.still_best([*found, key])
        if best is not None:
            found[key] = asked.useful(key, best)
    return found


@dataclass(frozen=True)
class _Asked:
    """What an optimum was searched in."""

    table: LayerTable
    budget: Budget
    choices: Mapping[str, Choice]
    pins: Mapping[str, Choice] | None
    exclude: Excludes | None
    minimize: Minimand | None
    max_distinct: int | None
    deadline: float

    def still_best(self, keys: Collection[str]) -> int | None:
        """What the choices take of what is minimised, where without these limits none take less;
        None where some do, and where neither is proven."""
        instance = self._without(keys)
        position = {choice: number for number, choice in enumerate(instance.choices)}
        chosen = np.array([position[self.choices[names[0]]] for names in instance.members])
        if not instance.allowed[np.arange(len(chosen)), chosen].all():
            return None
        now = instance.sum(instance.omega, chosen)
        if now == instance.base[0]:
            return now
        proof = self._optimum(instance, chosen)
        return now if proof.optimal and proof.upper == now else None

    def useful(self, key: str, best: int | None) -> Useful:
        """Beside all other limits. best: the least that is minimised; None: not known yet."""
        if key.startswith(PEAK):
            return Useful(self._peak(key, None), self._peak(key, best))
        instance = self._without([key])
        row = next(
            n for n, name in enumerate(instance.columns)
            if name == key.removeprefix(LOWER)
            and (instance.mosts[n] is not None) == key.startswith(LOWER)
        )  # fmt: skip
        tightest = smallest(instance, row, optimum=self._optimum)
        if best is None:
            proof = self._optimum(instance)
            best = proof.upper if proof.optimal else None
        if best is None:
            free = None
        elif best == instance.base[0]:  # every layer has one of its best: these alone are left
            matrix = instance.omega
            only = (matrix == instance.row_minimum(matrix)[:, None]).astype(bool)
            bounded = replace(instance, allowed=instance.allowed & only)
            free = smallest(bounded, row, optimum=self._optimum)
        else:
            bounded = replace(
                instance,
                columns=(*instance.columns, ""),
                resources=(*instance.resources, instance.omega),
                limits=(*instance.limits, best),
                digits=(*instance.digits, instance.digits[0]),
                mosts=(*instance.mosts, None),
            )
            free = smallest(bounded, row, optimum=self._optimum)
        ends = (None if one is None else instance.resource_value(row, one)
                for one in (tightest, free))  # fmt: skip
        return Useful(*ends)

    def _peak(self, key: str, best: int | None) -> int | float | None:
        """The lowest peak with an assignment, with one that is as good as `best` where that is
        given: by bisection, as a higher one allows no less."""
        integers, digits = to_integers(values_of(self.table, key))
        values = [to_number(value, digits) for value in np.unique(integers).tolist()]
        low, high = 0, len(values) - 1  # the highest allows everything
        while low < high:
            middle = (low + high) // 2
            tried = self._without([key], {key: values[middle]})
            proof = Proof(None, None, 0, True) if tried.is_empty else self._optimum(tried)
            if proof.upper is None and not proof.complete:
                return None
            if proof.upper is not None and best is not None and not proof.optimal:
                return None
            does = proof.upper is not None and (best is None or proof.upper <= best)
            low, high = (low, middle) if does else (middle + 1, high)
        return values[low]

    def _without(
        self, keys: Collection[str], more: Mapping[str, int | float] | None = None
    ) -> Instance:
        """The problem with limits of these keys that allow everything; and with `more` limits.

        Choices are left out as with the limits: what lower activation bits buy is still asked."""
        sums = [key for key in keys if not key.startswith((PEAK, LOWER))]
        limits = {key: limit for key, limit in self.budget.limits.items() if key not in keys}
        at_least = {key: 0 if f"{LOWER}{key}" in keys else limit
                    for key, limit in self.budget.at_least.items()}  # fmt: skip
        return Instance.build(
            self.table, limits | dict(more or {}), self.pins, self.exclude, sums, at_least,
            self.minimize, sums,
        )  # fmt: skip

    def _optimum(self, instance: Instance, chosen: NDArray[np.int64] | None = None) -> Proof:
        few = self.max_distinct
        if few is not None and few < len(self.table.choices):
            return fewest_choices(
                instance, few, lambda part: prove(part, guess(part), self.deadline)
            )
        return prove(instance, guess(instance) if chosen is None else chosen, self.deadline)

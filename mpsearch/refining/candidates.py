"""Assignments of one budget that are worth measuring: the best of every metric, and exchanges.

No metric ranks assignments as measuring them does, so every column that the table has of Ω proposes
its optimum and what comes next, and each again what it likes best near an assignment that measured
well: one layer a step down pays for others that go up, and the reverse. Whatever is proposed keeps
all that `solve` was asked: limits of every kind, pins, excludes, groups, the number of choices.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from mpsearch.interactions.k_best import k_best
from mpsearch.knapsack.instance import Instance
from mpsearch.search.solving import solve
from mpsearch.tables.budget import Budget, Minimand
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable

CHANGES = 3  # decisions that an exchange changes at most: one pays for two, or two for one
_SPARE = 8  # so many times the list is asked for, where some of it has too many different choices

Choices = Mapping[str, Choice]


@dataclass(frozen=True)
class Candidate:
    """An assignment by layer name, in the table's order, and who proposed it.

    source: `optimum of omega_kl`, `number 2 of omega`, `exchange by omega`.
    """

    choices: Choices
    source: str

    @property
    def key(self) -> str:
        """The choices as text: `w4a8 w8a8 w2a8`."""
        return " ".join(map(str, self.choices.values()))


@dataclass(frozen=True, eq=False)
class Asked:
    """What `solve` was asked: a table and everything that an assignment has to keep."""

    table: LayerTable
    """The table that is searched."""
    budget: Budget
    """Upper and lower limits."""
    pins: Mapping[str, Choice] = field(default_factory=dict)
    """Layer name -> the choice that it has to have."""
    exclude: Mapping[str, Collection[Choice]] = field(default_factory=dict)
    """Layer name, or `""` for every layer, -> the choices that it may not have."""
    max_distinct: int | None = None
    """How many different choices there may be; None: any number."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Ω and the metrics that are not Ω itself under its own name: `("omega", "omega_kl")`."""
        metrics = self.table.metrics.items()
        others = [name for name, values in metrics if not np.array_equal(values, self.table.omega)]
        return ("omega", *others)

    def instance(self, column: str) -> Instance:
        """The exact problem with this column to minimise."""
        return Instance.build(
            self.table, self.budget.limits, self.pins, self.exclude,
            at_least=self.budget.at_least, minimize=Minimand(((column, "1"),)),
        )  # fmt: skip

    def few_enough(self, chosen: NDArray[np.int64]) -> bool:
        """Whether indices [L] have no more different choices than asked."""
        return self.max_distinct is None or len(set(chosen.tolist())) <= self.max_distinct

    def in_order(self, choices: Choices) -> dict[str, Choice]:
        """The choices in the table's order."""
        return {name: choices[name] for name in self.table.layer_names}


def optima(asked: Asked, best: Choices, seconds: float | None = None) -> list[Candidate]:
    """The optimum of every column, that of Ω, which is `best`, first; equal ones are one.

    seconds: for each; a column whose search finds nothing in time proposes nothing.
    """
    found = [Candidate(asked.in_order(best), "optimum of omega")]
    for column in asked.columns[1:]:
        solution = solve(
            asked.table, asked.budget, pins=asked.pins, exclude=asked.exclude, time_limit=seconds,
            minimize=Minimand(((column, "1"),)), max_distinct=asked.max_distinct,
            explain=False,
        )  # fmt: skip
        if solution.choices:
            found.append(Candidate(asked.in_order(solution.choices), f"optimum of {column}"))
    return _joined(found)


def next_best(asked: Asked, count: int) -> list[Candidate]:
    """The `count` best assignments of every column, the first of each before the second of any."""
    lists = []
    for column in asked.columns:
        found = _best(asked, asked.instance(column), count)
        lists.append([
            Candidate(one, f"number {place} of {column}") for place, one in enumerate(found, 1)
        ])  # fmt: skip
    return _joined(_in_turn(lists))


def exchanges(asked: Asked, around: Choices, count: int) -> list[Candidate]:
    """The `count` best assignments of every column that change at most 3 decisions of `around`."""
    lists = []
    for column in asked.columns:
        near = within_changes(asked.instance(column), around, CHANGES)
        found = _best(asked, near, count + 1)
        others = [one for one in found if one != asked.in_order(around)]
        lists.append([Candidate(one, f"exchange by {column}") for one in others[:count]])
    return _joined(_in_turn(lists))


def within_changes(instance: Instance, around: Choices, most: int) -> Instance:
    """The same problem with one more limit: at most `most` decisions other than in `around`."""
    changed = np.ones(instance.allowed.shape, dtype=np.int64)
    for decision, members in enumerate(instance.members):
        changed[decision, instance.choices.index(around[members[0]])] = 0
    return replace(
        instance,
        columns=(*instance.columns, "changes"),
        resources=(*instance.resources, np.where(instance.allowed, changed, 0)),
        limits=(*instance.limits, most),
        digits=(*instance.digits, 0),
        mosts=(*instance.mosts, None),
    )


def _best(asked: Asked, instance: Instance, count: int) -> list[dict[str, Choice]]:
    wanted = count if asked.max_distinct is None else _SPARE * count
    found = [one for one in k_best(instance, wanted).chosen if asked.few_enough(one)]
    return [asked.in_order(instance.by_layer(one)) for one in found[:count]]


def _in_turn(lists: Iterable[list[Candidate]]) -> Iterator[Candidate]:
    """The first of each, then the second of each, and so on."""
    for row in zip_longest(*lists):
        yield from (one for one in row if one is not None)


def _joined(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Each assignment once, where it was proposed first, with all who proposed it."""
    found: dict[str, Candidate] = {}
    for one in candidates:
        known = found.get(one.key)
        found[one.key] = one if known is None else replace(
            known, source=f"{known.source}, {one.source}"
        )  # fmt: skip
    return list(found.values())

"""Random splits in which nobody is twice: whole groups are dealt out, class by class evenly."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np


def linked(sets: Sequence[Sequence[str]]) -> list[int]:
    """The number of the group that each set of names is in.

    Sets that share a name are in one group, also through others: `[[a, b], [c], [b, d]]` gives
    `[0, 1, 0]`. (Union-find.)
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for names in sets:
        for name in names:
            parent[root(name)] = root(names[0])
    numbers: dict[str, int] = {}
    return [numbers.setdefault(root(names[0]), len(numbers)) for names in sets]


def deal(
    groups: Sequence[int], cells: Sequence[Hashable], fractions: Mapping[str, float], seed: int
) -> list[str]:
    """The split of each sample; samples of a group stay together.

    `cells[i]` is what is to be spread evenly, such as the class. Groups are dealt out from the
    largest to the smallest, equal ones in random order: each to the split that lacks the largest
    share of what it wants of the group's cells. A cell of three or more small groups is in each of
    three splits. Splits with a fraction of 0 get nothing.
    """
    total = Counter(cells)
    counts: dict[int, Counter[Hashable]] = {}
    for group, cell in zip(groups, cells, strict=True):
        counts.setdefault(group, Counter())[cell] += 1
    random = np.random.default_rng(seed)
    order = [list(counts)[index] for index in random.permutation(len(counts))]
    order.sort(key=lambda group: -counts[group].total())
    have: dict[str, Counter[Hashable]] = {
        split: Counter() for split, fraction in fractions.items() if fraction > 0
    }

    def lack(split: str, group: int) -> float:
        return sum(
            count * (1 - have[split][cell] / (fractions[split] * total[cell]))
            for cell, count in counts[group].items()
        )

    chosen: dict[int, str] = {}
    for group in order:
        split = max(have, key=lambda split: lack(split, group))
        chosen[group] = split
        have[split] += counts[group]
    return [chosen[group] for group in groups]

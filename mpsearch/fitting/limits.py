"""The memory of every step as limits of the knapsack, and cuts where these are not enough.

A step's bytes are a sum of functions of few layers (`sizes`). One of a single layer is a column as
it is. One of n layers is at least the mean of n columns: of each layer the least that the function
is with this choice, whatever the others have. So no assignment that fits breaks a limit; one that
keeps them all and still does not fit is cut off, with all those that provably fit no better.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import lcm, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.fitting.sizes import Function, Sizes
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable

FOOTPRINT = "footprint of activations"
_MOST_CHECKED = 256  # combinations of one cut
_MOST_PLACED = 8  # of these, where each has to be placed


@dataclass(frozen=True)
class Limit:
    """Σ over layers of `columns`[layer][class] + `constant` <= `most`."""

    name: str
    columns: Mapping[str, tuple[int, ...]]
    constant: int
    most: int

    @property
    def largest(self) -> int:
        """Of all assignments."""
        return self.constant + sum(max(column) for column in self.columns.values())

    def is_implied_by(self, other: "Limit") -> bool:
        """Whether no assignment takes more of this one than of the other, in the same units."""
        difference = self.constant * other.most - other.constant * self.most
        for layer in self.columns.keys() | other.columns.keys():
            own, its = self.columns.get(layer), other.columns.get(layer)
            count = len(own or its or ())
            mine, theirs = own or (0,) * count, its or (0,) * count
            difference += max(
                a * other.most - b * self.most for a, b in zip(mine, theirs, strict=True)
            )
        return difference <= 0


def step_limits(sizes: Sizes, most: int) -> list[Limit]:
    """One for each step that some assignment could exceed, without those that others imply."""
    found: list[Limit] = []
    for key, parts in sizes.functions.items():
        limit = _limit(sizes, key, parts, most)
        if limit.largest <= limit.most or any(limit.is_implied_by(other) for other in found):
            continue
        found = [other for other in found if not other.is_implied_by(limit)]
        found.append(limit)
    return found


def smallest_possible(sizes: Sizes) -> int:
    """Bytes that no assignment goes below."""
    found = 0
    for key, parts in sizes.functions.items():
        limit = _limit(sizes, key, parts, 1)  # `most` is the factor then
        least = limit.constant + sum(map(min, limit.columns.values()))
        found = max(found, -(-least // limit.most), sum(part.least for part in parts))
    return found


def _limit(sizes: Sizes, key: str, parts: Sequence[Function], most: int) -> Limit:
    factor = lcm(*(max(1, len(part.layers)) for part in parts if part.is_known))
    columns: dict[str, list[int]] = {}
    constant = 0
    for part in parts:
        if not part.is_known or not part.layers:
            constant += factor * part.least
            continue
        for place, layer in enumerate(part.layers):
            column = columns.setdefault(layer, [0] * len(sizes.classes[layer]))
            for number, least in enumerate(_leasts(part, place, len(column))):
                column[number] += factor // len(part.layers) * least
    shown = {layer: tuple(column) for layer, column in columns.items()}
    return Limit(f"memory in {key}", shown, constant, factor * most)


def _leasts(part: Function, place: int, count: int) -> list[int]:
    return [
        min(size for combination, size in part.table.items() if combination[place] == number)
        for number in range(count)
    ]


def footprints(sizes: Sizes) -> list[Limit]:
    """Columns without a limit, which say what a layer's choice takes: one takes no more memory than
    another, whatever the other layers have, where it is no larger in any of these columns."""
    orders: dict[str, dict[tuple[int, ...], None]] = {name: {} for name in sizes.classes}
    for parts in sizes.functions.values():
        for part in parts:
            for place, layer in enumerate(part.layers):
                for column in _columns(part, place, len(sizes.classes[layer])):
                    ranks = sorted(set(column))
                    if len(ranks) > 1:
                        orders[layer].setdefault(tuple(map(ranks.index, column)))
    found = []
    for number in range(max(map(len, orders.values()), default=0)):
        columns = {
            layer: list(known)[min(number, len(known) - 1)]
            for layer, known in orders.items() if known
        }  # fmt: skip
        most = sum(map(max, columns.values()))
        found.append(Limit(f"{FOOTPRINT} {number + 1}", columns, 0, most))
    return found


def _columns(part: Function, place: int, count: int) -> Iterator[tuple[int, ...]]:
    """What the classes of one layer take, for everything that the other layers may have."""
    if not part.is_known:
        yield tuple(range(count))  # more bits take more
        return
    others: dict[tuple[int, ...], list[int]] = {}
    for combination, size in part.table.items():
        rest = (*combination[:place], *combination[place + 1 :])
        others.setdefault(rest, [0] * count)[combination[place]] = size
    yield from map(tuple, others.values())


def cut(sizes: Sizes, choices: Mapping[str, Choice], most: int, number: int) -> Limit:
    """A limit that an assignment which takes more than `most` breaks, and only such.

    Where the tensors of one step are too large together, the layers that decide their bytes alone
    count; where only their places make it too much, all layers do. Every layer may have the classes
    of this assignment and others, as long as all combinations are too large.
    """
    chosen = sizes.chosen(choices)
    lives = sizes.lives(chosen)
    over = [key for key, moment in lives.moments.items() if moment.size > most]
    known = [
        key for key in over
        if key in sizes.functions and all(part.is_known for part in sizes.functions[key])
    ]  # fmt: skip
    if known:
        key = max(known, key=lambda k: lives.moments[k].size)
        layers = sorted({name for part in sizes.functions[key] for name in part.layers})

        def too_much(others: Mapping[str, int]) -> bool:
            return sizes.bytes_at(key, others) > most

    elif over:
        key = min(over, key=lambda k: len(_deciding(sizes, lives.moments[k].parts)))
        layers = sorted(_deciding(sizes, lives.moments[key].parts))

        def too_much(others: Mapping[str, int]) -> bool:
            return others == chosen

    else:
        layers = [name for name, classes in sizes.classes.items() if len(classes) > 1]

        def too_much(others: Mapping[str, int]) -> bool:
            return sizes.lives(others).peak_bytes > most

    sets = {name: {chosen[name]} for name in layers}
    many = _MOST_CHECKED if over else _MOST_PLACED
    for name in layers:
        for other in range(len(sizes.classes[name])):
            tried = {**sets, name: {other}}
            if (
                other in sets[name]
                or prod(map(len, {**sets, name: {*sets[name], other}}.values())) > many
            ):
                continue
            if all(
                too_much({**chosen, **dict(zip(tried, combination, strict=True))})
                for combination in product(*tried.values())
            ):
                sets[name].add(other)
    sets = {name: own for name, own in sets.items() if len(own) < len(sizes.classes[name])}
    columns = {
        name: tuple(int(n in own) for n in range(len(sizes.classes[name])))
        for name, own in sets.items()
    }
    return Limit(f"cut {number}", columns, 0, len(sets) - 1)


def _deciding(sizes: Sizes, parts: Sequence[Any]) -> frozenset[str]:
    nodes = {node for part in parts for node in part.nodes}
    return frozenset[str]().union(*map(sizes.deciding, nodes))


def with_columns(
    table: LayerTable, sizes: Sizes, limits: Sequence[Limit]
) -> tuple[LayerTable, dict[str, int]]:
    """The table with a column for every limit, and what these columns may add up to."""
    columns: dict[str, NDArray[np.int64]] = {}
    for limit in limits:
        values = np.zeros(len(table), dtype=np.int64)
        for row, (layer, choice) in enumerate(
            zip(table.layer_index.tolist(), table.choice_index.tolist(), strict=True)
        ):
            name = table.layer_names[layer]
            number = sizes.class_of.get(name, {}).get(table.choices[choice])
            if number is not None and name in limit.columns:
                values[row] = limit.columns[name][number]
        columns[limit.name] = values
    wider = replace(table, resources={**table.resources, **columns})
    return wider, {limit.name: limit.most - limit.constant for limit in limits}

"""What is proposed for measuring, against every assignment that a table has."""

import random
from dataclasses import replace

import numpy as np
import pytest
from oracles import every_assignment
from test_limits import case, fits

from mpsearch.refining.candidates import CHANGES, Asked, Candidate, exchanges, next_best, optima
from mpsearch.search.solving import solve
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable

Chosen = dict[str, Choice]


def asked_case(seed: int) -> tuple[Asked, list[Chosen], random.Random]:
    """A table with metrics of either sign, limits, a pin, an exclude, few different choices; and
    every assignment within all that by the definitions, at least one."""
    rng = random.Random(seed)
    table, budget, feasible = case(seed)
    metrics = {
        f"omega_{name}": np.array([rng.gauss(0.5, 1) for _ in range(len(table))])
        for name in ("kl", "loss")
    }
    table = replace(table, metrics=metrics)
    if not feasible:
        budget, feasible = Budget(), [dict(one) for one in every_assignment(table)]
    some = rng.choice(feasible)
    pins, exclude, most = {}, {}, None
    if rng.random() < 0.4:
        layer = rng.choice(table.layer_names)
        pins[layer] = some[layer]
        feasible = [one for one in feasible if one[layer] == some[layer]]
    if rng.random() < 0.4:
        unused = [choice for choice in table.choices if choice not in some.values()]
        if unused:
            exclude[""] = {unused[0]}
            feasible = [one for one in feasible if unused[0] not in one.values()]
    if rng.random() < 0.4:
        most = len(set(some.values()))
        feasible = [one for one in feasible if len(set(one.values())) <= most]
    return Asked(table, budget, pins, exclude, most), feasible, rng


def total(table: LayerTable, chosen: Chosen, column: str) -> float:
    position = {(row.layer, row.choice): number for number, row in enumerate(table.rows())}
    return sum(float(table.column(column)[position[cell]]) for cell in chosen.items())


def decisions(table: LayerTable, one: Chosen, other: Chosen) -> int:
    """In how many decisions two assignments differ: a group is one."""
    group = {layer.name: layer.group or f"only {layer.name}" for layer in table.layers}
    return len({group[name] for name in one if one[name] != other[name]})


@pytest.mark.parametrize("seed", range(30))
def test_all_that_was_asked_holds_and_every_columns_best_is_there(seed: int) -> None:
    asked, feasible, rng = asked_case(seed)
    solution = solve(
        asked.table, asked.budget, pins=asked.pins, exclude=asked.exclude,
        max_distinct=asked.max_distinct,
    )  # fmt: skip
    first = optima(asked, solution.choices)
    listed = next_best(asked, 5)
    around = rng.choice(feasible)
    near = exchanges(asked, around, 6)
    for candidate in (*first, *listed, *near):
        assert candidate.choices in feasible
        assert list(candidate.choices) == list(asked.table.layer_names)
        assert fits(asked.table, dict(candidate.choices), asked.budget)
    for some in (first, listed, near):
        assert len({one.key for one in some}) == len(some)
    assert first[0].choices == solution.choices
    for column in ("omega", "omega_kl", "omega_loss"):
        sums = sorted(total(asked.table, one, column) for one in feasible)
        (found,) = (one for one in first if f"optimum of {column}" in one.source.split(", "))
        assert total(asked.table, dict(found.choices), column) == pytest.approx(sums[0])
        for place, least in enumerate(sums[:5], start=1):
            ranked = [one for one in listed if f"number {place} of {column}" in _words(one)]
            if not ranked:  # too many of the best have too many different choices
                assert asked.max_distinct is not None
                break
            assert total(asked.table, dict(ranked[0].choices), column) == pytest.approx(least)
        neighbours = [one for one in feasible if 0 < decisions(asked.table, one, around) <= CHANGES]
        proposed = [one for one in near if f"exchange by {column}" in _words(one)]
        if asked.max_distinct is None:
            assert len(proposed) == min(6, len(neighbours))
        assert all(dict(one.choices) in neighbours for one in proposed)
        best = sorted(total(asked.table, one, column) for one in neighbours)[: len(proposed)]
        sums = sorted(total(asked.table, dict(one.choices), column) for one in proposed)
        assert sums == pytest.approx(best)


def _words(candidate: Candidate) -> list[str]:
    return candidate.source.split(", ")


def test_the_first_of_every_column_comes_before_the_second_of_any() -> None:
    asked, _, _ = asked_case(3)
    asked = replace(asked, budget=Budget(), pins={}, exclude={}, max_distinct=None)
    places = [min(int(word.split()[1]) for word in _words(one)) for one in next_best(asked, 6)]
    assert places == sorted(places)


def test_the_metric_that_omega_is_counts_once() -> None:
    table = asked_case(3)[0].table
    metrics = {"omega_sqnr": table.omega.copy(), "omega_kl": table.metrics["omega_kl"]}
    assert Asked(replace(table, metrics=metrics), Budget()).columns == ("omega", "omega_kl")
    assert Asked(replace(table, metrics={}), Budget()).columns == ("omega",)

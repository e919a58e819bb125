"""A limit that activation bits do not count in never lowers them, whatever Ω says."""

import random
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pytest
from oracles import by_layer, every_assignment, exact, naive_front, omega_of, total_of

from mpsearch.explaining.explaining import explain, what_if
from mpsearch.gating.ci_formats import supported
from mpsearch.interactions.k_best import k_best
from mpsearch.knapsack.instance import Instance
from mpsearch.pareto.front import front
from mpsearch.search.feasible_limits import ranges
from mpsearch.search.solving import solve
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget, Minimand
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable, Row

CHOICES = [Choice(2, 8), Choice(3, 8), Choice(4, 4), Choice(4, 8), Choice(8, 4), Choice(8, 8)]
Chosen = dict[str, Choice]


def table_of(seed: int, choices: list[Choice] | None = None) -> LayerTable:
    """Sizes are by the bits of weights; Ω of fewer bits for activations is as often less or equal
    as more; latency is by both, and rises with neither."""
    rng = random.Random(seed)
    choices = choices or sorted(rng.sample(CHOICES, rng.choice([3, 4])))
    groups = ["", "a", "", "a"] if seed % 2 else ["", "", "", ""]
    layers = [Layer(f"layer{i}", "conv2d", group) for i, group in enumerate(groups)]
    rows = []
    for layer in layers:
        weights, macs = rng.choice([1, rng.randrange(10, 1000)]), rng.randrange(10, 1000)
        height = {choice.w_bits: rng.uniform(0.5, 2) * 4.0**-choice.w_bits for choice in choices}
        for choice in choices:
            resources = {
                "size_bytes": -(-weights * choice.w_bits // 8),
                "bops": macs * choice.w_bits * choice.a_bits,
                "latency_s": rng.randrange(1, 5) / 1000,
            }
            omega = height[choice.w_bits] * rng.choice([0.5, 1.0, 1.0, 2.0])
            rows.append(Row(layer.name, choice, omega, 0.0, resources))
    return LayerTable.from_rows(layers, rows)


def kept(table: LayerTable, columns: tuple[str, ...]) -> list[Chosen]:
    """The assignments in which no layer (or group) has a choice that the rule leaves out."""
    rows = by_layer(table)
    members: dict[str, list[str]] = {}
    for layer in table.layers:
        members.setdefault(layer.group or layer.name, []).append(layer.name)

    def takes(names: list[str], choice: Choice, column: str) -> Fraction:
        if column == "omega":
            return sum((exact(rows[name][choice].omega) for name in names), Fraction(0))
        return sum((exact(rows[name][choice].resources[column]) for name in names), Fraction(0))

    left_out = {
        (names[0], one)
        for names in members.values()
        for one in table.choices
        for other in table.choices
        if other.a_bits > one.a_bits and other.w_bits >= one.w_bits
        and all(takes(names, other, column) <= takes(names, one, column) for column in columns)
    }  # fmt: skip
    leaders = [names[0] for names in members.values()]
    return [
        one for one in every_assignment(table)
        if not any((name, one[name]) in left_out for name in leaders)
    ]  # fmt: skip


def limit_for(table: LayerTable, column: str, seed: int) -> float:
    """A total that some assignment has."""
    some = random.Random(seed).choice(list(every_assignment(table)))
    return float(total_of(table, some, column))


def within(table: LayerTable, found: list[Chosen], limits: Mapping[str, float]) -> list[Chosen]:
    return [
        one for one in found
        if all(float(total_of(table, one, c)) <= limit for c, limit in limits.items())
    ]  # fmt: skip


@pytest.mark.parametrize("columns", [(), ("size_bytes",), ("size_bytes", "latency_s"), ("bops",)])
def test_every_search_leaves_out_what_lower_activation_bits_do_not_pay_for(
    columns: tuple[str, ...],
) -> None:
    differs = 0
    for seed in range(8):
        table = table_of(seed)
        limits = {column: limit_for(table, column, seed) for column in columns}
        left, everything = kept(table, columns), list(every_assignment(table))
        totals = sorted(omega_of(table, one) for one in within(table, left, limits))
        for solver in ("auto", "ortools"):
            assert solve(table, Budget(limits), solver).objective == float(totals[0])
        built = Instance.build(table, limits)
        chosen = [built.by_layer(np.array(one)) for one in k_best(built, 3).chosen]
        assert [omega_of(table, one) for one in chosen] == totals[:3]
        before = min(omega_of(table, one) for one in within(table, everything, limits))
        differs += before != totals[0]
    # Where activation bits count in what is limited, the answers are what they were without it.
    assert (differs == 0) == (columns == ("bops",))


def test_a_front_is_of_what_it_is_against_and_ranges_are_of_each_column() -> None:
    for seed in range(8):
        table = table_of(seed)
        for resource in ("size_bytes", "bops"):
            left = kept(table, (resource,))
            points = [(float(omega_of(table, one)), float(total_of(table, one, resource)))
                      for one in left]  # fmt: skip
            found = front(table, resource)
            got = set(zip(found.omega.tolist(), found.totals[resource].tolist(), strict=True))
            assert got == naive_front(points)
            best = min(omega_of(table, one) for one in left)
            least = min(total_of(table, one, resource) for one in left
                        if omega_of(table, one) == best)  # fmt: skip
            assert ranges(table)[resource].useful == float(least)
            smallest = solve(table, Budget(), minimize=Minimand.parse(table, resource))
            assert smallest.objective == float(
                min(total_of(table, one, resource) for one in every_assignment(table))
            )
            assert dict(smallest.choices) in left
        hull = [omega for _, omega in supported(table)]
        best = min(omega_of(table, one) for one in kept(table, ("size_bytes",)))
        assert not hull or min(hull) == pytest.approx(float(best), rel=1e-9)


def test_a_pin_keeps_its_choice_and_can_be_explained() -> None:
    low, layer = Choice(4, 4), "layer0"
    table = table_of(1, [low, Choice(4, 8), Choice(8, 8)])
    limits = {"size_bytes": float(table.uniform_total("size_bytes", table.choices[-1]))}
    solution = solve(table, Budget(limits), pins={layer: low})
    assert solution.choices[layer] == low
    assert {c.a_bits for name, c in solution.choices.items() if name != layer} == {8}
    assignment = Assignment.from_solution(solution, table.digest)
    assert explain(table, assignment, pins={layer: low}).status == "optimal"
    assert not what_if(table, assignment, {layer: low}).changed
    only = solve(table, Budget(limits), exclude={"": [c for c in table.choices if c != low]})
    assert set(only.choices.values()) == {low}

"""The K best assignments against a sort of all of them."""

import time
from fractions import Fraction

import numpy as np
import oracles
import pytest
from tables import random_limits, random_table

from mpsearch.errors import InputError
from mpsearch.interactions import k_best as module
from mpsearch.interactions.k_best import k_best
from mpsearch.knapsack.instance import Instance
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable, Row


def all_totals(table: LayerTable, limits: dict[str, float]) -> list[Fraction]:
    return sorted(
        oracles.omega_of(table, one)
        for one in oracles.every_assignment(table)
        if all(float(oracles.total_of(table, one, c)) <= most for c, most in limits.items())
    )


@pytest.mark.parametrize("beam", [3, 8_000])
@pytest.mark.parametrize("seed", range(40))
def test_totals_are_those_of_the_sorted_table(
    seed: int, beam: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAM", beam)
    layers, choices = [(3, 4), (5, 3), (7, 2), (6, 3)][seed % 4]
    table = random_table(seed, layers, choices, [1e-9, 1.0, 1e6][seed % 3], groups=seed % 2 == 0)
    limits = random_limits(seed, table, seed % 4)
    instance = Instance.build(table, limits)
    expected = all_totals(table, limits)
    for count in (1, 7, 10_000):
        found = k_best(instance, count)
        named = [instance.by_layer(chosen) for chosen in found.chosen]
        assert all(instance.is_feasible(chosen) for chosen in found.chosen)
        assert len({tuple(sorted(one.items())) for one in named}) == len(named)
        assert [oracles.omega_of(table, one) for one in named] == expected[:count]
        assert found.proven == len(named)


def test_with_too_few_states_only_what_is_proven_is_called_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BEAM", 2)
    monkeypatch.setattr(module, "MOST_STATES", 12)
    partial = 0
    for seed in range(12):
        table = random_table(seed, 6, 3, 1.0, groups=False)
        limits = random_limits(seed, table, 2)
        found = k_best(Instance.build(table, limits), 10)
        expected = all_totals(table, limits)
        named = [Instance.build(table, limits).by_layer(one) for one in found.chosen]
        totals = [oracles.omega_of(table, one) for one in named]
        assert totals == sorted(totals)
        assert totals[: found.proven] == expected[: found.proven]
        partial += 0 < found.proven < len(expected[:10])
    assert partial > 0


def test_a_deadline_in_the_past_gives_a_feasible_list_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = real_size(4)
    instance = Instance.build(table, {"size_bytes": _middle(table, "size_bytes")})
    whole = k_best(instance, 100)
    monkeypatch.setattr(module, "BEAM", 200)
    found = k_best(instance, 100, time.monotonic())
    assert len(found.chosen) == 100
    assert found.proven < 100
    totals = [oracles.omega_of(table, instance.by_layer(one)) for one in found.chosen]
    best = [oracles.omega_of(table, instance.by_layer(one)) for one in whole.chosen]
    assert totals[: found.proven] == best[: found.proven]
    assert totals == sorted(totals)
    assert all(instance.is_feasible(chosen) for chosen in found.chosen)


def test_a_hundred_of_a_real_size() -> None:
    table = real_size(7)
    limits = {column: _middle(table, column) for column in ("size_bytes", "bops")}
    instance = Instance.build(table, limits)
    found = k_best(instance, 100)
    assert (len(found.chosen), found.proven) == (100, 100)
    totals = [oracles.omega_of(table, instance.by_layer(chosen)) for chosen in found.chosen]
    assert totals == sorted(totals)
    # No single change within the limits may lead to a total below the last that is not listed.
    listed = {tuple(chosen.tolist()) for chosen in found.chosen}
    for chosen in found.chosen[::10]:
        for layer in range(54):
            for choice in range(4):
                other = np.array(chosen)
                other[layer] = choice
                if instance.is_feasible(other):
                    total = oracles.omega_of(table, instance.by_layer(other))
                    assert total >= totals[-1] or tuple(other.tolist()) in listed


def test_weights_beyond_sixty_bits() -> None:
    layers = [Layer(f"l{i}") for i in range(3)]
    big = 3**50
    rows = [
        Row(layer.name, Choice(b, b), 1.0 / b + i / 10, 0.0, {"cost": float(big * b + i)})
        for i, layer in enumerate(layers)
        for b in (2, 4, 8)
    ]
    table = LayerTable.from_rows(layers, rows)
    limits = {"cost": float(big * 14)}
    instance = Instance.build(table, limits)
    found = k_best(instance, 5)
    totals = [oracles.omega_of(table, instance.by_layer(one)) for one in found.chosen]
    assert all(instance.is_feasible(one) for one in found.chosen)
    assert totals[: found.proven] == all_totals(table, limits)[: found.proven]


def test_nothing_feasible_and_a_wrong_count() -> None:
    table = random_table(1, 3, 2, 1.0, groups=False)
    assert len(k_best(Instance.build(table, {"size_bytes": 1}), 5).chosen) == 0
    with pytest.raises(InputError, match="got 0 assignments"):
        k_best(Instance.build(table, {}), 0)


def real_size(seed: int) -> LayerTable:
    """54 layers x 4 choices without ties."""
    rng = np.random.default_rng(seed)
    layers = [Layer(f"l{i}") for i in range(54)]
    rows = []
    for layer in layers:
        weights, height = int(rng.integers(100, 10**5)), 10 ** rng.uniform(-2, 0)
        macs = weights * int(rng.integers(1, 4000))
        for b in (2, 3, 4, 8):
            omega = height * 4.0**-b * rng.uniform(0.7, 1.4)
            resources: dict[str, int | float] = {"size_bytes": weights * b, "bops": macs * b * b}
            rows.append(Row(layer.name, Choice(b, b), omega, 0.0, resources))
    return LayerTable.from_rows(layers, rows)


def _middle(table: LayerTable, column: str) -> int:
    low, high = (table.uniform_total(column, table.choices[k]) for k in (0, -1))
    return int((low + high) / 2)

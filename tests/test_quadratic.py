"""The quadratic search against every assignment, and its parts against their definitions."""

import itertools
import time
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from tables import random_limits, random_table

from mpsearch import local_search
from mpsearch.convexify import convexify
from mpsearch.instance import Instance
from mpsearch.problem import scale
from mpsearch.proof import guess
from mpsearch.quadratic import minimise

Floats = NDArray[np.float64]


def random_gram(seed: int, layers: int, choices: int, rank: int) -> Floats:
    """Positive semidefinite [L, C, L, C]: layers of unlike heights, choices of one layer alike."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(layers, 1, rank)) + rng.normal(size=(1, 1, rank)) * rng.choice([0, 1])
    changes = own + 0.7 * rng.normal(size=(layers, choices, rank))
    changes = (
        changes * 10 ** rng.uniform(-2, 0, (layers, 1, 1)) * 2.0 ** -np.arange(choices)[:, None]
    )
    flat = changes.reshape(layers * choices, rank)
    gram: Floats = (flat @ flat.T / rank).reshape(layers, choices, layers, choices)
    return gram


def form(gram: Floats, chosen: tuple[int, ...]) -> float:
    """xᵀGx by its double sum."""
    return sum(float(gram[a, i, b, j]) for a, i in enumerate(chosen) for b, j in enumerate(chosen))


def every_feasible(instance: Instance) -> list[tuple[int, ...]]:
    options = [np.flatnonzero(row).tolist() for row in instance.allowed]
    result = []
    for chosen in itertools.product(*options):
        totals = [
            sum(int(matrix[layer, choice]) for layer, choice in enumerate(chosen))
            for matrix in instance.resources
        ]
        if all(total <= limit for total, limit in zip(totals, instance.limits, strict=True)):
            result.append(chosen)
    return result


def random_instance(seed: int, layers: int, choices: int, limits: int, groups: bool) -> Instance:
    table = random_table(seed, layers, choices, 1e-3, groups)
    exclude = {"layer1": [table.choices[0]]} if seed % 3 == 0 and not groups else {}
    return Instance.build(table, random_limits(seed, table, limits), exclude=exclude)


@pytest.mark.parametrize("seed", range(40))
def test_the_answer_is_the_least_of_all_assignments(seed: int) -> None:
    layers, choices = [(3, 4), (5, 3), (7, 2), (6, 3)][seed % 4]
    instance = random_instance(seed, layers, choices, seed % 3, groups=seed % 5 == 0)
    feasible = every_feasible(instance)
    start = guess(instance)
    if start is None:
        pytest.skip("the limits leave nothing, or nothing easily found")
    gram = random_gram(seed, len(instance.members), choices, rank=[2, 5, 60][seed % 3])
    least = min(form(gram, chosen) for chosen in feasible)
    answer = minimise(instance, gram, start)
    assert answer.proven
    assert tuple(answer.chosen) in feasible
    assert answer.objective == pytest.approx(form(gram, tuple(answer.chosen)), rel=1e-12)
    assert answer.objective == pytest.approx(least, rel=2e-9, abs=1e-18)
    assert answer.bound <= least
    assert answer.gap <= 1.01e-9
    for limit in (0.0, 1e-3):
        early = minimise(instance, gram, start, time.monotonic() + limit)
        assert early.bound <= least * (1 + 1e-12)
        assert least * (1 - 1e-12) <= early.objective <= form(gram, tuple(start)) * (1 + 1e-12)


def test_a_proof_without_enumeration_of_the_last_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpsearch.quadratic.ENUMERATED", 1)
    monkeypatch.setattr("mpsearch.local_search.descend", lambda problem, quadratic, chosen: chosen)
    for seed in range(1, 9):
        instance = random_instance(seed, 6, 3, 1, groups=False)
        start = guess(instance)
        if start is None:
            continue
        gram = random_gram(seed, 6, 3, rank=4)
        least = min(form(gram, chosen) for chosen in every_feasible(instance))
        assert minimise(instance, gram, start).objective == pytest.approx(least, rel=2e-9)


@pytest.mark.parametrize("seed", range(12))
def test_the_convex_form_is_the_same_function_and_convex(seed: int) -> None:
    rng = np.random.default_rng(seed)
    allowed = rng.random((5, 4)) < 0.7
    allowed[np.arange(5), rng.integers(4, size=5)] = True
    gram = random_gram(seed, 5, 4, rank=[2, 40][seed % 2]).reshape(20, 20)
    mask = allowed.reshape(-1)
    gram = np.where(mask[:, None] & mask[None], gram, 0.0)
    if seed % 3 == 0:  # it holds for indefinite matrices too
        noise = rng.normal(size=(20, 20)) * 0.1
        gram = np.where(mask[:, None] & mask[None], gram + noise + noise.T, 0.0)
    convex = convexify(gram, allowed)
    assert np.linalg.eigvalsh(convex.matrix)[0] >= -1e-13 * np.abs(gram).max()
    for chosen in itertools.product(*[np.flatnonzero(row) for row in allowed]):
        x = np.zeros(20)
        x[np.arange(5) * 4 + chosen] = 1
        expected = x @ gram @ x
        value = convex.constant + convex.linear @ x + x @ convex.matrix @ x
        assert value == pytest.approx(expected, rel=1e-9, abs=1e-12 * np.abs(gram).max())


def test_convexifying_tightens_the_bound_at_the_centre() -> None:
    gram = random_gram(3, 6, 3, rank=40).reshape(18, 18)
    allowed = np.ones((6, 3), dtype=bool)
    convex = convexify(gram, allowed)
    centre = np.full(18, 1 / 3)
    value = convex.constant + convex.linear @ centre + centre @ convex.matrix @ centre
    assert value > 1.05 * centre @ gram @ centre


@pytest.mark.parametrize("seed", range(8))
def test_descent_never_worsens_and_ends_where_no_two_layers_help(seed: int) -> None:
    instance = random_instance(seed, 6, 3, 2, groups=False)
    start = guess(instance)
    if start is None:
        pytest.skip("the limits leave nothing")
    gram = random_gram(seed, 6, 3, rank=3)
    problem, _ = scale(instance, None, drop_dominated=False)
    found = local_search.descend(problem, gram.reshape(18, 18), start)
    assert instance.is_feasible(found)
    value = form(gram, tuple(found))
    assert value <= form(gram, tuple(start)) * (1 + 1e-12)
    for other in every_feasible(instance):
        if sum(a != b for a, b in zip(other, found, strict=True)) <= 2:
            assert form(gram, other) >= value - 1e-12 * np.abs(gram).max()
    best = local_search.search(problem, gram.reshape(18, 18), start, None)
    assert instance.is_feasible(best)
    assert form(gram, tuple(best)) <= value * (1 + 1e-12)


def test_a_real_size_ends_at_the_deadline_with_a_finite_gap() -> None:
    table = random_table(5, 54, 4, 1e-3, False)
    limits = {}
    for column in ("size_bytes", "bops"):
        low, high = (table.uniform_total(column, table.choices[k]) for k in (0, -1))
        limits[column] = int(low + Fraction(2, 5) * int(high - low))
    instance = Instance.build(table, limits)
    start = guess(instance)
    assert start is not None
    gram = random_gram(5, 54, 4, rank=20)
    began = time.monotonic()
    answer = minimise(instance, gram, start, began + 1.0)
    assert time.monotonic() - began < 6.0
    assert instance.is_feasible(answer.chosen)
    assert answer.objective == pytest.approx(form(gram, tuple(answer.chosen)), rel=1e-9)
    assert answer.objective <= form(gram, tuple(start))
    assert 0 < answer.bound <= answer.objective
    assert 0 <= answer.gap < 1
    at_once = minimise(instance, gram, start, began)
    assert 0 <= at_once.bound <= at_once.objective
    assert at_once.bound <= answer.objective
    assert not at_once.proven


def test_one_choice_per_layer_and_zero_interactions() -> None:
    instance = random_instance(1, 3, 1, 0, groups=False)
    gram = random_gram(1, 3, 1, rank=4)
    answer = minimise(instance, gram, np.zeros(3, dtype=np.int64))
    assert answer.proven
    assert answer.objective == pytest.approx(float(gram.sum()))
    instance = random_instance(2, 3, 3, 1, groups=False)
    start = guess(instance)
    assert start is not None
    nothing = minimise(instance, np.zeros((3, 3, 3, 3)), start)
    assert (nothing.objective, nothing.bound, nothing.gap, nothing.proven) == (0, 0, 0, True)

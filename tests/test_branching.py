"""Branch and bound over cores, against exhaustive search with nothing but branching to rely on."""

from itertools import product

import numpy as np
import pytest
from tables import random_limits, random_table

from mpsearch.knapsack.instance import Instance
from mpsearch.knapsack.problem import Problem, scale
from mpsearch.solvers.core import Search, open_core
from mpsearch.solvers.lagrangian import branch


def least_cost(problem: Problem) -> int | None:
    """By listing every assignment, in Python integers."""
    rows = [np.flatnonzero(row).tolist() for row in problem.allowed]
    costs, weights = problem.costs.tolist(), problem.weights.tolist()
    limits = problem.limits.tolist()
    best = None
    for chosen in product(*rows):
        total = sum(costs[layer][c] for layer, c in enumerate(chosen))
        if best is None or total < best:
            sums = [sum(row[layer][c] for layer, c in enumerate(chosen)) for row in weights]
            if all(a <= b for a, b in zip(sums, limits, strict=True)):
                best = total
    return best


@pytest.mark.parametrize("seed", range(40))
def test_one_state_a_part_still_proves_the_optimum(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Sweeps of one state decide nothing, so that the proof is the tree's."""
    monkeypatch.setattr("mpsearch.solvers.lagrangian.STATES", 1)
    table = random_table(seed, 7, 3, 1e-6, groups=False)
    instance = Instance.build(table, random_limits(seed, table, 1 + seed % 3))
    problem, _ = scale(instance, None)
    least = least_cost(problem)
    core = open_core(problem, None, None, None)
    if isinstance(core, Search):
        assert least is None
        return
    found = branch(core, None, 10_000, 10**9)
    assert found.complete
    assert (found.chosen is None) == (least is None)
    if found.chosen is not None:
        assert problem.is_feasible(found.chosen)
        assert problem.cost(found.chosen) == found.bound == least


def test_few_parts_leave_a_bound_below_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpsearch.solvers.lagrangian.STATES", 1)
    left_open = 0
    for seed in range(30):
        table = random_table(seed, 8, 3, 1.0, groups=False)
        instance = Instance.build(table, random_limits(seed, table, 2))
        problem, _ = scale(instance, None)
        least = least_cost(problem)
        core = open_core(problem, None, None, None)
        if isinstance(core, Search) or least is None:
            continue
        found = branch(core, None, 2, 10**9)
        assert found.bound <= least
        if found.chosen is not None:
            assert problem.is_feasible(found.chosen)
            assert problem.cost(found.chosen) >= least
        left_open += not found.complete
    assert left_open > 0

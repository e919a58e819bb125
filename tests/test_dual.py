"""The dual bound against exhaustive search over the scaled problem, in exact fractions."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from mpsearch.knapsack.problem import Problem
from mpsearch.solvers import dynamic_programming, lagrangian
from mpsearch.solvers.dual import maximise


def random_problem(seed: int) -> Problem:
    """5 layers x 3 choices, one to three limits; costs near 2**60, where sums pass int64."""
    rng = np.random.default_rng(seed)
    limits = rng.integers(50, 150, 1 + seed % 3)
    costs = rng.integers(0, 1 << 60, (5, 3)) * rng.integers(0, 2, (5, 1))
    weights = rng.integers(0, 50, (len(limits), 5, 3))
    return Problem(np.ones((5, 3), bool), costs, weights, limits, 1 << 60)


def optimum(problem: Problem) -> int | None:
    """The least cost up to the cost limit, in Python integers."""
    best = None
    for picked in itertools.product(range(3), repeat=5):
        cost = sum(int(problem.costs[layer, c]) for layer, c in enumerate(picked))
        used = [
            sum(int(row[layer, c]) for layer, c in enumerate(picked)) for row in problem.weights
        ]
        fits = all(total <= limit for total, limit in zip(used, problem.limits, strict=True))
        if fits and cost <= problem.cost_limit and (best is None or cost < best):
            best = cost
    return best


@pytest.mark.parametrize("seed", range(60))
def test_bound_and_search_agree_with_exhaustive_search(seed: int) -> None:
    problem = random_problem(seed)
    best = optimum(problem)
    for search in (dynamic_programming.search, lagrangian.search):
        found = search(problem)
        assert found.complete
        if best is None:
            assert found.chosen is None
        else:
            assert found.chosen is not None
            assert problem.cost(found.chosen) == best == found.bound
    if best is None:
        return
    for price in maximise(problem).prices:
        exact = [Fraction(float(p)) for p in price]
        value = Fraction(0)
        for p, limit in zip(exact, problem.limits, strict=True):
            value -= p * int(limit)
        for layer in range(5):
            value += min(
                int(problem.costs[layer, c])
                + sum(p * int(row[layer, c]) for p, row in zip(exact, problem.weights, strict=True))
                for c in range(3)
            )
        assert value <= best

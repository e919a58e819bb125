"""Few sizes of tensors and many of them: proofs, bounds and fronts against plain sums in a row."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.knapsack.instance import Instance
from mpsearch.knapsack.problem import scale
from mpsearch.pareto import hull
from mpsearch.pareto.front import front
from mpsearch.search.proof import guess
from mpsearch.search.solving import solve
from mpsearch.solvers import lagrangian
from mpsearch.solvers.dual import maximise
from mpsearch.solvers.exchange import exchange
from mpsearch.solvers.relaxation import relax
from mpsearch.tables.budget import Budget
from mpsearch.testing.conformance import check_solver

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from large_tables import large_table

FINE = tuple(32 * n for n in range(1_000, 4_000, 37))
COARSE = (16 * 512, 64 * 512, 224 * 512, 512)  # tensors whose sums lie on a grid


def least_by_size(instance: Instance, row: int) -> np.ndarray:
    """The least Ω for each amount of one resource, layer after layer over all amounts."""
    amounts = instance.resources[row].astype(np.int64)
    amounts = amounts - np.where(instance.allowed, amounts, 1 << 60).min(axis=1)[:, None]
    unit = int(np.gcd.reduce(amounts[instance.allowed]))
    room = (instance.limits[row] - instance.base[1 + row]) // unit
    best = np.zeros(room + 1)
    omega = instance.omega.astype(np.float64) / 10.0 ** instance.digits[0]
    for layer, allowed in enumerate(instance.allowed):
        following = np.full(room + 1, np.inf)
        for choice in np.flatnonzero(allowed).tolist():
            step = int(amounts[layer, choice]) // unit
            if step <= room:
                part = best[: room + 1 - step] + omega[layer, choice]
                np.minimum(following[step:], part, out=following[step:])
        best = following
    return best


@pytest.mark.parametrize(("seed", "percent"), [(0, 35), (1, 50)])
def test_one_limit_is_proven_where_sums_are_on_a_grid(seed: int, percent: int) -> None:
    """300 x 12 in groups: the least Ω that all amounts, one after another, allow."""
    table = large_table(300, seed, COARSE)
    budget = Budget.parse(table, size=f"{percent}%")
    expected = least_by_size(Instance.build(table, budget.limits), 0)[-1]
    found = solve(table, budget, explain=False)
    assert found.status == "optimal"
    assert found.objective == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", [0, 3])
def test_a_large_table_is_proven_with_a_bounded_number_of_states(seed: int) -> None:
    """2,000 x 12 in groups; the number of states is that of the work, whatever the machine."""
    table = large_table(2_000, seed)
    instance = Instance.build(table, Budget.parse(table, size="45%").limits)
    start = guess(instance)
    assert start is not None
    problem, _ = scale(instance, instance.sum(instance.omega, start))
    found = lagrangian.search(problem, start)
    assert found.complete or problem.cost_limit - found.bound <= 1e-6 * problem.cost_limit
    assert found.states < lagrangian.ONE


def test_what_large_tables_add_is_right_on_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cores by cost, one limit for several and pairs of changes, on every small problem: as
    exhaustive search says."""
    called: list[str] = []
    for name in ("relax", "exchange"):
        own = getattr(lagrangian, name)

        def counted(*given: Any, name: str = name, own: Any = own) -> Any:
            called.append(name)
            return own(*given)

        monkeypatch.setattr(lagrangian, name, counted)
    monkeypatch.setattr(lagrangian, "MUCH", -1)
    monkeypatch.setattr(lagrangian, "NARROW", 1)
    monkeypatch.setattr(lagrangian, "CORES", ())
    check_solver(lagrangian.SOLVER, instances=150, tolerance=0)
    assert called.count("relax") > 10
    assert called.count("exchange") > 10


def test_one_limit_alone_bounds_two() -> None:
    """Its optimum is above the Lagrangian bound and below every feasible assignment."""
    table = large_table(300, 0, COARSE)
    budget = Budget.parse(table, size="45%", bops="30%")
    instance = Instance.build(table, budget.limits)
    start = guess(instance)
    assert start is not None
    problem, _ = scale(instance, instance.sum(instance.omega, start))
    dual = maximise(problem)
    relaxed = relax(problem, 0, dual.prices[0], problem.cost_limit)
    assert relaxed is not None
    found = lagrangian.search(relaxed.problem)
    assert found.complete
    assert found.chosen is not None
    better = exchange(problem, found.chosen, dual.prices[0])
    assert better is not None
    assert problem.is_feasible(better)
    exact = lagrangian.search(problem, better)
    least = exact.bound if exact.complete else problem.cost(better)
    reduced = problem.costs + np.tensordot(dual.prices[0], problem.weights, axes=1)
    lagrange = np.where(problem.allowed, reduced, np.inf).min(axis=1).sum()
    lagrange -= dual.prices[0] @ problem.limits
    bound = found.bound + relaxed.shift
    assert lagrange * (1 - 1e-9) <= bound <= least
    rows = np.arange(len(problem.allowed))
    for chosen in (start, better, exact.chosen):  # what each pays for the other limit is no more
        assert chosen is not None
        priced = relaxed.problem.costs[rows, chosen].sum()
        if relaxed.problem.allowed[rows, chosen].all():
            assert relaxed.shift + int(priced) <= problem.cost(chosen)


@pytest.mark.parametrize("percent", [None, 40])
@pytest.mark.parametrize("large", [False, True])
def test_a_front_within_a_factor_keeps_its_promise(
    percent: int | None, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every amount of size there is a point within the factor of the least Ω."""
    table = large_table(60, 5, COARSE)
    limits = {} if percent is None else Budget.parse(table, size=f"{percent}%").limits
    exact = front(table, limits=limits)
    monkeypatch.setattr("mpsearch.pareto.front.LARGE", 1 if large else 1000)
    found = front(table, limits=limits, epsilon=0.02)
    assert exact.exact
    assert 0 < found.epsilon < (1.0 if large else 0.02 * (1 + 1e-9))
    assert len(found) < len(exact) / 5
    sizes = found.totals["size_bytes"]
    there = found.omega[np.searchsorted(sizes, exact.totals["size_bytes"], side="right") - 1]
    assert (there <= exact.omega * (1 + found.epsilon)).all()
    assert (np.diff(found.omega) < 0).all()
    for point in (0, len(found) // 2, len(found) - 1):
        assignment = found.assignment(point)
        assert table.total(assignment, "size_bytes") == sizes[point]
        assert table.total(assignment, "omega") == pytest.approx(found.omega[point], rel=1e-12)


def test_the_bound_of_a_front_is_below_every_optimum_and_near(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At every amount where the exact front has a point; within a hundredth at most of them."""
    table = large_table(120, 1, FINE)
    exact = front(table)
    given: list[Any] = []

    def asked(*problem: Any) -> Any:
        given.extend(problem)
        return hull.hull_front(*problem)

    monkeypatch.setattr("mpsearch.pareto.front.LARGE", 1)
    monkeypatch.setattr("mpsearch.pareto.front.hull_front", asked)
    front(table)
    allowed, costs, weights, _, base, _ = given
    costs, weights = costs.astype(np.float64), weights.astype(np.float64)
    bound = hull._Bound(allowed, costs, weights, hull._path(allowed, costs, weights), base)
    points = np.arange(0, len(exact), max(len(exact) // 200, 1))
    sizes = exact.totals["size_bytes"][points]
    each = table.resources["size_bytes"].reshape(len(table.layers), -1)
    unit = (each.max(axis=1) - each.min(axis=1)).sum() / weights.max(axis=1).sum()
    amounts = (sizes - exact.totals["size_bytes"][0]) / unit
    lows = np.array([bound.at(float(one)) for one in amounts])
    ratio = exact.omega[points] / (lows * (exact.omega[-1] / base))
    assert (ratio > 1 - 1e-9).all()
    assert np.median(ratio) < 1.01


def test_a_large_front_is_within_a_factor_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """1,600 tensors: about as many points as the factor needs, and it is printed."""
    monkeypatch.chdir(tmp_path)
    large_table(1_600, 0, groups=False).write_csv("profile.csv")
    assert run(["front", "--points", "5"]) == 0
    said = capsys.readouterr().out
    assert "within a factor 1.0" in said
    assert int(said.split(" non-dominated points")[0].split("\n")[-1]) < 2_000


def test_what_does_not_go_with_a_factor() -> None:
    table = large_table(4, 0)
    with pytest.raises(InputError, match="epsilon 0; expected a number above zero"):
        front(table, epsilon=0)

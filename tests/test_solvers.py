"""Every solver against exhaustive search: a new solver is one more row in SOLVERS."""

import random

import pytest
from oracles import brute_force, exact, omega_of, total_of
from tables import random_limits, random_table

from mpsearch.errors import InputError
from mpsearch.pareto.front import front
from mpsearch.search.solving import find_solver, solve
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import Layer, LayerTable, Row

# name -> random instances; those that start a process for each get fewer
SOLVERS = {
    "dp": 120,
    "lagrangian": 120,
    "brute-force": 25,
    "highs": 25,
    "mathopt-highs": 25,
    "mathopt-scip": 25,
    "ortools": 25,
    "pulp": 25,
    "pulp-glpk": 25,
    "pulp-highs": 6,
    "pulp-scip": 6,
}
CASES = [(name, seed) for name, number in SOLVERS.items() for seed in range(number)]


def skip_without(name: str) -> None:
    """Skip where the solver's engine is not installed."""
    look = getattr(find_solver(name), "missing", None)
    if look and look():
        pytest.skip(f"not installed: {look()}")


def instance(seed: int):  # type: ignore[no-untyped-def]
    rng = random.Random(seed)
    scale = 10 ** rng.uniform(-12, 6)
    table = random_table(seed, rng.randint(1, 6), rng.randint(2, 4), scale, groups=seed % 3 == 0)
    return table, random_limits(seed, table, rng.randint(1, 3))


def check(solution: Solution, table, limits) -> None:  # type: ignore[no-untyped-def]
    best = brute_force(table, limits)
    if best is None:
        assert solution.status == "infeasible"
        return
    assert solution.status == "optimal"
    assert solution.objective == pytest.approx(float(best[0]), rel=1e-13, abs=0)
    assert float(omega_of(table, solution.choices)) == solution.objective
    assert solution.bound is not None
    assert exact(solution.bound) <= best[0] * (1 + exact(1e-15))
    for column, limit in limits.items():
        total = total_of(table, solution.choices, column)
        assert float(total) == solution.totals[column] <= limit


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_agrees_with_exhaustive_search(name: str, seed: int) -> None:
    """Ω from 1e-12 to 1e6, ties, zero Ω, equal layers, groups, one to three limits."""
    skip_without(name)
    table, limits = instance(seed)
    solution = solve(table, Budget(limits), solver=name)
    check(solution, table, limits)
    wrong = [note for note in solution.notes if "failed" in note or "optimal" in note]
    assert not wrong, "the solver itself must be right on small instances"


def wide_table(seed: int) -> LayerTable:
    """Ω from anywhere in the doubles, 5e-324 to 1e307, most of it outside of the usual range."""
    rng = random.Random(seed)

    def omega() -> float:
        known = (0.0, 5e-324, 5e-324 * rng.randint(2, 99), 2.2250738585072014e-308, 1e-300, 1e6)
        return rng.choice((*known, 10.0 ** rng.uniform(-320, 307), 10.0 ** rng.uniform(-320, 307)))

    names = [f"l{index}" for index in range(rng.randint(2, 5))]
    choices = [Choice(bits, 8) for bits in (2, 4, 8)]
    rows = [
        Row(name, choice, omega(), 0.0, {
            "size_bytes": rng.randint(1, 40) * choice.w_bits, "bops": rng.randint(1, 900),
        })
        for name in names
        for choice in choices
    ]  # fmt: skip
    return LayerTable.from_rows([Layer(name, "linear", "", 10, 10) for name in names], rows)


@pytest.mark.parametrize("name", [*SOLVERS, "front"])
def test_omega_may_be_anywhere_in_the_doubles(name: str) -> None:
    """Ratios up to 1e630: the exact sum decides, and no solver is wrong for having 60 bits."""
    if name != "front":
        skip_without(name)
    for seed in range(12 if SOLVERS.get(name, 120) > 6 else 2):
        table = wide_table(seed)
        largest = sum(table.resources["size_bytes"].reshape(-1, 3).max(axis=1).tolist())
        limits = {"size_bytes": largest * random.Random(seed).randint(20, 90) // 100}
        if name == "front":
            found = front(table, limits={"bops": 10**6} if seed % 2 else {"bops": 1200})
            limits["bops"] = 10**6 if seed % 2 else 1200
            point = found.best_within(limits["size_bytes"])
            best = brute_force(table, limits)
            assert (point is None) == (best is None)
            if best is not None and point is not None:
                assert found.omega[point] == pytest.approx(float(best[0]), rel=1e-13, abs=0)
            continue
        solution = solve(table, Budget(limits), solver=name)
        best = brute_force(table, limits)
        assert (solution.status == "infeasible") == (best is None)
        if best is not None:
            assert solution.status == "optimal"
            assert solution.objective == pytest.approx(float(best[0]), rel=1e-13, abs=0)
        assert not [note for note in solution.notes if "failed" in note or "optimal" in note]


def test_omega_that_adds_up_to_more_than_doubles_hold_is_refused() -> None:
    choices = [Choice(4, 4), Choice(8, 8)]
    with pytest.raises(InputError, match="omega could add up to more than 1e\\+308"):
        LayerTable.from_rows(
            [Layer(name, "linear", "", 10, 10) for name in "ab"],
            [Row(name, choice, 1.7e308, 0.0, {"bops": 1}) for name in "ab" for choice in choices],
        )


@pytest.mark.parametrize("name", SOLVERS)
def test_time_limit_of_zero_keeps_a_checked_answer(name: str) -> None:
    """A time limit keeps incumbent and bound: the answer may be poor, never wrong."""
    skip_without(name)
    table = random_table(5, 12, 4, 1.0, groups=False)
    limits = {"size_bytes": int(table.uniform_total("size_bytes", table.choices[1]))}
    proven = solve(table, Budget(limits))
    hurried = solve(table, Budget(limits), solver=name, time_limit=0.0)
    assert hurried.status in ("optimal", "feasible")
    assert hurried.bound is not None
    assert hurried.objective is not None
    assert proven.objective is not None
    assert hurried.bound <= proven.objective <= hurried.objective
    assert hurried.totals["size_bytes"] <= limits["size_bytes"]


def test_few_states_leave_an_honest_gap() -> None:
    """When memory is short, dp says feasible with a bound below the true optimum."""
    seen = set()
    for seed in range(12):
        table = random_table(seed, 14, 4, 1e-6, groups=False)
        limits = {
            "size_bytes": int(table.uniform_total("size_bytes", table.choices[1])),
            "bops": int(table.uniform_total("bops", table.choices[2])),
        }
        proven = solve(table, Budget(limits))
        short = solve(table, Budget(limits), options={"max_states": 1})
        assert proven.status == "optimal"
        assert proven.objective is not None
        if short.objective is None:
            assert short.status == "no-solution"
            continue
        assert short.bound is not None
        assert short.bound <= proven.objective <= short.objective
        assert (short.status == "optimal") == (short.gap is not None and short.gap <= 1e-13)
        seen.add(short.status)
    assert "feasible" in seen


def test_cp_sat_presolve_keeps_the_optimum() -> None:
    """OR-Tools 9.15 called a 47 % worse assignment optimal here (google/or-tools issue 5293)."""
    rng = random.Random(1)
    rows = []
    for n in range(8):
        weights = rng.randrange(100, 10**6)
        macs = weights * rng.randrange(1, 2000)
        for b in (2, 3, 4, 5, 6, 8):
            omega = 1e-7 * 4.0**-b * rng.uniform(0.3, 3) * 10 ** rng.uniform(-1, 1)
            resources = {"size_bytes": weights * b // 8, "bops": macs * b * b}
            rows.append(Row(f"l{n}", Choice(b, b), omega, 0.0, resources))
    table = LayerTable.from_rows([Layer(f"l{n}") for n in range(8)], rows)
    limits = {
        column: int(table.uniform_total(column, Choice(4, 4)) * rng.uniform(0.9, 1.5))
        for column in ("size_bytes", "bops")
    }
    solution = solve(table, Budget(limits), solver="ortools")
    assert solution.notes == ()
    assert solution.solver == "ortools"

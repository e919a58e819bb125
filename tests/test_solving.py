"""`solve` believes no backend: answers are re-evaluated and claims need our own proof."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np
import pytest
from oracles import brute_force
from tables import random_table

from mpsearch.errors import InputError
from mpsearch.knapsack.problem import Answer, Problem
from mpsearch.search.solving import solve
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.solution import Smallest
from mpsearch.tables.table import Layer, LayerTable, Row


@dataclass(frozen=True)
class Broken:
    """A backend that misbehaves in the named way."""

    fault: str
    name: str = "third-party"
    description: str = "for tests"
    capabilities: tuple[str, ...] = ()

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        layers = len(problem.allowed)
        cheapest = np.where(problem.allowed, problem.costs, 2**62).argmin(axis=1)
        lightest = np.where(problem.allowed, problem.weights[0], 2**62).argmin(axis=1)
        match self.fault:
            case "breaks a limit":
                return Answer(cheapest, "optimal", 0.0)
            case "claims too much":
                return Answer(lightest, "optimal", 1e18)
            case "is feasible only":
                return Answer(lightest, "feasible")
            case "is incomplete":
                return Answer(lightest[: layers - 1], "optimal")
            case "is out of range":
                return Answer(np.full(layers, 99), "optimal")
            case "returns floats":
                return Answer(lightest * 1.0, "optimal")
            case "says infeasible":
                return Answer(None, "infeasible")
            case "knows nothing":
                return Answer(None, "unknown")
            case "crashes":
                raise RuntimeError("out of\nluck")
            case "returns nonsense":
                return "42"  # type: ignore[return-value]
        raise AssertionError(self.fault)


def install(monkeypatch: pytest.MonkeyPatch, solver: Broken) -> None:
    """As if a package with an entry point of the group mpsearch.solvers were installed."""
    monkeypatch.setattr("test_solving.PLUGIN", solver, raising=False)
    point = EntryPoint("third-party", "test_solving:PLUGIN", "mpsearch.solvers")
    real = entry_points(group="mpsearch.solvers")
    monkeypatch.setattr("mpsearch.running.plugins.entry_points", lambda group: [*real, point])


NOTES = {
    "breaks a limit": "breaks a limit",
    "claims too much": "optimal; ",
    "is incomplete": "incomplete",
    "is out of range": "incomplete",
    "returns floats": "incomplete",
    "says infeasible": "called the budget infeasible; it is not",
    "crashes": "failed: RuntimeError: out of luck",
    "returns nonsense": "returned str",
    "is feasible only": "",
    "knows nothing": "",
}


@pytest.mark.parametrize("fault", NOTES)
def test_a_broken_solver_is_caught(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """The claim is noted, the answer is still the optimum, and says who found it."""
    install(monkeypatch, Broken(fault))
    table = random_table(3, 6, 4, 1e-9, groups=False)
    limits = {"size_bytes": int(table.uniform_total("size_bytes", table.choices[1]))}
    best = brute_force(table, limits)
    assert best is not None
    solution = solve(table, Budget(limits), solver="third-party")
    assert solution.status == "optimal"
    assert solution.objective == float(best[0])
    assert solution.bound == solution.objective
    assert solution.solver == "third-party, corrected by lagrangian"
    assert NOTES[fault] in " ".join(solution.notes)
    assert bool(solution.notes) == bool(NOTES[fault])


def test_a_solver_that_claims_infeasible_budgets_feasible(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Broken("claims too much"))
    table = random_table(3, 6, 4, 1.0, groups=False)
    solution = solve(table, Budget({"size_bytes": 1}), solver="third-party")
    assert solution.status == "infeasible"


def test_unknown_solver_lists_the_installed_ones() -> None:
    with pytest.raises(
        InputError, match="unknown solver 'gurobi'; installed: auto, brute-force, dp, "
    ):
        solve(random_table(1, 2, 2, 1.0, groups=False), solver="gurobi")


@pytest.mark.parametrize(
    ("solver", "options", "words"),
    [
        ("dp", {"depth": "3"}, "no option 'depth'"),
        ("dp", {"max_states": "0"}, "max_states=0; expected"),
        ("ortools", {"workers": "2"}, "no option 'workers'"),
        ("ortools", {"num_workers": "many"}, "num_workers=many; expected int"),
        ("pulp", {"threads": "x"}, "threads=x; expected"),
    ],
)
def test_solver_options_are_checked(solver: str, options: dict[str, str], words: str) -> None:
    table = random_table(3, 6, 4, 1.0, groups=False)
    limit = int(table.uniform_total("size_bytes", table.choices[1]))
    with pytest.raises(InputError) as error:
        solve(table, Budget({"size_bytes": limit}), solver=solver, options=options)
    assert words in str(error.value)


@pytest.mark.parametrize("limit", [-1.0, float("nan"), float("inf")])
def test_time_limits_are_checked(limit: float) -> None:
    with pytest.raises(InputError, match="got the time limit"):
        solve(random_table(1, 2, 2, 1.0, groups=False), time_limit=limit)


def test_no_limit_takes_the_least_omega_everywhere() -> None:
    table = random_table(8, 5, 3, 1.0, groups=True)
    best = brute_force(table, {})
    assert best is not None
    assert solve(table).objective == float(best[0])


def test_infeasible_names_the_smallest_feasible_values() -> None:
    """Each alone, and while the others hold: here small size and few BOPS exclude each other."""
    rows = [
        Row("a", Choice(4, 8), 1.0, 0.0, {"size_bytes": 10, "bops": 100}),
        Row("a", Choice(8, 4), 1.0, 0.0, {"size_bytes": 30, "bops": 40}),
    ]
    table = LayerTable.from_rows([Layer("a")], rows)
    solution = solve(table, Budget({"size_bytes": 20, "bops": 50}))
    assert solution.status == "infeasible"
    assert solution.smallest == {"size_bytes": Smallest(10, 30), "bops": Smallest(40, 100)}
    for column, least in solution.smallest.items():
        limits = {"size_bytes": 20, "bops": 50, column: least.with_others}
        assert solve(table, Budget(limits)).status == "optimal"  # type: ignore[arg-type]
    hopeless = solve(table, Budget({"size_bytes": 20, "bops": 3}))
    assert hopeless.smallest["size_bytes"] == Smallest(10, None)


def test_smallest_values_agree_with_exhaustive_search() -> None:
    table = random_table(21, 5, 3, 1.0, groups=False)
    limits = {
        "size_bytes": int(table.uniform_total("size_bytes", table.choices[1])),
        "latency_s": table.uniform_total("latency_s", table.choices[0]) * 0.9,
    }
    solution = solve(table, Budget(limits))
    from oracles import every_assignment, total_of

    assert solution.status == "infeasible"
    least = min(total_of(table, one, "latency_s") for one in every_assignment(table))
    assert solution.smallest["latency_s"].alone == float(least)
    within = [
        total_of(table, one, "latency_s")
        for one in every_assignment(table)
        if total_of(table, one, "size_bytes") <= limits["size_bytes"]
    ]
    assert solution.smallest["latency_s"].with_others == float(min(within))


def test_pins_and_excludes() -> None:
    table = random_table(4, 6, 3, 1.0, groups=False)
    low, middle, high = table.choices
    solution = solve(table, pins={"layer0": low}, exclude={"": {high}, "layer1": {middle}})
    assert solution.choices["layer0"] == low
    assert solution.choices["layer1"] == low
    assert high not in solution.choices.values()
    assert list(solution.choices) == list(table.layer_names)


def gap_table() -> LayerTable:
    """Layer b lacks w4a4."""
    resources = {"size_bytes": 1}
    rows = [
        Row("a", Choice(4, 4), 1.0, 0.0, resources),
        Row("a", Choice(8, 8), 0.5, 0.0, resources),
        Row("b", Choice(8, 8), 0.5, 0.0, resources),
    ]
    return LayerTable.from_rows([Layer("a"), Layer("b")], rows)


def test_a_missing_choice_is_an_error_until_it_is_excluded() -> None:
    """A gap is more often a lost row than an intention; saying so once is enough."""
    with pytest.raises(InputError, match=r"layer 'b' has no row for w4a4.*--exclude b=w4a4"):
        solve(gap_table())
    assert solve(gap_table(), exclude={"b": {Choice(4, 4)}}).status == "optimal"
    assert solve(gap_table(), exclude={"": {Choice(4, 4)}}).status == "optimal"
    assert solve(gap_table(), pins={"b": Choice(8, 8)}).status == "optimal"


@pytest.mark.parametrize(
    ("pins", "exclude", "words"),
    [
        ({"x": Choice(8, 8)}, {}, "has no layer 'x'"),
        ({"b": Choice(4, 4)}, {}, "layer 'b' has no choice w4a4; it has w8a8"),
        ({"a": Choice(2, 2)}, {}, "layer 'a' has no choice w2a2; it has w4a4, w8a8"),
        ({"a": Choice(4, 4)}, {"": {Choice(4, 4)}}, "pinned to w4a4, which is excluded"),
        ({}, {"x": {Choice(4, 4)}}, "has no layer 'x'"),
        ({}, {"": {Choice(2, 2)}}, "cannot exclude w2a2"),
        ({}, {"": {Choice(4, 4), Choice(8, 8)}}, "no common choice"),
    ],
)
def test_wrong_pins_and_excludes(
    pins: dict[str, Choice], exclude: dict[str, set[Choice]], words: str
) -> None:
    with pytest.raises(InputError) as error:
        solve(gap_table(), pins=pins, exclude=exclude)
    assert words in str(error.value)


def test_a_printed_total_is_a_limit_that_admits_it() -> None:
    """Totals are rounded to doubles; given back as the limit they must not exclude themselves."""
    for seed in range(30):
        table = random_table(seed, 6, 3, 1.0, groups=False)
        high = table.uniform_total("latency_s", table.choices[-1])
        first = solve(table, Budget({"latency_s": high * 0.995}))
        if first.choices:
            again = solve(table, Budget({"latency_s": first.totals["latency_s"]}))
            assert again.objective == first.objective


def test_columns_beyond_int64_stay_exact() -> None:
    """Many digits over a wide span need more than 62 bits; the limit is exactly attainable."""
    layers = [Layer(f"l{n}") for n in range(6)]
    rows = []
    for n, layer in enumerate(layers):
        for bits in (4, 8):
            value = (1.2345678901234567 + n / 7) * 10 ** (3 - 4 * n) * bits
            rows.append(Row(layer.name, Choice(bits, bits), 1.0 / bits, 0.0, {"energy_j": value}))
    table = LayerTable.from_rows(layers, rows)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        picked = {name: table.choices[int(rng.integers(2))] for name in table.layer_names}
        limits = {"energy_j": table.total(picked, "energy_j")}
        best = brute_force(table, limits)
        assert best is not None
        solution = solve(table, Budget(limits))
        assert solution.objective == float(best[0])
        assert solution.status == "optimal"


def test_omega_over_eighteen_decades_in_one_table() -> None:
    """One huge Ω must not hide the small ones: CBC and floats lose them, rescaling does not."""
    rows = []
    for n in range(6):
        for bits, factor in ((2, 1e6), (4, 3.1e-12 * (n + 1)), (8, 1.3e-12 * (n + 2))):
            resources = {"size_bytes": bits * (n + 3)}
            rows.append(Row(f"l{n}", Choice(bits, bits), factor, 0.0, resources))
    table = LayerTable.from_rows([Layer(f"l{n}") for n in range(6)], rows)
    for limit in range(130, 270, 9):
        best = brute_force(table, {"size_bytes": limit})
        assert best is not None
        for name in ("dp", "ortools"):
            solution = solve(table, Budget({"size_bytes": limit}), solver=name)
            assert solution.objective == pytest.approx(float(best[0]), rel=1e-13, abs=0)
            assert solution.status == "optimal"

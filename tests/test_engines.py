"""Engines beside each other in one process, engines that are missing, and their settings."""

import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.knapsack.problem import Answer
from mpsearch.running import plugins
from mpsearch.solvers.brute_force import BruteForce
from mpsearch.solvers.milp import Found, Rows, rows, solve_rows
from mpsearch.testing.conformance import random_case

HAS_HIGHSPY = importlib.util.find_spec("highspy") is not None
ENGINES = ("pulp", "ortools", "highs", "mathopt-highs")
ROTATIONS = [ENGINES[n:] + ENGINES[:n] for n in range(len(ENGINES))]
ORDERS = [*ROTATIONS, ENGINES[::-1]]  # each comes first once, and each pair in both orders
SEED = next(s for s in range(99) if (c := random_case(s)).best and np.sum(c.problem.allowed) > 20)

ASK = f"""
import sys
from mpsearch.running import plugins
from mpsearch.testing.conformance import random_case
case = random_case({SEED})
for name in sys.argv[1].split(","):
    answer = plugins.load("mpsearch.solvers", name, "solver").solve(case.problem, None, {{}})
    assert answer.claim == "optimal", (name, answer)
    assert case.problem.cost(answer.chosen) - case.best <= 1e-9 * case.problem.cost_limit, name
print("loaded" if "highspy" in sys.modules else "not loaded")
"""


def ask(names: str, code: str = ASK, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the named solvers one after another in a fresh process."""
    before = f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else ""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", before + code, names],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.skipif(not HAS_HIGHSPY, reason="highspy is not installed")
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_any_order_works_with_highspy_installed(order: tuple[str, ...]) -> None:
    """highspy 1.15 and OR-Tools 9.15 in one process: undefined symbol. So highspy stays out."""
    done = ask(",".join(order))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "not loaded"


@pytest.mark.skipif(not HAS_HIGHSPY, reason="highspy is not installed")
def test_pulp_highs_leaves_the_process_alone() -> None:
    done = ask("pulp-highs,ortools,pulp,pulp-highs,highs,mathopt-scip")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "not loaded"


@pytest.mark.skipif(not HAS_HIGHSPY, reason="highspy is not installed")
def test_highspy_imported_by_the_user_is_an_error_that_says_so() -> None:
    """Only where the two versions do clash: otherwise OR-Tools simply works."""
    done = ask("ortools", "import highspy\n" + ASK)
    if done.returncode:
        assert "OR-Tools cannot be loaded into a process that has imported highspy" in done.stderr
    assert ask("pulp,highs", "import highspy\n" + ASK).returncode == 0


@pytest.mark.parametrize("error", ["ImportError", "OSError"])
def test_a_broken_highspy_harms_nobody_else(tmp_path: Path, error: str) -> None:
    """As where its library does not fit the system."""
    (tmp_path / "highspy.py").write_text(f"raise {error}('undefined symbol: _ZN5Highs')")
    for order in ("pulp,ortools,mathopt-highs", "ortools,pulp"):
        done = ask(order, path=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "not loaded"


@pytest.mark.parametrize("error", ["ImportError", "OSError"])
def test_pulp_highs_says_that_highspy_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    (tmp_path / "highspy.py").write_text(f"raise {error}('undefined symbol: _ZN5Highs')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    solver = plugins.load("mpsearch.solvers", "pulp-highs", "solver")
    with pytest.raises(InputError, match=r"finds no HiGHS that works here; install .*pulp-highs"):
        solver.solve(random_case(SEED).problem, None, {})


LACKING = {
    "highs": ("scipy", "python -m pip install '.[highs]'"),
    "mathopt-highs": ("ortools", "pip install 'ortools>="),
    "mathopt-scip": ("ortools", "pip install 'ortools>="),
    "ortools": ("ortools", "pip install 'ortools>="),
    "pulp": ("pulp", "pip install 'pulp>="),
    "pulp-glpk": ("glpsol", "apt install glpk-utils"),
    "pulp-highs": ("highspy", "python -m pip install '.[pulp-highs]'"),
    "pulp-scip": ("pyscipopt", "python -m pip install '.[pulp-scip]'"),
}


@pytest.mark.parametrize("name", LACKING)
def test_a_missing_engine_names_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package, command = LACKING[name]
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "mpsearch.solvers.milp.find_spec", lambda n: None if n == package else real(n)
    )
    monkeypatch.delitem(sys.modules, package, raising=False)
    if package == "glpsol":
        monkeypatch.setattr("shutil.which", lambda program: None)
    solver = plugins.load("mpsearch.solvers", name, "solver")
    with pytest.raises(InputError) as error:
        solver.solve(random_case(SEED).problem, None, {})
    assert name in str(error.value)
    assert command in str(error.value)
    assert run(["solvers", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)["solvers"]}
    assert not listed[name]["available"]
    assert command in listed[name]["install"]
    assert listed["brute-force"] == {
        "name": "brute-force",
        "description": BruteForce().description,
        "capabilities": ", ".join(BruteForce().capabilities),
        "available": True,
        "install": None,
    }


def test_an_engine_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = ModuleType("scipy")
    monkeypatch.setitem(sys.modules, "scipy", broken)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(InputError, match=r"scipy is installed but cannot be imported \(.*\); inst"):
        plugins.load("mpsearch.solvers", "highs", "solver").solve(
            random_case(SEED).problem, None, {}
        )


def test_listing_solvers_imports_no_engine() -> None:
    code = (
        "import sys; from mpsearch.cli import run\n"
        "assert run(['solvers']) == 0\n"
        "engines = {'pulp', 'ortools', 'scipy', 'highspy', 'pyscipopt', 'torch', 'pandas'}\n"
        "assert not engines & set(sys.modules), engines & set(sys.modules)"
    )
    done = ask("", code)
    assert done.returncode == 0, done.stderr
    assert "works here" in done.stdout


WRONG = {
    "brute-force": {"x": "1"},
    "highs": {"node_limit": "many"},
    "mathopt-highs": {"random_seed": "-1"},
    "mathopt-scip": {"random_seed": "0.5"},
    "pulp": {"cuts": "perhaps"},
    "pulp-glpk": {"mir": "3"},
    "pulp-highs": {"presolve": "maybe"},
    "pulp-scip": {"limits/nodes": ""},
}
RIGHT: dict[str, dict[str, str]] = {
    "highs": {"presolve": "false", "node_limit": "100000"},
    "mathopt-highs": {"random_seed": "3"},
    "mathopt-scip": {"random_seed": "3", "node_limit": "100000"},
    "ortools": {"num_workers": "2"},
    "pulp": {"threads": "1", "cuts": "off", "strongBranching": "3", "maxNodes": "100000"},
    "pulp-glpk": {"mir": "true", "gomory": "true", "cuts": "false"},
    "pulp-highs": {"presolve": "off", "threads": "1", "mip_max_nodes": "100000"},
    "pulp-scip": {"limits/nodes": "100000", "separating/maxrounds": "0"},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_errors(name: str) -> None:
    solver = plugins.load("mpsearch.solvers", name, "solver")
    (key,) = WRONG[name]
    with pytest.raises(InputError, match=key) as error:
        solver.solve(random_case(SEED).problem, None, WRONG[name])
    assert "has no option" in str(error.value) or "; expected" in str(error.value)


@pytest.mark.parametrize("name", RIGHT)
def test_right_settings_reach_the_engine(name: str) -> None:
    solver = plugins.load("mpsearch.solvers", name, "solver")
    if solver.missing():
        pytest.skip(f"not installed: {solver.missing()}")
    case = random_case(SEED)
    answer = solver.solve(case.problem, None, RIGHT[name])
    assert case.best is not None
    assert answer.claim == ("feasible" if name == "pulp-glpk" else "optimal")
    assert case.problem.cost(answer.chosen) - case.best <= 1e-6 * case.problem.cost_limit


def test_rows_mean_the_problem() -> None:
    """A @ x for random assignments, against the problem's own integers."""
    rng = np.random.default_rng(0)
    for seed in range(20):
        problem = random_case(seed).problem
        model = rows(problem)
        matrix = np.zeros((len(model.upper), len(model.costs)))
        matrix[model.row, model.column] = model.value
        for _ in range(5):
            chosen = np.array([rng.choice(np.flatnonzero(row)) for row in problem.allowed])
            x = (chosen[model.layer] == model.choice).astype(float)
            at = np.arange(len(chosen))
            layers, limits = np.split(np.asarray(matrix @ x), [len(chosen)])
            assert layers.tolist() == [1] * len(chosen)
            used = problem.weights[:, at, chosen].sum(axis=1)
            assert limits * problem.limits / 1e5 == pytest.approx(used, rel=1e-12, abs=1e-9)
            cost = float(model.costs @ x) * max(problem.cost_limit, 1) / 1e5
            assert cost == pytest.approx(problem.cost(chosen), rel=1e-12)
            assert np.array_equal(model.chosen(x), chosen)  # type: ignore[arg-type]
            cut = model.without(chosen)
            members = cut.column[cut.row == len(model.upper)]
            assert x[members].sum() == len(chosen) == cut.upper[-1] + 1


def test_an_assignment_over_a_limit_is_cut_off() -> None:
    """An engine whose tolerance is too wide is asked again until the integers agree."""
    case = next(c for c in map(random_case, range(99)) if c.best and len(c.problem.limits))
    problem = case.problem
    asked: list[int] = []

    def sloppy(model: Rows, seconds: float | None) -> Found:
        """Enumerates; believes that limits are a fifth larger."""
        asked.append(len(model.upper))
        matrix = np.zeros((len(model.upper), len(model.costs)))
        matrix[model.row, model.column] = model.value
        upper = model.upper.copy()
        layers = len(problem.allowed)
        upper[layers : layers + len(problem.limits)] *= 1 + 1e-9 if len(asked) > 3 else 1.2
        options = [np.flatnonzero(model.layer == layer) for layer in range(layers)]
        best: tuple[float, Any] = (np.inf, None)
        for columns in itertools.islice(itertools.product(*options), 100_000):
            x = np.zeros(len(model.costs))
            x[list(columns)] = 1
            if model.costs @ x < best[0] and bool(np.all(matrix @ x <= upper + 1e-12)):
                best = (float(model.costs @ x), x)
        return Found(best[1], "optimal", best[0])

    answer = solve_rows(problem, None, sloppy)
    assert len(asked) > 1
    assert asked == list(range(asked[0], asked[0] + len(asked)))
    assert answer.chosen is not None
    assert problem.is_feasible(answer.chosen)
    assert problem.cost(answer.chosen) == case.best


def test_an_engine_that_never_keeps_the_limits_is_given_up() -> None:
    case = next(c for c in map(random_case, range(99)) if c.best and len(c.problem.limits))
    over = np.where(case.problem.allowed, case.problem.unit_weights.sum(axis=0), -1).argmax(axis=1)
    assert not case.problem.is_feasible(over)

    def stubborn(model: Rows, seconds: float | None) -> Found:
        return Found((over[model.layer] == model.choice).astype(float), "optimal")

    answer = solve_rows(case.problem, None, stubborn)
    assert (answer.chosen, answer.claim) == (None, "unknown")


def test_brute_force_knows_its_size() -> None:
    from mpsearch.knapsack.problem import Problem

    shape = (13, 4)
    problem = Problem(
        np.ones(shape, dtype=bool),
        np.ones(shape, dtype=np.int64),
        np.zeros((0, *shape), dtype=np.int64),
        np.zeros(0, dtype=np.int64),
        13,
    )
    with pytest.raises(InputError, match=r"6\.71e\+07 assignments; it tries at most 2e\+07; use"):
        BruteForce().solve(problem, None, {})


def test_pulps_optimal_for_a_timed_out_incumbent_is_not_passed_on() -> None:
    """Strongly correlated costs keep CBC searching; what it has after 0 s is not proven."""
    from mpsearch.knapsack.problem import Problem

    rng = np.random.default_rng(3)
    weights = rng.integers(1000, 2000, size=(60, 8))
    weights = np.sort(weights - weights.min(axis=1, keepdims=True), axis=1)
    second = rng.permuted(weights, axis=1)
    costs = weights.max(axis=1, keepdims=True) - weights + 100 * (weights == 0)
    problem = Problem(
        np.ones(weights.shape, dtype=bool),
        costs,
        np.stack([weights, second]),
        np.array([int(weights.mean(axis=1).sum()) | 1, int(second.mean(axis=1).sum())]),
        int(costs.max(axis=1).sum()),
    )
    exact = plugins.load("mpsearch.solvers", "dp", "solver").solve(problem, None, {})
    assert exact.claim == "optimal"
    for name, seconds in itertools.product(("pulp", "highs", "mathopt-scip"), (0.0, 0.2)):
        solver = plugins.load("mpsearch.solvers", name, "solver")
        answer: Answer = solver.solve(problem, seconds, {})
        assert answer.claim != "infeasible"
        if answer.claim == "optimal":
            assert answer.chosen is not None
            assert problem.cost(answer.chosen) <= problem.cost(exact.chosen)
        if answer.chosen is not None:
            assert problem.is_feasible(answer.chosen)
            assert answer.bound is None or answer.bound <= exact.bound

"""`mpsearch.testing`: every solver of our own passes it, and broken ones do not."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mpsearch.errors import InputError
from mpsearch.knapsack.problem import Answer, Problem
from mpsearch.running import plugins
from mpsearch.solvers import dynamic_programming
from mpsearch.testing import check_solver, examine_solver
from mpsearch.testing.conformance import enumerate_costs, random_case

ROOT = Path(__file__).parent.parent
# name -> instances, tolerance; engines that start a process for each problem get fewer
SOLVERS: dict[str, tuple[int, float]] = {
    "brute-force": (60, 0.0),
    "dp": (100, 0.0),
    "lagrangian": (100, 0.0),
    "highs": (30, 1e-9),
    "mathopt-highs": (30, 1e-9),
    "mathopt-scip": (30, 1e-9),
    "ortools": (30, 1e-9),
    "pulp": (30, 1e-9),
    "pulp-glpk": (30, 1e-9),
    "pulp-highs": (6, 1e-9),
    "pulp-scip": (6, 1e-9),
}
PROVERS = set(SOLVERS) - {"pulp-glpk"}


@pytest.mark.parametrize("name", SOLVERS)
def test_own_solvers_conform(name: str) -> None:
    """Raw answers on the scaled problem, without the re-check of `solve`."""
    solver = plugins.load("mpsearch.solvers", name, "solver")
    lacking = solver.missing() if hasattr(solver, "missing") else None
    if lacking:
        pytest.skip(f"not installed: {lacking}")
    instances, tolerance = SOLVERS[name]
    result = check_solver(solver, instances, seed=7000, tolerance=tolerance)
    assert result.answered == result.feasible > 0
    assert result.optimal == (result.feasible if name in PROVERS else 0)


def test_cbc_keeps_the_optimum() -> None:
    """With its preprocessing CBC calls a cost 9 % too high optimal here."""
    assert check_solver(plugins.load("mpsearch.solvers", "pulp", "solver"), 1, 171).optimal == 1


def test_problems_are_hard_enough() -> None:
    """The generator makes what its page says, and not only trivial problems."""
    cases = [random_case(seed) for seed in range(300)]
    problems = [case.problem for case in cases]
    assert {len(p.allowed) for p in problems} == set(range(1, 13))
    assert {p.allowed.shape[1] for p in problems} == set(range(1, 7))
    assert {len(p.limits) for p in problems} == {0, 1, 2, 3}
    assert sum(case.best is None for case in cases) >= 3
    assert sum(case.best == 0 for case in cases) >= 20
    assert sum(case.best is not None and case.best > 0 for case in cases) >= 150
    assert np.median([np.count_nonzero(p.allowed) for p in problems]) >= 12
    assert random_case(5).best == random_case(5).best


def test_enumeration_by_hand() -> None:
    """Two layers, three of the four assignments keep the limit."""
    problem = Problem(
        allowed=np.array([[True, True, False], [True, False, True]]),
        costs=np.array([[0, 5, 0], [7, 0, 1]]),
        weights=np.array([[[9, 1, 0], [1, 0, 3]]]),
        limits=np.array([10]),
        cost_limit=12,
    )
    assert sorted(enumerate_costs(problem).tolist()) == [6, 7, 12]  # 0 + 1 weighs 12


@dataclass(frozen=True)
class Faulty:
    """dp, misbehaving in the named way."""

    fault: str
    name: str = "faulty"
    description: str = "for tests"
    capabilities: tuple[str, ...] = ()

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        if options:
            if self.fault == "ignores options":
                return Answer(None, "unknown")
            if self.fault == "raises KeyError for options":
                raise KeyError("no such option")
            raise InputError(f"solver faulty has no option {min(options)!r}")
        right = dynamic_programming.SOLVER.solve(problem, time_limit, {})
        cheapest = np.where(problem.allowed, problem.costs, 2**62).argmin(axis=1)
        lightest = np.where(problem.allowed, problem.unit_weights.sum(axis=0), 9.0).argmin(axis=1)
        match self.fault:
            case "breaks limits":
                return Answer(cheapest, "optimal")
            case "chooses what is not allowed":
                return Answer(problem.allowed.argmin(axis=1), "feasible")
            case "calls poor assignments optimal":
                fits = problem.is_feasible(lightest)
                return Answer(lightest, "optimal") if fits else Answer(None, "unknown")
            case "says infeasible":
                return Answer(None, "infeasible")
            case "bounds too high":
                return Answer(right.chosen, right.claim, problem.cost_limit * 1.0 + 1e16)
            case "changes the problem":
                problem.costs[:] = 0
            case "crashes":
                raise RuntimeError("out of\nluck")
            case "never answers":
                return Answer(None, "unknown")
            case "is not finite":
                return Answer(right.chosen, right.claim, float("nan"))
            case "returns floats" if right.chosen is not None:
                return Answer(right.chosen * 1.0, right.claim)  # type: ignore[arg-type]
            case "is out of range" if right.chosen is not None:
                return Answer(right.chosen + 9, right.claim)
            case "claims nonsense":
                return Answer(right.chosen, "best")  # type: ignore[arg-type]
            case "claims without an assignment":
                return Answer(None, "optimal")
            case "hedges":
                return Answer(lightest, "unknown")
            case "returns a list":
                return [0]  # type: ignore[return-value]
            case "is late" if time_limit == 0.0:  # claims an optimum that it had no time for
                fits = problem.is_feasible(lightest)
                return Answer(lightest, "optimal") if fits else right
        return right


FAULTS = {
    "breaks limits": ("broken_limits", r"seed \d+: weights\[\d\] sum to \d+; the limit is \d+"),
    "chooses what is not allowed": ("broken_limits", r"has choice \d, which is not allowed"),
    "calls poor assignments optimal": (
        "wrong_optimal",
        r"seed \d+: it calls cost \d+ optimal; exhaustive search finds \d+",
    ),
    "says infeasible": ("wrong_infeasible", r"seed \d+: it says infeasible; exhaustive search"),
    "bounds too high": ("wrong_bounds", r"its bound is [\d.e+]+; exhaustive search finds cost"),
    "changes the problem": ("other", "it changed the problem"),
    "crashes": ("other", r"seed \d+: it raises RuntimeError: out of luck"),
    "never answers": ("other", "no problem was answered"),
    "is not finite": ("other", "its bound is nan"),
    "returns floats": ("other", r"chosen is float64 \[\d+\]; expected integers"),
    "is out of range": ("other", "chosen has entries outside"),
    "claims nonsense": ("other", "it claims 'best'; expected one of optimal"),
    "claims without an assignment": ("other", "it claims optimal without an assignment"),
    "hedges": ("other", "it claims unknown with an assignment"),
    "returns a list": ("other", "it returned list, not an Answer"),
    "is late": ("wrong_optimal", r"seed \d+, time limit 0: it calls"),
    "ignores options": ("other", "an unknown option is ignored"),
    "raises KeyError for options": ("other", "an unknown option raises KeyError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_solver_is_caught(fault: str) -> None:
    kind, words = FAULTS[fault]
    result = examine_solver(Faulty(fault), instances=20)
    assert getattr(result, kind) > 0
    kinds = {"wrong_optimal", "wrong_infeasible", "broken_limits", "wrong_bounds", "other"}
    if fault != "says infeasible":  # to every problem, so that none is answered: two faults
        assert not any(getattr(result, other) for other in kinds - {kind})
    assert re.search(words, "\n".join(result.faults))
    with pytest.raises(AssertionError, match="solver faulty: ") as error:
        check_solver(Faulty(fault), instances=20)
    assert result.faults[0] in str(error.value)


def test_a_named_seed_repeats_the_fault() -> None:
    """The seed in the message is all that is needed to see the fault again."""
    faults = examine_solver(Faulty("calls poor assignments optimal"), 20, hurried=False).faults
    assert len(faults) > 3
    for fault in faults[:3]:
        found = re.match(r"seed (\d+):", fault)
        assert found
        again = examine_solver(Faulty("calls poor assignments optimal"), 1, int(found[1]))
        assert again.faults[0] == fault


def test_tolerance_of_zero_is_exact() -> None:
    """One part in 1e12 too much is the doubles' fault by default, and nobody's at zero."""

    @dataclass(frozen=True)
    class Rounding(Faulty):
        def solve(
            self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
        ) -> Answer:
            right = super().solve(problem, time_limit, options)
            if right.bound is None:
                return right
            return Answer(right.chosen, right.claim, right.bound + problem.cost_limit * 1e-12)

    assert not examine_solver(Rounding("none"), 20).faults
    assert examine_solver(Rounding("none"), 20, tolerance=0.0).wrong_bounds > 5


def test_wrong_call_and_attributes() -> None:
    with pytest.raises(InputError, match="got instances=0"):
        check_solver(Faulty("none"), instances=0)
    nameless = Faulty("none", description=3)  # type: ignore[arg-type]
    assert "the attribute description is not a str" in examine_solver(nameless, 1).faults


def test_the_page_about_solvers_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its solver conforms (it claims nothing), its three lines pass, it names every solver."""
    page = (ROOT / "docs" / "solvers.md").read_text()
    mine, three = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    module = ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", module)
    exec(mine, module.__dict__)
    exec(three, {})
    result = check_solver(module.SOLVER, instances=50)
    assert result.optimal == 0 < result.answered <= result.feasible
    for name in plugins.installed("mpsearch.solvers"):
        assert page.count(f"`{name}`") >= 2, "one row in each table"

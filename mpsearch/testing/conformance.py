"""Whether a solver is right. Three lines test one (`mpsearch.testing` has the same names):

    from mpsearch.testing import check_solver
    from mine import SOLVER
    check_solver(SOLVER)

The solver gets random scaled problems (`mpsearch.testing.random_problems`) as `mpsearch solve`
would give them and is judged by its raw answers, without the re-check that `solve` adds.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpsearch.errors import InputError, MpsearchError
from mpsearch.knapsack.problem import Problem
from mpsearch.knapsack.solver import Answer, Solver
from mpsearch.testing.random_problems import Case, random_case

# Of cost_limit: what a solver in doubles cannot be blamed for, and what `solve` mends silently.
TOLERANCE = 1e-9
HURRIED = 10.0  # seconds that a time limit of 0 may take, for engines that only look up at times
CLAIMS = ("optimal", "feasible", "infeasible", "unknown")


@dataclass(frozen=True)
class Conformance:
    """What a solver did. A fault is a line with the instance's seed and what differed.

    instances: problems asked, each also with a time limit of 0 by default; feasible: those that
    have an answer; optimal: how many of these were solved and called optimal, rightly; answered:
    how many got a feasible assignment. wrong_optimal: called optimal, and exhaustive search is
    better; wrong_infeasible: called infeasible, and it is not; broken_limits: an assignment over a
    limit or with a choice that is not allowed; wrong_bounds: a bound above the optimum; other:
    crashes, malformed answers, a changed problem, accepted nonsense options.
    """

    solver: str
    instances: int
    feasible: int
    answered: int
    optimal: int
    wrong_optimal: int
    wrong_infeasible: int
    broken_limits: int
    wrong_bounds: int
    other: int
    faults: tuple[str, ...]


def check_solver(
    solver: Solver, instances: int = 200, seed: int = 0, tolerance: float = TOLERANCE
) -> Conformance:
    """Ask the solver for the random problems seed, seed + 1, … and raise AssertionError on a fault.

    `tolerance`, in units of the problem's cost_limit, is how far an "optimal" cost or a bound may
    lie above the exhaustive optimum; limits have none, they are integers. 0 for exact solvers.
    The message names the seed: `check_solver(SOLVER, instances=1, seed=17)` repeats instance 17.
    Raises InputError (or what the solver raises of its kind) where the engine is not installed.
    """
    result = examine_solver(solver, instances, seed, tolerance)
    if result.faults:
        shown = "\n  ".join(result.faults[:5])
        more = len(result.faults) - 5
        rest = f"\n  and {more} more" if more > 0 else ""
        raise AssertionError(
            f"solver {result.solver}: {len(result.faults)} faults\n  {shown}{rest}"
        )
    return result


def examine_solver(
    solver: Solver,
    instances: int = 200,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    hurried: bool = True,
) -> Conformance:
    """As `check_solver`, but faults are only counted; `hurried`: ask with a time limit of 0 too."""
    if instances < 1:
        raise InputError(f"got instances={instances}; expected at least 1")
    tally = _Tally(solver, tolerance)
    tally.manners()
    for number in range(seed, seed + instances):
        case = random_case(number)
        tally.judge(case, None)
        if hurried:
            tally.judge(case, 0.0)
    if tally.counts["feasible"] and not tally.counts["answered"]:
        tally.fault("other", f"seeds {seed} to {seed + instances - 1}: no problem was answered")
    return Conformance(solver.name, instances, faults=tuple(tally.faults), **tally.counts)


class _Tally:
    """Counts and faults so far."""

    def __init__(self, solver: Solver, tolerance: float) -> None:
        self.solver, self.tolerance = solver, tolerance
        self.faults: list[str] = []
        names = "feasible answered optimal wrong_optimal wrong_infeasible broken_limits"
        self.counts = dict.fromkeys([*names.split(), "wrong_bounds", "other"], 0)

    def fault(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        self.faults.append(text)

    def manners(self) -> None:
        """The attributes that `mpsearch solvers` shows, and a nonsense option."""
        for name, kind in (("name", str), ("description", str), ("capabilities", tuple)):
            if not isinstance(getattr(self.solver, name, None), kind):
                self.fault("other", f"the attribute {name} is not a {kind.__name__}")
        try:
            self.solver.solve(random_case(0).problem, None, {"no such option": "1"})
        except InputError as error:
            if "no such option" not in str(error):
                raise  # it is not the option: the engine is missing
            return
        except Exception as error:
            self.fault("other", f"an unknown option raises {type(error).__name__}, not InputError")
            return
        self.fault("other", "an unknown option is ignored; expected an InputError that names it")

    def judge(self, case: Case, time_limit: float | None) -> None:
        """One call: everything that is said must be true; without a limit it is counted."""
        hurry = "" if time_limit is None else ", time limit 0"
        where = f"seed {case.seed}{hurry}: "
        if case.best is not None and time_limit is None:
            self.counts["feasible"] += 1
        copy = _copy(case.problem)
        started = time.monotonic()
        try:
            answer = self.solver.solve(copy, time_limit, {})
        except MpsearchError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            self.fault("other", f"{where}it raises {type(error).__name__}: {text}")
            return
        if time_limit is not None and time.monotonic() - started > HURRIED:
            self.fault("other", f"{where}it took {time.monotonic() - started:.1f} s")
        if not _same(copy, case.problem):
            self.fault("other", f"{where}it changed the problem that it was given")
        wrong = malformed(answer, case.problem)
        if wrong:
            self.fault("other", where + wrong)
            return
        self._claim(case, answer, where, counted=time_limit is None)

    def _claim(self, case: Case, answer: Answer, where: str, counted: bool) -> None:
        problem, best = case.problem, case.best
        doubt = int(self.tolerance * max(problem.cost_limit, 1))  # an int: sums stay exact
        if answer.chosen is not None and not problem.is_feasible(answer.chosen):
            self.fault("broken_limits", f"{where}{_over(problem, answer.chosen)}")
            return
        if best is None:
            return  # "infeasible", or nothing known: an assignment would have broken a limit
        if answer.claim == "infeasible":
            text = f"it says infeasible; exhaustive search finds cost {best}"
            self.fault("wrong_infeasible", where + text)
            return
        if answer.bound is not None and answer.bound > best + doubt:
            text = f"its bound is {answer.bound:.17g}; exhaustive search finds cost {best}"
            self.fault("wrong_bounds", where + text)
        if answer.chosen is None:
            return
        cost = problem.cost(answer.chosen)
        if answer.claim == "optimal" and cost - best > doubt:
            text = f"it calls cost {cost} optimal; exhaustive search finds {best}"
            self.fault("wrong_optimal", where + text)
        elif counted and answer.claim == "optimal":
            self.counts["optimal"] += 1
        self.counts["answered"] += counted


def malformed(answer: Any, problem: Problem) -> str:
    """What is wrong with the shape of an answer; empty if nothing is."""
    if not isinstance(answer, Answer):
        return f"it returned {type(answer).__name__}, not an Answer"
    if answer.claim not in CLAIMS:
        return f"it claims {answer.claim!r}; expected one of {', '.join(CLAIMS)}"
    if answer.bound is not None and not np.isfinite(answer.bound):
        return f"its bound is {answer.bound}; expected a finite number or None"
    if answer.chosen is None:
        if answer.claim in ("optimal", "feasible"):
            return f"it claims {answer.claim} without an assignment"
        return ""
    chosen = np.asarray(answer.chosen)
    layers, choices = problem.allowed.shape
    if chosen.shape != (layers,) or not np.issubdtype(chosen.dtype, np.integer):
        return f"chosen is {chosen.dtype} {list(chosen.shape)}; expected integers [{layers}]"
    if ((chosen < 0) | (chosen >= choices)).any():
        return f"chosen has entries outside 0 to {choices - 1}"
    if answer.claim in ("infeasible", "unknown"):
        return f"it claims {answer.claim} with an assignment"
    return ""


def _over(problem: Problem, chosen: Any) -> str:
    """Which limit an assignment breaks, or that a choice is not allowed."""
    rows = np.arange(len(problem.allowed))
    for layer in np.flatnonzero(~problem.allowed[rows, chosen]):
        return f"layer {layer} has choice {chosen[layer]}, which is not allowed"
    totals = problem.weights[:, rows, chosen].sum(axis=1)
    worst = int(np.flatnonzero(totals > problem.limits)[0])
    return f"weights[{worst}] sum to {totals[worst]}; the limit is {problem.limits[worst]}"


def _arrays(problem: Problem) -> Sequence[Any]:
    return (problem.allowed, problem.costs, problem.weights, problem.limits)


def _copy(problem: Problem) -> Problem:
    allowed, costs, weights, limits = (array.copy() for array in _arrays(problem))
    return Problem(allowed, costs, weights, limits, problem.cost_limit, problem.columns)


def _same(one: Problem, other: Problem) -> bool:
    pairs = zip(_arrays(one), _arrays(other), strict=True)
    return one.cost_limit == other.cost_limit and all(np.array_equal(a, b) for a, b in pairs)

"""Whether a solver is right. Three lines test one (`mpsearch.testing` has the same names):

    from mpsearch.testing import check_solver
    from mine import SOLVER
    check_solver(SOLVER)

The solver gets random scaled problems (`mpsearch.testing.conformance`) as `mpsearch solve`
would give them and is judged by its raw answers, without the re-check that `solve` adds.

Random problems for judging solvers: small enough for exhaustive search, nasty on purpose.

Ties, equal layers, equal choices, zero Ω, groups, missing choices, Ω totals from 1e-12 to 1e6,
BOPS up to 1e13, one to three limits, limits that are met exactly, limits that exclude each other,
one layer, one choice.
"""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError, MpsearchError
from mpsearch.knapsack.instance import Instance
from mpsearch.knapsack.problem import Answer, Problem, Solver, scale
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable, Row

MOST = 200_000  # assignments of one instance
COLUMNS = ("size_bytes", "bops", "latency_s")
BITS = (2, 3, 4, 5, 6, 8)
WIDTHS = (1, 2, 2, 3, 3, 4, 4, 4, 4, 5, 5, 6, 6, 6, 6)  # choices per layer


@dataclass(frozen=True, eq=False)
class Case:
    """A problem, and the least cost of all its assignments (None: infeasible)."""

    seed: int
    problem: Problem
    best: int | None


def random_case(seed: int) -> Case:
    """The problem of this seed, scaled as `solve` scales it, with its exhaustive optimum."""
    rng = random.Random(f"mpsearch {seed}")
    while True:
        problem = _problem(rng)
        if problem.allowed.any(axis=1).all():  # else `solve` knows the answer without asking
            best = enumerate_costs(problem)
            return Case(seed, problem, int(best.min()) if len(best) else None)


def enumerate_costs(problem: Problem) -> NDArray[np.int64]:
    """The costs of all feasible assignments, in integers: sums over all combinations at once."""
    costs = np.zeros(1, dtype=np.int64)
    used = np.zeros((len(problem.limits), 1), dtype=np.int64)
    for layer in range(len(problem.allowed)):
        choices = [c for c in range(problem.allowed.shape[1]) if problem.allowed[layer, c]]
        costs = np.concatenate([costs + problem.costs[layer, c] for c in choices])
        used = np.concatenate(
            [used + problem.weights[:, layer, c][:, None] for c in choices], axis=1
        )
        fits = (used <= problem.limits[:, None]).all(axis=0)  # weights only grow
        costs, used = costs[fits], used[:, fits]
    return costs


def _problem(rng: random.Random) -> Problem:
    table = _table(rng, rng.choice([1, *range(2, 13), *range(6, 13)]), rng.choice(WIDTHS))
    limits = _limits(rng, table)
    instance = Instance.build(table, limits, exclude=_exclude(rng, table))
    if any(low > most for low, most in zip(instance.base[1:], instance.limits, strict=True)):
        # `solve` finds this without a solver; what is left are limits that exclude each other
        for position, (column, limit) in enumerate(limits.items()):
            least = instance.resource_value(position, instance.base[1 + position])
            raised = max(limit, least * rng.choice([1, 1.02, 1.1, 1.3]))
            limits[column] = raised if column == "latency_s" else math.ceil(raised)
        instance = Instance.build(table, limits, exclude=_exclude(rng, table))
    problem, shift = scale(instance, None)
    if rng.random() < 0.4 or not problem.allowed.any(axis=1).all():
        return problem
    costs = np.sort(enumerate_costs(problem))
    if not len(costs):
        return problem
    # As `solve` does: scale by a feasible assignment, from the optimum itself to a poor one.
    known = int(costs[int(len(costs) * rng.random() ** 4)])
    lost = len(problem.allowed) if shift else 0  # at most one unit per layer by rounding down
    return scale(instance, instance.base[0] + ((known + lost) << shift))[0]


def _table(rng: random.Random, layers: int, choices: int) -> LayerTable:
    """Rows as a profile has them, Ω falling with the bits in most layers but not in all."""
    bits = sorted(rng.sample(BITS, choices))
    scale_ = 10 ** rng.uniform(-12, 6)
    grouped = rng.random() < 0.3
    described = [
        Layer(f"layer{i}", "conv2d", rng.choice(["", "", "a", "b"]) if grouped else "")
        for i in range(layers)
    ]
    rows: list[Row] = []
    for number, layer in enumerate(described):
        if number and rng.random() < 0.2:
            before = rows[-choices:]
            rows += [Row(layer.name, r.choice, r.omega, 0.0, r.resources) for r in before]
            continue
        weights = rng.choice([16, 100, rng.randrange(1, 10**7)])
        macs = weights * rng.choice([1, 49, rng.randrange(1, 15_000)])
        height = 10 ** rng.uniform(-3, 3)
        for b in bits:
            omega = scale_ * height * 4.0**-b * rng.uniform(0.5, 2)
            omega = omega if rng.random() < 0.7 else rng.choice([float(f"{omega:.1g}")] * 4 + [0.0])
            resources: dict[str, int | float] = {
                "size_bytes": -(-weights * b // 8),
                "bops": macs * b * b,
                "latency_s": round(rng.uniform(1e-5, 1e-2), 9),
            }
            if rng.random() < 0.1 and rows and rows[-1].layer == layer.name:
                resources = dict(rows[-1].resources)  # an equal choice
            rows.append(Row(layer.name, Choice(b, 8), omega, 0.0, resources))
    return LayerTable.from_rows(described, rows)


def _limits(rng: random.Random, table: LayerTable) -> dict[str, int | float]:
    """One to three limits, from nearly nothing to loose, often exactly attainable."""
    tight, least = rng.random() < 0.2, rng.random() < 0.15
    limits: dict[str, int | float] = {}
    for column in rng.sample(COLUMNS, rng.randint(1, 3)):
        totals = [float(table.uniform_total(column, choice)) for choice in table.choices]
        share = rng.uniform(0, 0.1) if tight else rng.uniform(0, 0.7)
        limit = min(totals) + share * (max(totals) - min(totals))
        if least:  # raised to about the least total: with the random latency_s they exclude
            limit = 0.0
        elif rng.random() < 0.4:
            picked = {name: rng.choice(table.choices) for name in table.layer_names}
            limit = float(table.total(picked, column))
        limits[column] = limit if column == "latency_s" else int(limit)
    return limits


def _exclude(rng: random.Random, table: LayerTable) -> dict[str, set[Choice]]:
    """Leave choices out, the same for layers of one group, until few assignments are left."""
    units: dict[str, list[str]] = {}
    for layer in table.layers:
        units.setdefault(f"group {layer.group}" if layer.group else layer.name, []).append(
            layer.name
        )
    kept = {unit: list(table.choices) for unit in units}
    for unit in kept:
        if rng.random() < 0.2 and len(kept[unit]) > 1:
            kept[unit].remove(rng.choice(kept[unit]))
    while _number(kept) > MOST:
        largest = [unit for unit in kept if len(kept[unit]) > 2] or list(kept)
        unit = rng.choice(largest)
        kept[unit].remove(rng.choice(kept[unit]))
    return {
        name: set(table.choices) - set(kept[unit])
        for unit, names in units.items()
        for name in names
    }


def _number(kept: dict[str, list[Choice]]) -> int:
    number = 1
    for choices in kept.values():
        number *= len(choices)
    return number


# Of cost_limit: what a solver in doubles cannot be blamed for, and what `solve` mends silently.
TOLERANCE = 1e-9
HURRIED = 10.0  # seconds that a time limit of 0 may take, for engines that only look up at times
CLAIMS = ("optimal", "feasible", "infeasible", "unknown")


@dataclass(frozen=True)
class Conformance:
    """What a solver did on random problems, held against exhaustive search."""

    solver: str
    """Its name."""
    instances: int
    """Problems asked, each also with a time limit of 0 by default."""
    feasible: int
    """How many of these have an answer."""
    answered: int
    """How many got a feasible assignment."""
    optimal: int
    """How many were solved and called optimal, rightly."""
    wrong_optimal: int
    """Called optimal, and exhaustive search is better."""
    wrong_infeasible: int
    """Called infeasible, and it is not."""
    broken_limits: int
    """An assignment over a limit or with a choice that is not allowed."""
    wrong_bounds: int
    """A bound above the optimum."""
    other: int
    """Crashes, malformed answers, a changed problem, accepted nonsense options."""
    faults: tuple[str, ...]
    """A line for each fault: the instance's seed and what differed."""


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

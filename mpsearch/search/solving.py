"""`solve`: from a table and a budget to an assignment that is checked and, where said, proven."""

import math
import time
from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from mpsearch.errors import InputError, MpsearchError, did_you_mean
from mpsearch.knapsack.instance import Instance
from mpsearch.knapsack.problem import GROUP, Answer, Problem, Solver, scale
from mpsearch.running import plugins
from mpsearch.search.feasible_limits import smallest_feasible
from mpsearch.search.not_binding import not_binding
from mpsearch.search.proof import Proof, fewest_choices, guess, prove
from mpsearch.solvers import dynamic_programming, lagrangian
from mpsearch.tables.budget import Budget, Minimand, totals_of
from mpsearch.tables.choice import Choice
from mpsearch.tables.exact import float_below
from mpsearch.tables.solution import Solution, Status, Useful
from mpsearch.tables.table import LayerTable

Excludes = Mapping[str, Collection[Choice]]


AUTO_RULE = (
    "lagrangian: exact for any number of limits, needs no other package, keeps bound and gap"
)
FINER = 20  # bits by which a range has to shrink
WRONG_BY = Fraction(
    1, 10**9
)  # relative: below this a worse answer is the solver's rounding, not a wrong claim


def find_solver(name: str) -> Solver:
    """The installed solver of this name; `auto` is lagrangian. InputError for an unknown one."""
    if name in ("auto", "lagrangian"):
        return lagrangian.SOLVER
    if name not in plugins.installed(GROUP):
        known = ["auto", *plugins.installed(GROUP)]
        close = did_you_mean(name, known)
        raise InputError(f"unknown solver {name!r}{close}; installed: {', '.join(known)}")
    solver: Solver = plugins.load(GROUP, name, "solver")
    return solver


def solve(
    table: LayerTable,
    budget: Budget | None = None,
    solver: str = "auto",
    pins: Mapping[str, Choice] | None = None,
    exclude: Mapping[str, Collection[Choice]] | None = None,
    time_limit: float | None = None,
    options: Mapping[str, Any] | None = None,
    minimize: Minimand | None = None,
    max_distinct: int | None = None,
    explain: bool = True,
) -> Solution:
    """Minimise total Ω under the budget; every answer is re-evaluated from the table exactly.

    exclude: layer name (or `""` for every layer) -> choices that it may not have. time_limit:
    seconds; the proof of another solver's answer gets what it leaves, at least a tenth. options:
    for the solver. minimize: another column or a weighted sum instead of Ω. max_distinct: at most
    so many different choices in the whole network. explain: find the smallest feasible limits of an
    infeasible budget, and which limits of another one do not bind. An answer that breaks a limit or
    claims too much is caught: it is noted, and the exact search's assignment is returned. Raises
    InputError for a wrong call or table.
    """
    started = time.monotonic()
    if time_limit is not None and not (math.isfinite(time_limit) and time_limit >= 0):
        raise InputError(f"got the time limit {time_limit}; expected seconds, not negative")
    if max_distinct is not None and max_distinct < 1:
        raise InputError(f"got at most {max_distinct} distinct choices; expected at least 1")
    search = _Search(find_solver(solver), started, time_limit, options or {})
    budget, minimize = budget or Budget(), minimize or Minimand()
    instance = Instance.build(
        table, budget.limits, pins, exclude, at_least=budget.at_least, minimize=minimize
    )
    if max_distinct is None or max_distinct >= len(table.choices):
        proof = search.run(instance)
    else:
        proof = fewest_choices(instance, max_distinct, search.run)
    found: dict[str, Any] = {}
    if proof.chosen is not None:
        found = _found(table, instance, budget, proof)
    status: Status = "infeasible" if proof.complete else "no-solution"
    if proof.chosen is not None:
        status = "optimal" if proof.optimal else "feasible"
    seconds = time.monotonic() - started
    idle: Mapping[str, Useful] = {}
    if status == "optimal" and explain:
        idle = not_binding(
            table, budget, found["choices"], pins, exclude, minimize, max_distinct, time_limit
        )
    return Solution(
        status=status,
        choices=found.get("choices", {}),
        objective=found.get("objective"),
        bound=found.get("bound"),
        gap=found.get("gap"),
        seconds=seconds,
        solver=search.name,
        totals=found.get("totals", {}),
        limits=budget.limits,
        smallest=smallest_feasible(table, budget, pins, exclude, max_distinct)
        if status == "infeasible" and explain
        else {},
        notes=tuple(dict.fromkeys(search.notes)),
        at_least=budget.at_least,
        minimize=str(minimize),
        omega=found.get("omega"),
        not_binding=idle,
    )


class _Search:
    """One solver asked about instances, its answers checked and proven; collects the notes."""

    def __init__(
        self,
        backend: Solver,
        started: float,
        time_limit: float | None,
        options: Mapping[str, Any],
    ) -> None:
        self.backend, self.started = backend, started
        self.time_limit, self.options = time_limit, options
        self.own = backend is lagrangian.SOLVER
        self.max_states = None
        if self.own:
            self.max_states = dynamic_programming.max_states_of(options, backend.name)
        self.name = backend.name
        self.notes: list[str] = []

    def run(self, instance: Instance) -> Proof:
        """The proven (or best) answer to one instance."""
        if instance.is_empty:
            return Proof(None, None, instance.base[0], True)
        start = guess(instance)
        deadline = None if self.time_limit is None else self.started + self.time_limit
        if self.own:
            return prove(instance, start, deadline, self.max_states)
        candidate = start
        while True:
            problem, shift = scale(
                instance, None if candidate is None else instance.sum(instance.omega, candidate)
            )
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            answer = _ask(self.backend, instance, problem, left, self.options, self.notes)
            if answer.chosen is None:
                break
            candidate = answer.chosen
            # What solvers get has 60 bits of the range of Ω, and engines in doubles see fewer: an
            # answer that shortens the range a lot is asked for again in finer units.
            span = instance.sum(instance.omega, candidate) - instance.base[0]
            if span << FINER >= problem.cost_limit << shift:
                break
            if deadline is not None and time.monotonic() > deadline:
                break
        if deadline is not None and self.time_limit is not None:
            deadline = max(deadline, time.monotonic() + self.time_limit / 10)
        proof = prove(instance, candidate, deadline)
        if _judge(self.backend.name, instance, answer, proof, self.notes):
            self.name = f"{self.backend.name}, corrected by lagrangian"
        return proof


def _ask(
    backend: Solver,
    instance: Instance,
    problem: Problem,
    time_limit: float | None,
    options: Mapping[str, Any],
    notes: list[str],
) -> Answer:
    """The solver's answer, with `chosen` only if it is whole and feasible."""
    nothing = Answer(None, "unknown")
    if not problem.allowed.any(axis=1).all():
        return nothing
    try:
        answer = backend.solve(problem, time_limit, options)
    except MpsearchError:  # a wrong option, a missing package: the user's to mend
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        notes.append(f"solver {backend.name} failed: {type(error).__name__}: {text}")
        return nothing
    if not isinstance(answer, Answer):
        notes.append(f"solver {backend.name} returned {type(answer).__name__}, not an Answer")
        return nothing
    if answer.chosen is None:
        return answer
    chosen = np.asarray(answer.chosen)
    layers, choices = instance.allowed.shape
    if (
        chosen.shape != (layers,)
        or not np.issubdtype(chosen.dtype, np.integer)
        or ((chosen < 0) | (chosen >= choices)).any()
    ):
        notes.append(f"solver {backend.name} returned an incomplete assignment; it was not used")
        return nothing
    if not instance.is_feasible(chosen):
        notes.append(
            f"solver {backend.name} returned an assignment that breaks a limit or "
            "uses a choice that is not allowed; it was not used"
        )
        return nothing
    return Answer(chosen.astype(np.int64), answer.claim, answer.bound)


def _judge(name: str, instance: Instance, answer: Answer, proof: Proof, notes: list[str]) -> bool:
    """Note wrong claims; True if the returned assignment is not the solver's."""
    if proof.upper is None:
        return False
    if answer.claim == "infeasible":
        notes.append(f"solver {name} called the budget infeasible; it is not")
    if answer.chosen is None:
        return True
    total = instance.sum(instance.omega, answer.chosen)
    if total - proof.upper <= WRONG_BY * abs(proof.upper):
        return False
    if answer.claim == "optimal":
        notes.append(
            f"solver {name} called Ω {instance.omega_value(total):.6g} optimal; "
            f"{instance.omega_value(proof.upper):.6g} is feasible"
        )
    return True


def _found(table: LayerTable, instance: Instance, budget: Budget, proof: Proof) -> dict[str, Any]:
    """What is reported of an assignment, from the table and the exact bound alone."""
    assert proof.chosen is not None
    assert proof.upper is not None
    choices = instance.by_layer(proof.chosen)
    choices = {layer: choices[layer] for layer in table.layer_names}
    objective = instance.omega_value(proof.upper)
    exact_bound = Fraction(proof.lower, 10 ** instance.digits[0])
    bound = objective if proof.upper == proof.lower else float_below(exact_bound)
    return {
        "choices": choices,
        "objective": objective,
        "bound": bound,
        "gap": (objective - bound) / abs(objective) if objective else 0.0,
        "totals": totals_of(table, choices, budget.limits, budget.at_least),
        "omega": float(table.total(choices, "omega")),
    }

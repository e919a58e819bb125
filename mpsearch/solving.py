"""`solve`: from a table and a budget to an assignment that is checked and, where said, proven."""

import math
import time
from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch import plugins
from mpsearch.budget import Budget
from mpsearch.choice import Choice
from mpsearch.errors import InputError, MpsearchError
from mpsearch.exact import float_below
from mpsearch.instance import Instance
from mpsearch.problem import scale
from mpsearch.proof import Proof, guess, prove, smallest
from mpsearch.solution import Smallest, Solution
from mpsearch.solver import GROUP, Answer, Solver
from mpsearch.solvers import dynamic_programming, lagrangian
from mpsearch.table import LayerTable

AUTO_RULE = (
    "lagrangian: exact for any number of limits, needs no other package, keeps bound and gap"
)
WRONG_BY = 1e-9  # relative: below this a worse answer is the solver's rounding, not a wrong claim
RANGE_SECONDS = 5.0


def find_solver(name: str) -> Solver:
    """The installed solver of this name; `auto` is lagrangian. InputError for an unknown one."""
    if name in ("auto", "lagrangian"):
        return lagrangian.SOLVER
    if name not in plugins.installed(GROUP):
        known = ", ".join(["auto", *plugins.installed(GROUP)])
        raise InputError(f"unknown solver {name!r}; installed: {known}")
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
) -> Solution:
    """Minimise total Ω under the budget; every answer is re-evaluated from the table exactly.

    exclude: layer name (or `""` for every layer) -> choices that it may not have. time_limit:
    seconds; the proof of another solver's answer gets what it leaves, at least a tenth. options:
    for the solver. An answer that breaks a limit or claims too much is caught: it is noted, and
    the exact search's assignment is returned. Raises InputError for a wrong call or table.
    """
    started = time.monotonic()
    if time_limit is not None and not (math.isfinite(time_limit) and time_limit >= 0):
        raise InputError(f"got the time limit {time_limit}; expected seconds, not negative")
    backend = find_solver(solver)
    limits = dict(budget.limits) if budget else {}
    instance = Instance.build(table, limits, pins, exclude)
    own = backend is lagrangian.SOLVER
    if own:
        max_states = dynamic_programming.max_states_of(options or {}, backend.name)
    notes: list[str] = []
    name = backend.name

    if any(low > most for low, most in zip(instance.base[1:], instance.limits, strict=True)):
        proof = Proof(None, None, instance.base[0], True)
    else:
        start = guess(instance)
        if own:
            deadline = None if time_limit is None else started + time_limit
            proof = prove(instance, start, deadline, max_states)
        else:
            answer = _ask(backend, instance, start, time_limit, options or {}, notes)
            candidate = answer.chosen if answer.chosen is not None else start
            deadline = None
            if time_limit is not None:
                deadline = max(started + time_limit, time.monotonic() + time_limit / 10)
            proof = prove(instance, candidate, deadline)
            if _judge(name, instance, answer, proof, notes):
                name = f"{name}, corrected by lagrangian"
    return _solution(table, instance, limits, proof, name, started, tuple(notes))


def _ask(
    backend: Solver,
    instance: Instance,
    start: NDArray[Any] | None,
    time_limit: float | None,
    options: Mapping[str, Any],
    notes: list[str],
) -> Answer:
    """The solver's answer, with `chosen` only if it is whole and feasible."""
    upper = None if start is None else instance.sum(instance.omega, start)
    problem, _ = scale(instance, upper)
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
    if total - proof.upper <= WRONG_BY * proof.upper:
        return False
    if answer.claim == "optimal":
        notes.append(
            f"solver {name} called Ω {instance.omega_value(total):.6g} optimal; "
            f"{instance.omega_value(proof.upper):.6g} is feasible"
        )
    return True


def _solution(
    table: LayerTable,
    instance: Instance,
    limits: Mapping[str, int | float],
    proof: Proof,
    name: str,
    started: float,
    notes: tuple[str, ...],
) -> Solution:
    """Everything that is reported, from the table and the exact bound alone."""
    if proof.chosen is None or proof.upper is None:
        ranges = smallest_feasible(instance) if proof.complete else {}
        return Solution(
            status="infeasible" if proof.complete else "no-solution",
            choices={},
            objective=None,
            bound=None,
            gap=None,
            seconds=time.monotonic() - started,
            solver=name,
            totals={},
            limits=limits,
            smallest=ranges,
            notes=notes,
        )
    choices = instance.by_layer(proof.chosen)
    choices = {layer: choices[layer] for layer in table.layer_names}
    objective = instance.omega_value(proof.upper)
    exact_bound = Fraction(proof.lower, 10 ** instance.digits[0])
    bound = objective if proof.upper == proof.lower else float_below(exact_bound)
    return Solution(
        status="optimal" if proof.optimal else "feasible",
        choices=choices,
        objective=objective,
        bound=bound,
        gap=(objective - bound) / objective if objective > 0 else 0.0,
        seconds=time.monotonic() - started,
        solver=name,
        totals={column: table.total(choices, column) for column in table.columns},
        limits=limits,
        notes=notes,
    )


def smallest_feasible(instance: Instance) -> dict[str, Smallest]:
    """For every limited column the least total, alone and while the other limits hold."""
    deadline = time.monotonic() + RANGE_SECONDS
    result = {}
    for position, column in enumerate(instance.columns):
        others = smallest(instance, position, deadline)
        result[column] = Smallest(
            alone=instance.resource_value(position, instance.base[1 + position]),
            with_others=None if others is None else instance.resource_value(position, others),
        )
    return result

"""Exact search by dynamic programming with dominance: one sweep, as many states as memory holds."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError
from mpsearch.knapsack.problem import Answer, Problem
from mpsearch.solvers.core import Search, open_core
from mpsearch.solvers.dual import Dual
from mpsearch.tables.units import whole_number

MEMORY_CODES = 60_000_000  # back-pointers kept at most, 4 bytes each


@dataclass(frozen=True)
class DynamicProgramming:
    """Exact, numpy only; `max_states` per layer bounds memory, then the gap is reported."""

    name: str = "dp"
    description: str = "dominance DP with Lagrangian bounds (numpy only)"
    capabilities: tuple[str, ...] = ("exact", "any number of limits", "time limit", "bound")

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        """Options: max_states, an integer (default: by memory)."""
        return answer_by(search, problem, time_limit, max_states_of(options, self.name))


SOLVER = DynamicProgramming()


def answer_by(
    search: Callable[..., Search], problem: Problem, time_limit: float | None, states: int | None
) -> Answer:
    """What a search without incumbent finds in `time_limit` seconds, in a solver's words."""
    deadline = None if time_limit is None else time.monotonic() + time_limit
    found = search(problem, None, deadline, states)
    if found.chosen is None:
        return Answer(None, "infeasible" if found.complete else "unknown", found.bound)
    return Answer(found.chosen, "optimal" if found.complete else "feasible", found.bound)


def max_states_of(options: Mapping[str, Any], solver: str = "dp") -> int | None:
    """The option `max_states`, or None; anything else is an InputError."""
    unknown = set(options) - {"max_states"}
    if unknown:
        raise InputError(f"solver {solver} has no option {min(unknown)!r}; it has max_states")
    if "max_states" not in options:
        return None
    states = whole_number(str(options["max_states"]))
    if not states:
        raise InputError(
            f"got max_states={options['max_states']}; expected a whole number of at least 1"
        )
    return states


def most_states(layers: int) -> int:
    """How many states per layer memory holds."""
    return int(np.clip(MEMORY_CODES // max(layers, 1), 2_000, 200_000))


def search(
    problem: Problem,
    incumbent: NDArray[np.int64] | None = None,
    deadline: float | None = None,
    max_states: int | None = None,
    dual: Dual | None = None,
) -> Search:
    """Find an assignment that costs less than the incumbent, or prove that there is none."""
    core = open_core(problem, incumbent, deadline, dual)
    if isinstance(core, Search):
        return core
    core.sweep(max_states or most_states(len(problem.allowed)))
    return core.result()

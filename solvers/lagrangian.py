"""Lagrangian bound and core: the dual fixes almost every layer, widening sweeps settle the rest.

A narrow sweep finds a nearly optimal assignment; that fixes more choices by their reduced costs, so
that the next, wider sweep has fewer layers to take (an expanding core, after Pisinger, European
Journal of Operational Research 1995). It ends when a sweep dropped no state that matters.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.knapsack.problem import Problem
from mpsearch.knapsack.solver import Answer
from mpsearch.solvers.branching import branch
from mpsearch.solvers.core import Search, open_core
from mpsearch.solvers.dual import Dual
from mpsearch.solvers.dynamic_programming import answer_by, max_states_of, most_states

CORES = (16, 32)  # layers that may differ from the best price's minimisers at first
CORE_STATES = 1000
NARROW = 100  # states of the first sweep
WIDER = 8  # each sweep has this many times the states of the one before
WIDEST = 6_400  # states of the last sweep; then branching does more than a wider one
PARTS = 4_000_000  # cells [L, C] of all parts together, after which the gap is reported


@dataclass(frozen=True)
class Lagrangian:
    """Exact, numpy only; `max_states` per layer bounds time and memory."""

    name: str = "lagrangian"
    description: str = "Lagrangian bound, then dominance DP over a widening core (numpy only)"
    capabilities: tuple[str, ...] = ("exact", "any number of limits", "time limit", "bound")

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        """Options: max_states, an integer (default: by memory)."""
        return answer_by(search, problem, time_limit, max_states_of(options, self.name))


SOLVER = Lagrangian()


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
    for layers in CORES:
        core.improve(layers, min(CORE_STATES, max_states or CORE_STATES))
    width = NARROW
    while True:
        open_layers = int((core.keep.sum(axis=1) > 1).sum())
        most = max_states or most_states(open_layers)
        core.sweep(min(width, most))
        found = core.result()
        late = deadline is not None and time.monotonic() > deadline
        if found.complete or late or (max_states is not None and width >= most):
            return found
        if width >= WIDEST:
            return branch(core, deadline, PARTS // problem.allowed.size)
        width *= WIDER

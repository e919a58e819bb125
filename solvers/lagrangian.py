"""Lagrangian bound and core: the dual fixes almost every layer, widening sweeps settle the rest.

A narrow sweep finds a nearly optimal assignment; that fixes more choices by their reduced costs, so
that the next, wider sweep has fewer layers to take (an expanding core, after Pisinger, European
Journal of Operational Research 1995). It ends when a sweep dropped no state that matters.

Branch and bound over cores: for problems in which one price per limit bounds too little.

Where a few layers hold most of a limited resource, the prices that suit one of their choices do not
suit another, and a single core stays wide open. So the most disputed layer is fixed to each of its
choices in turn; every part gets prices of its own, and the part with the least bound goes first
(Land and Doig, Econometrica 1960).
"""

import heapq
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.knapsack.problem import Answer, Problem
from mpsearch.solvers.core import Core, Search, open_core
from mpsearch.solvers.dual import Dual, maximise
from mpsearch.solvers.dynamic_programming import answer_by, max_states_of, most_states
from mpsearch.solvers.exchange import exchange
from mpsearch.solvers.relaxation import relax

STATES = 400  # of the sweep in each part
ONE = 40_000_000  # states of all sweeps together with one limit: some ten seconds
PRICES = 4  # whose minimisers are asked which layer is disputed


def branch(core: Core, deadline: float | None, most_parts: int, most: int = ONE) -> Search:
    """Go on from a core that its sweeps left open; bound and incumbent are never worse than its.

    It ends after so many parts, or when all sweeps together had `most` states.
    """
    best, chosen, states = core.best, core.chosen, core.states
    number = count()
    heap = [(core.lower, next(number), core.keep)]
    parts = 0
    while heap and heap[0][0] <= best - 1:
        late = deadline is not None and time.monotonic() > deadline
        if late or parts >= most_parts or states >= most:
            break
        _, _, allowed = heapq.heappop(heap)
        parts += 1
        part = _part(core.problem, allowed, best, chosen, deadline)
        if part is None:
            continue
        part.sweep(STATES)
        states += part.states
        if part.best < best:
            best, chosen = part.best, part.chosen
        if part.result().complete:
            continue
        layer = _disputed(part)
        for choice in np.flatnonzero(part.keep[layer]).tolist():
            only = part.keep.copy()
            only[layer] = False
            only[layer, choice] = True
            heapq.heappush(heap, (part.lower, next(number), only))
    if not heap or heap[0][0] > best - 1:
        return Search(chosen, best, True, states)
    bound = max(int(max(np.floor(heap[0][0]), np.floor(core.lower), 0)), core.proven)
    return Search(chosen, min(bound, best), False, states)


def _part(
    problem: Problem,
    allowed: NDArray[np.bool_],
    best: int,
    chosen: NDArray[np.int64] | None,
    deadline: float | None,
) -> Core | None:
    """The core of the problem with fewer choices; None where some layer has none left."""
    if not allowed.any(axis=1).all():
        return None
    smaller = replace(problem, allowed=allowed)
    dual = maximise(smaller)
    for found in dual.incumbents:
        if problem.cost(found) < best:
            best, chosen = problem.cost(found), found
    return Core(smaller, dual.prices, best, chosen, deadline)


def _disputed(core: Core) -> int:
    """The open layer whose choices differ most in priced weight, if the prices disagree on it."""
    weights = core.problem.weights.astype(np.float64)
    priced = np.tensordot(core.prices[0], weights, axes=1)
    spread = np.where(core.keep, priced, -np.inf).max(axis=1) - np.where(
        core.keep, priced, np.inf
    ).min(axis=1)
    wide = core.keep.sum(axis=1) > 1
    first = core.minimiser[:PRICES]
    disputed = wide & (first != first[0]).any(axis=0)
    if not disputed.any():
        disputed = wide
    return int(np.where(disputed, spread, -1.0).argmax())


CORES = (16, 32)  # layers that may differ from the best price's minimisers at first
CORE_STATES = 1000
WIDE_CORES = (64, 128, 256)  # layers that change at least cost, where one limit leaves many open
WIDE_STATES = 4000
MUCH = 25_000  # states that the narrow sweep of a large problem may have
NARROW = 100  # states of the first sweep
WIDER = 8  # each sweep has this many times the states of the one before
WIDEST = 6_400  # states of the last sweep; then branching does more than a wider one
SEVERAL = 1_500_000  # with more limits, where each state takes so much longer
NEAR = 1e-6  # a relative gap at which half of them have to do
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
        core.improve(layers, min(CORE_STATES, max_states or CORE_STATES), narrow=True)
    width = NARROW
    several = len(problem.limits) > 1
    while True:
        most = max_states or most_states(core.open_layers)
        before, known = core.states, core.best
        core.sweep(min(width, most))
        spent = core.states - before
        if width == NARROW and core.open_layers * width > MUCH and max_states is None:
            if several:
                _by_one_limit(core, deadline)
            else:
                for layers in WIDE_CORES:
                    core.improve(layers, WIDE_STATES, narrow=False)
        found = core.result()
        late = deadline is not None and time.monotonic() > deadline
        if found.complete or late or (max_states is not None and width >= most):
            return found
        near = core.best - max(core.proven, core.lower) <= NEAR * core.best
        budget = (SEVERAL if several else ONE) // (2 if near else 1)
        widest = width >= (WIDEST if several else most)
        if widest and core.best < known and core.states + spent <= budget:
            continue  # fewer layers are open below the better assignment
        if widest or core.states + WIDER * spent > budget:
            if core.states + core.open_layers * STATES // 2 > budget:
                return found  # one part alone would take too long
            return branch(core, deadline, PARTS // problem.allowed.size, budget)
        width *= WIDER


def _by_one_limit(core: Core, deadline: float | None) -> None:
    """The bound with each limit alone, the others priced; and what its optimum leads to."""
    problem, prices = core.problem, core.prices[0]
    for row in np.argsort(-prices * problem.limits, kind="stable").tolist():
        if prices[row] <= 0:
            break
        relaxed = relax(problem, row, prices, core.best)
        if relaxed is None:
            continue
        found = search(relaxed.problem, core.chosen, deadline)
        if found.chosen is not None:
            core.learn(found.bound + relaxed.shift, exchange(problem, found.chosen, prices))
        if core.best - core.proven <= NEAR * core.best:
            break

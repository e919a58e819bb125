"""Branch and bound over cores: for problems in which one price per limit bounds too little.

Where a few layers hold most of a limited resource, the prices that suit one of their choices do not
suit another, and a single core stays wide open. So the most disputed layer is fixed to each of its
choices in turn; every part gets prices of its own, and the part with the least bound goes first
(Land and Doig, Econometrica 1960).
"""

import heapq
import time
from dataclasses import replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from mpsearch.knapsack.problem import Problem
from mpsearch.solvers.core import Core, Search
from mpsearch.solvers.dual import maximise

STATES = 400  # of the sweep in each part
PRICES = 4  # whose minimisers are asked which layer is disputed


def branch(core: Core, deadline: float | None, most_parts: int) -> Search:
    """Go on from a core that its sweeps left open; bound and incumbent are never worse than its."""
    best, chosen, states = core.best, core.chosen, core.states
    number = count()
    heap = [(core.lower, next(number), core.keep)]
    parts = 0
    while heap and heap[0][0] <= best - 1:
        late = deadline is not None and time.monotonic() > deadline
        if late or parts >= most_parts:
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
    bound = int(max(np.floor(heap[0][0]), np.floor(core.lower), 0))
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

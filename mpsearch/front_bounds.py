"""Bound sets: which states of a limited front can still become a point of it.

With a second limited resource the states that dominance leaves are too many. So the range of the
main resource is cut into cells. For each cell a Lagrangian bound says how small Ω can become from a
state, and an assignment known below the cell says how small it must become (Ehrgott and Gandibleux,
Computers & Operations Research 2007, on bound sets). A state that helps in no cell is dropped.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.dual import maximise
from mpsearch.problem import COST_BITS, Problem
from mpsearch.solvers.dynamic_programming import search

CELLS = 96
STATES = 500  # of the search for a good assignment in each cell

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BoundSet:
    """G cells up to `ends` of the main resource; `known`: the best cost below each cell's start.

    prices [G, R] for the limited resources, main last; given [G]: prices times limits; suffix
    [G, L + 1]: what the layers from each step on add at least; margin [G] covers rounding;
    good [<= G, L]: the assignments behind `known`, (nearly) the best of every cell.
    """

    ends: Floats
    known: Floats
    prices: Floats
    given: Floats
    suffix: Floats
    margin: Floats
    good: NDArray[np.int64]

    def alive(self, step: int, costs: NDArray[Any], weights: list[NDArray[Any]]) -> Any:
        """Which states [n], after `step` layers, may still become a point; weights main last."""
        useful = np.zeros(len(costs), dtype=bool)
        cost = costs.astype(np.float64)
        rows = [row.astype(np.float64) for row in weights]
        for cell in range(len(self.ends)):
            bound = cost + (self.suffix[cell, step] - self.given[cell] - self.margin[cell])
            for price, row in zip(self.prices[cell], rows, strict=True):
                if price:
                    bound += price * row
            useful |= (bound < self.known[cell]) & (rows[-1] <= self.ends[cell])
        return useful


def bound_set(
    allowed: NDArray[np.bool_],
    costs: NDArray[Any],
    weights: list[NDArray[Any]],
    limits: list[int],
    sequence: NDArray[np.int64],
) -> BoundSet:
    """Bounds for states of excess costs [L, C] and weights (main last), in this sequence."""
    span = max(float(costs.max(axis=1).astype(np.float64).sum()), 1e-300)
    scaled = np.floor(costs.astype(np.float64) / span * 2.0**COST_BITS * (1 - 1e-9))
    room = min(limits[-1], int(sum(weights[-1].max(axis=1).tolist())))
    ends = np.unique(np.linspace(0, room, CELLS + 1).astype(np.int64))[1:]
    known_cost = [np.inf]
    good: list[NDArray[np.int64]] = []
    prices = []
    rows = np.arange(len(allowed))
    for end in ends.tolist():
        tight = np.array([*limits[:-1], end], dtype=np.int64)
        fits = allowed.copy()
        for row, limit in zip(weights, tight.tolist(), strict=True):
            fits &= row <= limit
        problem = Problem(
            allowed=fits,
            costs=np.where(fits, scaled, 0).astype(np.int64),
            weights=np.where(fits, np.stack(weights), 0),
            limits=np.maximum(tight, 1),
            cost_limit=1 << COST_BITS,
        )
        best = np.inf
        price = np.zeros(len(weights))
        if fits.any(axis=1).all():
            dual = maximise(problem, steps=120)
            price = dual.prices[0] * span / 2.0**COST_BITS
            found = search(problem, max_states=STATES, dual=dual).chosen
            if found is not None and all(
                int(row[rows, found].sum()) <= limit
                for row, limit in zip(weights, tight.tolist(), strict=True)
            ):
                best = float(costs[rows, found].astype(np.float64).sum()) * (1 + 1e-12)
                good.append(found)
        known_cost.append(min(best, known_cost[-1]))
        prices.append(price)
    stacked = np.array(prices).reshape(len(ends), len(weights))
    floats = np.stack(weights).astype(np.float64)
    reduced = costs.astype(np.float64) + np.tensordot(stacked, floats, axes=1)
    least = np.where(allowed, reduced, np.inf).min(axis=2)[:, sequence]
    suffix = np.zeros((len(ends), len(sequence) + 1))
    suffix[:, :-1] = np.cumsum(least[:, ::-1], axis=1)[:, ::-1]
    given = stacked[:, :-1] @ np.array(limits[:-1], dtype=np.float64) + stacked[:, -1] * ends
    size = span + given + (stacked @ floats.max(axis=2).sum(axis=1))
    return BoundSet(
        ends=ends.astype(np.float64),
        known=np.array(known_cost[:-1]),
        prices=stacked,
        given=given,
        suffix=suffix,
        margin=size * 2.0**-50 * (len(allowed) + 8),
        good=np.array(good, dtype=np.int64).reshape(-1, len(allowed)),
    )

"""Dominance over layers for a front whose assignments are limited in further columns.

Bound sets: which states of a limited front can still become a point of it.

With a second limited resource the states that dominance leaves are too many. So the range of the
main resource is cut into cells. In each cell a Lagrangian bound says how small Ω can become from a
state, and the known assignments say how small it must become (Ehrgott and Gandibleux, Computers &
Operations Research 2007, on bound sets). A state that helps in no cell is dropped.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.knapsack.problem import COST_BITS, Problem
from mpsearch.pareto.sweep import Codes, Room, choice_bits, records, trace
from mpsearch.solvers.core import nondominated
from mpsearch.solvers.dual import maximise
from mpsearch.solvers.dynamic_programming import search

CELLS = 96
TINY = 5e-324  # the smallest double above 0
STATES = 500  # of the search for a good assignment in each cell

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BoundSet:
    """G cells up to `ends` of the main resource, and the best assignments that are known.

    prices [G, R] for the limited resources, main last; given [G]: prices times limits, without the
    main one; suffix [G, L + 1]: what the layers from each step on add at least; margin [G] covers
    rounding; base: what costs are counted from. known [L, K]: choices by rising weight and falling
    cost. Where they let a total weight W cost U(W), `reach` [G] is the most of U(W) + price * W in
    the cell, and `floor` [G] the least of base + U(W).
    """

    ends: Floats
    prices: Floats
    given: Floats
    suffix: Floats
    margin: Floats
    base: float
    known: NDArray[np.int64]
    reach: Floats
    floor: Floats

    def score(self, step: int, costs: NDArray[Any], weights: list[NDArray[Any]]) -> Floats:
        """Of states [n] after `step` layers: at least what they may cost over what is known, [n].

        Whatever feasible assignment a state becomes costs the score, or more, times what a known
        one of no more weight (the last of the weights) costs. From 1 on a state is of no use, and
        without the states from s on the front is right up to the factor 1 / s.
        """
        scores = np.ones(len(costs))
        cost = costs.astype(np.float64)
        rows = [row.astype(np.float64) for row in weights]
        for cell in range(len(self.ends)):
            constant = self.reach[cell] + self.given[cell] + self.margin[cell]
            lack = (constant - self.suffix[cell, step]) - cost
            for price, row in zip(self.prices[cell], rows, strict=True):
                if price:
                    lack -= price * row
            lack[rows[-1] > self.ends[cell]] = 0.0  # too heavy for this cell
            np.maximum(lack, 0.0, out=lack)
            with np.errstate(over="ignore"):
                lack /= max(self.floor[cell], TINY)
            np.minimum(scores, 1.0 - lack, out=scores)
        return np.maximum(scores, 0.0)

    def knowing(
        self, costs: NDArray[Any], weights: NDArray[Any], chosen: NDArray[Any]
    ) -> "BoundSet":
        """With more feasible assignments [L, P]; costs and main weights: [L, C]."""
        every = np.concatenate([self.known, chosen], axis=1).astype(np.int64)
        layers = np.arange(len(every))[:, None]
        cost, weight = (matrix[layers, every].sum(axis=0) for matrix in (costs, weights))
        order = np.lexsort((cost, weight))
        order = order[records(weight[order], cost[order])]
        starts = np.concatenate([[0.0], self.ends[:-1]])
        reach, floor = _reach(
            weight[order].astype(np.float64),
            cost[order].astype(np.float64),
            starts,
            self.ends,
            self.prices[:, -1],
        )
        return replace(self, known=every[:, order], reach=reach, floor=self.base + floor)


def bound_set(
    allowed: NDArray[np.bool_],
    costs: NDArray[Any],
    weights: list[NDArray[Any]],
    limits: list[int],
    sequence: NDArray[np.int64],
    base: float = 0.0,
) -> BoundSet:
    """Bounds for states of excess costs [L, C] and weights (main last), in this sequence."""
    span = max(float(costs.max(axis=1).astype(np.float64).sum()), TINY)
    scaled = np.floor(costs.astype(np.float64) / span * 2.0**COST_BITS * (1 - 1e-9))
    room = min(limits[-1], int(sum(weights[-1].max(axis=1).tolist())))
    # 0 alone, where fronts begin; there they are steep, so half of the cells are small there.
    steps = np.concatenate([np.linspace(0, 1, CELLS // 2), np.geomspace(1e-4, 1, CELLS // 2)])
    ends = np.unique((room * steps).astype(np.int64))
    known: list[NDArray[np.int64]] = []
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
            weights=np.where(fits, np.stack(weights), 0).astype(np.int64),
            limits=np.maximum(tight, 1),
            cost_limit=1 << COST_BITS,
        )
        price = np.zeros(len(weights))
        if fits.any(axis=1).all():
            dual = maximise(problem, steps=120)
            price = dual.prices[0] * span / 2.0**COST_BITS
            found = search(problem, max_states=STATES, dual=dual).chosen
            if found is not None and all(
                int(row[rows, found].sum()) <= limit
                for row, limit in zip(weights, tight.tolist(), strict=True)
            ):
                known.append(found)
        prices.append(price)
    stacked = np.array(prices).reshape(len(ends), len(weights))
    floats = np.stack(weights).astype(np.float64)
    reduced = costs.astype(np.float64) + np.tensordot(stacked, floats, axes=1)
    least = np.where(allowed, reduced, np.inf).min(axis=2)[:, sequence]
    suffix = np.zeros((len(ends), len(sequence) + 1))
    suffix[:, :-1] = np.cumsum(least[:, ::-1], axis=1)[:, ::-1]
    given = stacked[:, :-1] @ np.array(limits[:-1], dtype=np.float64)
    size = base + span + given + (stacked @ floats.max(axis=2).sum(axis=1))
    nothing = BoundSet(
        ends=ends.astype(np.float64),
        prices=stacked,
        given=given,
        suffix=suffix,
        margin=size * 2.0**-50 * (len(allowed) + 8),
        base=base,
        known=np.zeros((len(allowed), 0), dtype=np.int64),
        reach=np.full(len(ends), np.inf),
        floor=np.zeros(len(ends)),
    )
    found_ones = np.array(known, dtype=np.int64).reshape(-1, len(allowed)).T
    return nothing.knowing(costs, weights[-1], found_ones)


def _reach(
    weight: Floats, cost: Floats, starts: Floats, ends: Floats, prices: Floats
) -> tuple[Floats, Floats]:
    """Per cell the most of U(W) + price * W, and the least U(W), U the staircase of the points."""
    reach = np.full(len(ends), np.inf)
    floor = np.zeros(len(ends))
    if not len(weight):
        return reach, floor
    following = np.append(weight[1:], np.inf)
    first = np.searchsorted(weight, starts, side="right") - 1
    last = np.searchsorted(weight, ends, side="right") - 1
    for cell, (low, high) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        if low >= 0:  # else nothing is known at the start of the cell
            right = np.minimum(following[low : high + 1], ends[cell])
            reach[cell] = (cost[low : high + 1] + prices[cell] * right).max()
            floor[cell] = cost[high]
    return reach, floor


MANY = 4_000  # with more states than that in a layer, bounds are worth their time
ROUGH = 3_000  # states of the rough front that the bounds are measured against


def limited_sweep(
    allowed: NDArray[np.bool_],
    costs: NDArray[Any],
    weights: list[NDArray[Any]],
    limits: list[int],
    room: Room,
    base: float = 0.0,
) -> tuple[NDArray[np.int8], float]:
    """Choices [L, P] that contain the front of (cost, last weight), and ε.

    allowed, costs, each weight: [L, C]; every sum of weights stays within its limit; `base` is
    what costs are counted from. Where states find no room the least promising ones go: every
    feasible assignment then has an answer that weighs no more and costs at most 1 + ε times as
    much. ε is 0.0 where nothing was lost, infinite where nothing can be said.
    """
    # Layers with large effects first: the bounds of what is left become sharp soon.
    sequence = np.argsort(-costs.astype(np.float64).max(axis=1), kind="stable")
    problem = (allowed, costs, weights, limits, sequence)
    quick = Room(room.memory, min(room.most or MANY, MANY))
    chosen, score = _run(*problem, quick, None)
    if score == 1:
        return chosen, 0.0
    bounds = bound_set(*problem, base)
    rough = Room(room.memory, min(room.most or ROUGH, ROUGH))
    for size in (rough, room):
        chosen, score = _run(*problem, size, bounds)
        bounds = bounds.knowing(costs, weights[-1], chosen)
        if score == 1:
            break
    return bounds.known.astype(np.int8), 1 / score - 1 if score > 0 else np.inf


def _run(
    allowed: NDArray[np.bool_],
    costs: NDArray[Any],
    weights: list[NDArray[Any]],
    limits: list[int],
    sequence: NDArray[np.int64],
    room: Room,
    bounds: BoundSet | None,
) -> tuple[NDArray[np.int8], float]:
    """One pass, and the least score of what found no room (1.0: nothing); without bounds 0.0."""
    tables = [*weights[:-1], costs, weights[-1]]
    ceilings = [*limits[:-1], None, limits[-1]]
    rows = [np.zeros(1, dtype=matrix.dtype) for matrix in tables]
    bits = choice_bits(allowed.shape[1])
    codes: Codes = []
    least = 1.0
    stored = 0
    for step, layer in enumerate(sequence):
        options = np.flatnonzero(allowed[layer]).astype(np.int32)
        points = [
            (row[None, :] + table[layer, options][:, None]).ravel()
            for row, table in zip(rows, tables, strict=True)
        ]
        states = np.arange(len(rows[0]), dtype=np.int32)
        code = (states << bits | options[:, None]).ravel()
        fit = np.ones(len(code), dtype=bool)
        for row, ceiling in zip(points, ceilings, strict=True):
            if ceiling is not None:
                fit &= row <= ceiling
        points, code = [row[fit] for row in points], code[fit]
        if bounds is not None:
            score = bounds.score(step + 1, points[-2], [*points[:-2], points[-1]])
            fit = score < 1
            points, code, score = [row[fit] for row in points], code[fit], score[fit]
        kept = _front_of(points) if len(options) > 1 else np.arange(len(code))
        cap = room.states(stored, len(sequence) - step, allowed.shape, len(tables))
        if len(kept) > cap:
            if bounds is None:
                return np.zeros((len(sequence), 0), dtype=np.int8), 0.0
            by_score = np.argsort(score[kept], kind="stable")
            least = min(least, float(score[kept[by_score[cap]]]))
            kept = kept[np.sort(by_score[:cap])]
        rows, code = [row[kept] for row in points], code[kept]
        codes.append(code)
        stored += len(code)
    return trace(codes, sequence, len(rows[0]), bits), least


def _front_of(points: list[NDArray[Any]]) -> NDArray[np.int64]:
    """Non-dominated states, in an order by the last coordinate."""
    if all(row.dtype == np.int64 for row in points):
        return nondominated(np.stack(points))
    ranks = [np.unique(row, return_inverse=True)[1] for row in points]
    return nondominated(np.stack(ranks))

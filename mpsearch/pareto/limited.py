"""Dominance over layers for a front whose assignments are limited in further columns."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.pareto.bounds import BoundSet, bound_set
from mpsearch.pareto.sweep import Codes, Room, choice_bits, trace
from mpsearch.solvers.dominance import nondominated

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

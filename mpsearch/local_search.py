"""Descent under a quadratic objective: one or two layers change at a time, restarts by seed."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.problem import Problem

Floats = NDArray[np.float64]


def value(quadratic: Floats, width: int, chosen: NDArray[Any]) -> float:
    """xᵀQx for Q [L*C, L*C] and chosen indices [L]."""
    cells = np.arange(len(chosen)) * width + chosen
    return float(quadratic[np.ix_(cells, cells)].sum())


def descend(problem: Problem, quadratic: Floats, chosen: NDArray[Any]) -> NDArray[np.int64]:
    """Repeat the best change of one or two layers that keeps every limit, until none helps."""
    layers, width = problem.allowed.shape
    weights = problem.weights.reshape(len(problem.limits), layers * width)
    layer_of = np.repeat(np.arange(layers), width)
    blocked = (layer_of[:, None] == layer_of[None, :]) & ~np.eye(layers * width, dtype=bool)
    blocked |= ~(problem.allowed.reshape(-1, 1) & problem.allowed.reshape(1, -1))
    diagonal = np.diag(quadratic)
    chosen = chosen.astype(np.int64)
    for _ in range(10 * layers):
        cells = np.arange(layers) * width + chosen
        old = cells[layer_of]  # the cell that each cell would replace
        pull = quadratic[:, cells].sum(axis=1)
        single = 2 * (pull - pull[old]) + diagonal + diagonal[old]
        single -= 2 * quadratic[np.arange(len(old)), old]
        toward = quadratic - quadratic[old]
        joint = 2 * (toward - toward[:, old])
        change = single[:, None] + single[None, :] + joint
        np.fill_diagonal(change, single)  # a cell with itself: one layer changes
        slack = problem.limits - weights[:, cells].sum(axis=1)
        extra = weights - weights[:, old]
        fits = ~blocked
        for row, room in zip(extra, slack, strict=True):
            both = row[:, None] + row[None, :]
            np.fill_diagonal(both, row)
            fits &= both <= room
        change = np.where(fits, change, 0.0)
        best = int(change.argmin())
        first, second = divmod(best, len(old))
        if change[first, second] >= -1e-13 * float(np.abs(quadratic).max()):
            break
        for cell in (first, second):
            chosen[layer_of[cell]] = cell % width
    return chosen


def search(
    problem: Problem,
    quadratic: Floats,
    start: NDArray[Any],
    deadline: float | None,
    restarts: int = 12,
    seed: int = 0,
) -> NDArray[np.int64]:
    """The best of a descent from `start` and from seeded disturbances of the best so far.

    Never worse than `start`; past the deadline it stops after the first descent.
    """
    width = problem.allowed.shape[1]
    rng = np.random.default_rng(seed)
    best, least = start.astype(np.int64), value(quadratic, width, start)
    current = best
    for _ in range(restarts + 1):
        found = descend(problem, quadratic, current)
        if (objective := value(quadratic, width, found)) < least:
            best, least = found, objective
        if deadline is not None and time.monotonic() > deadline:
            break
        current = _disturb(problem, best, rng)
    return best


def _disturb(
    problem: Problem, chosen: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Change some layers at random, each as far as the limits allow."""
    chosen = chosen.copy()
    layers = len(chosen)
    for layer in rng.permutation(layers)[: max(2, layers // 5)]:
        before = chosen[layer]
        chosen[layer] = rng.choice(np.flatnonzero(problem.allowed[layer]))
        if not problem.is_feasible(chosen):
            chosen[layer] = before
    return chosen

"""Local search by pairs: the two changes of choice that together save most within the limits.

Where an assignment breaks a limit, the two changes that mend it at the least cost (2-exchange; Lin,
Bell System Technical Journal 1965). Only the changes that cost least at the prices are tried.
"""

import numpy as np
from numpy.typing import NDArray

from mpsearch.knapsack.problem import Problem

CHANGES = 1_000  # of all changes of one layer; their pairs are looked at in one array
STEPS = 40


def exchange(
    problem: Problem, chosen: NDArray[np.int64], prices: NDArray[np.float64]
) -> NDArray[np.int64] | None:
    """A feasible assignment from which no such pair saves any more, or None where none is found.

    chosen: [L], feasible or not; prices [R] say which changes are worth trying.
    """
    layers, choices = problem.allowed.shape
    rows = np.arange(layers)
    chosen = chosen.copy()
    priced = problem.costs + np.tensordot(prices, problem.weights.astype(np.float64), axes=1)
    count = min(CHANGES, layers * choices - 1)
    for _ in range(STEPS):
        left = problem.limits - problem.weights[:, rows, chosen].sum(axis=1)
        regret = np.where(problem.allowed, priced - priced[rows, chosen][:, None], np.inf)
        regret[rows, chosen] = np.inf
        tried = np.argpartition(regret.ravel(), count)[:count]
        tried = tried[np.isfinite(regret.ravel()[tried])]
        layer, choice = np.divmod(np.append(tried, chosen[0]), choices)  # the last: no change
        cost = problem.costs[layer, choice] - problem.costs[layer, chosen[layer]]
        change = problem.weights[:, layer, choice] - problem.weights[:, layer, chosen[layer]]
        layer[-1] = -1
        fits = layer[:, None] != layer
        for row, room in zip(change, left, strict=True):
            fits &= row[:, None] + row <= room
        total = np.where(fits, cost[:, None] + cost, np.iinfo(np.int64).max)
        pair = divmod(int(total.argmin()), len(layer))
        feasible = bool((left >= 0).all())
        if not fits[pair] or (feasible and total[pair] >= 0):
            return chosen if feasible else None
        for one in pair:
            if layer[one] >= 0:
                chosen[layer[one]] = choice[one]
    return chosen if problem.is_feasible(chosen) else None

"""Rank correlations: whether what was predicted orders networks as what was measured does."""

from collections.abc import Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's correlation of the mid-ranks (Spearman, 1904): [1, 2, 3], [1, 3, 2] -> 0.5.

    None where one of them is constant.
    """
    x, y = mid_ranks(first), mid_ranks(second)
    x, y = x - x.mean(), y - y.mean()
    scale = sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale else None


def kendall(first: Sequence[float], second: Sequence[float]) -> float | None:
    """τ-b (Kendall, Biometrika 1945): (concordant - discordant) pairs over the root of the pairs
    that are not tied in one times those not tied in the other. None where one is constant."""
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    agreeing, apart_x, apart_y = 0.0, 0, 0
    for place in range(len(x)):  # row by row: all pairs of 5,000 points at once are 200 MB
        by_x, by_y = np.sign(x[place + 1 :] - x[place]), np.sign(y[place + 1 :] - y[place])
        agreeing += float(by_x @ by_y)
        apart_x += int(np.count_nonzero(by_x))
        apart_y += int(np.count_nonzero(by_y))
    scale = sqrt(apart_x) * sqrt(apart_y)
    return agreeing / scale if scale else None


def mid_ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Ranks from 1, ties share their mean: [3, 1, 3] -> [2.5, 1, 2.5]."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle = last - (counts - 1) / 2
    ranks: NDArray[np.float64] = middle[inverse]
    return ranks

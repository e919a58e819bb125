"""Rank correlations with bootstrap intervals over the assignments.

Spearman's ρ is Pearson's correlation of the ranks, ties at their mean rank. Kendall's τ_b is
Σ_jk sgn(x_j − x_k) sgn(y_j − y_k) over the geometric mean of the numbers of pairs that are not tied
in x and in y (Kendall, Biometrika 1945). Intervals are percentiles over resamples of the
assignments (Efron, Ann. Statist. 1979). All metrics see the same resamples, so the difference of
two of them has an interval of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Statistic = Callable[[ArrayLike, ArrayLike], float]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @staticmethod
    def of(value: float, resampled: Floats) -> "Estimate":
        """The 2.5 and 97.5 percentiles of the resampled values around `value`."""
        low, high = np.quantile(resampled, (0.025, 0.975))
        return Estimate(value, float(low), float(high))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's ρ; 0 where one side is constant and orders nothing."""
    return _number(stats.spearmanr(x, y).statistic) if _vary(x, y) else 0.0


def kendall(x: ArrayLike, y: ArrayLike) -> float:
    """Kendall's τ_b; 0 where one side is constant and orders nothing."""
    return _number(stats.kendalltau(x, y).statistic) if _vary(x, y) else 0.0


def resamples(count: int, times: int, seed: int) -> Integers:
    """`times` draws with replacement of `count` positions: [times, count]."""
    return np.random.default_rng(seed).integers(0, count, (times, count))


def resampled_spearman(x: ArrayLike, y: ArrayLike, rows: Integers) -> Floats:
    """ρ of every resample, [times]."""
    ranks = [stats.rankdata(np.asarray(side)[rows], axis=1) for side in (x, y)]
    a, b = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return _ratio((a * b).sum(axis=1), scale)


def resampled_kendall(x: ArrayLike, y: ArrayLike, rows: Integers) -> Floats:
    """τ_b of every resample, [times].

    With S_jk = sgn(x_j − x_k) sgn(y_j − y_k) and c how often each item was drawn, the numerator is
    cᵀSc: the pairs are compared once for all resamples.
    """
    signs = [np.sign(np.subtract.outer(side, side)) for side in map(_floats, (x, y))]
    counts = np.stack([np.bincount(row, minlength=len(signs[0])) for row in rows]).astype(float)

    def quadratic(matrix: Floats) -> Floats:
        return np.asarray(((counts @ matrix) * counts).sum(axis=1))

    untied = quadratic(np.abs(signs[0])) * quadratic(np.abs(signs[1]))
    return _ratio(quadratic(signs[0] * signs[1]), np.sqrt(untied))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    defined = denominator > 0
    return np.where(defined, numerator / np.where(defined, denominator, 1), 0.0)


def _floats(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _vary(x: ArrayLike, y: ArrayLike) -> bool:
    return bool(np.ptp(_floats(x)) > 0 and np.ptp(_floats(y)) > 0)


def _number(value: object) -> float:
    return float(np.asarray(value))

"""Metrics of a measured network: formulas on weighted samples, so that a bootstrap is one line.

A `Statistic` holds what a metric needs of one network's outputs. `at(weights)` is its value where
sample n counts weights[n] times: all ones for the value itself, counts of a draw with replacement
for the bootstrap. A metric that is a mean over samples also has the samples' `values`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Statistic:
    """A metric of one network; `values` [n] where it is `transform` of their mean."""

    n: int
    at: Callable[[Array], float]
    values: Array | None = None
    transform: Callable[[float], float] = float
    work: int = 0  # elements that `at` goes through, where that is more than n

    @property
    def value(self) -> float:
        """With every sample once."""
        return self.at(np.ones(self.n))


def mean_of(values: Array, transform: Callable[[float], float] = float) -> Statistic:
    """`transform` of the mean of values [n]."""
    return Statistic(
        len(values), lambda w: transform(float(w @ values / w.sum())), values, transform
    )


def hits(predicted: NDArray[Any], labels: NDArray[Any]) -> Array:
    """The share of right answers of each sample: [n, …] -> [n]."""
    same: Array = (predicted == labels).reshape(len(labels), -1).mean(axis=1)
    return same


def top_hits(scores: Array, labels: NDArray[np.int64], k: int) -> Array:
    """1 where fewer than k classes have a higher score than the label's: [n, C], [n] -> [n].

    Of classes with equal scores the label counts as the last one, so that ties win nothing.
    """
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    within: Array = ((scores >= own).sum(axis=1) <= k).astype(np.float64)
    return within


def balanced_accuracy(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> Statistic:
    """The mean over classes of the share of their samples that is right; [n, …] each.

    A class without samples does not count.
    """
    true, guess, unit = _items(labels), _items(predicted), _unit(labels)
    classes = int(max(true.max(), guess.max())) + 1

    def at(weights: Array) -> float:
        w = weights[unit]
        total = np.bincount(true, w, classes)
        right = np.bincount(true, w * (true == guess), classes)
        return float(np.mean(right[total > 0] / total[total > 0]))

    return Statistic(len(labels), at)


def f1(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> Statistic:
    """2 tp/(2 tp + fp + fn): of class 1 where there are two, otherwise the mean over classes.

    Classes that neither occur nor are predicted do not count. [n, …] each.
    """
    true, guess, unit = _items(labels), _items(predicted), _unit(labels)

    def at(weights: Array) -> float:
        w = weights[unit]
        right = np.bincount(true, w * (true == guess), classes)
        both = np.bincount(true, w, classes) + np.bincount(guess, w, classes)
        if classes == 2:
            return float(2 * right[1] / both[1]) if both[1] > 0 else float("nan")
        return float(np.mean(2 * right[both > 0] / both[both > 0]))

    return Statistic(len(labels), at)


def auc(scores: Array, positive: NDArray[np.bool_]) -> Statistic:
    """The chance that a positive sample scores higher than a negative one; a tie counts one half.

    Exact, from the order of all scores (Mann & Whitney, 1947). [n] each. NaN with one kind alone.
    """
    order = np.argsort(scores, kind="stable")
    _, group = np.unique(scores[order], return_inverse=True)  # samples of one score together
    groups = int(group.max()) + 1

    def at(weights: Array) -> float:
        w = weights[order]
        yes = np.bincount(group, w * positive[order], groups)
        no = np.bincount(group, w * ~positive[order], groups)
        below = np.cumsum(no) - no
        pairs = yes.sum() * no.sum()
        return float(yes @ (below + no / 2) / pairs) if pairs > 0 else float("nan")

    return Statistic(len(scores), at)


def mean_of_statistics(statistics: list[Statistic]) -> Statistic:
    """Their mean, of those that are numbers: one-against-rest AUC, macro F1 of several labels."""

    def at(weights: Array) -> float:
        found = np.array([one.at(weights) for one in statistics])
        known = found[~np.isnan(found)]
        return float(known.mean()) if len(known) else float("nan")

    return Statistic(statistics[0].n, at, work=sum(max(one.work, one.n) for one in statistics))


def r2(outputs: Array, targets: Array) -> Statistic:
    """1 − Σ (y − z)²/Σ (y − ȳ)² of every output element, their mean; [n, …] each.

    An element whose targets are all equal does not count.
    """
    y, z = targets.reshape(len(targets), -1), outputs.reshape(len(targets), -1)
    squares = (y - z) ** 2

    def at(weights: Array) -> float:
        mean = weights @ y / weights.sum()
        spread = weights @ (y - mean) ** 2
        known = spread > 0
        if not known.any():
            return float("nan")
        return float(np.mean(1 - (weights @ squares)[known] / spread[known]))

    return Statistic(len(y), at)


def own(function: Callable[[Any, Any], float], outputs: Any, targets: Any, n: int) -> Statistic:
    """The user's function of the whole set; samples that count twice stand in it twice.

    outputs, targets: tensors, or dictionaries of them.
    """

    def pick(values: Any, rows: NDArray[np.int64]) -> Any:
        if isinstance(values, dict):
            return {key: value[rows] for key, value in values.items()}
        return values[rows]

    def at(weights: Array) -> float:
        rows = np.repeat(np.arange(n), weights.astype(np.int64))
        return float(function(pick(outputs, rows), pick(targets, rows)))

    return Statistic(n, at)


def _items(values: NDArray[np.int64]) -> NDArray[np.int64]:
    return values.reshape(-1)


def _unit(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which sample each answer belongs to: answers of one sample are drawn together."""
    each = labels.size // len(labels)
    return np.repeat(np.arange(len(labels)), each)

"""Metrics of a measured network: formulas on weighted samples, so that a bootstrap is one line.

A `Statistic` holds what a metric needs of one network's outputs. `at(weights)` is its value where
sample n counts weights[n] times: all ones for the value itself, counts of a draw with replacement
for the bootstrap. A metric that is a mean over samples also has the samples' `values`.

How sure a metric is: 95 % intervals of a value, and of a difference on the same samples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.evaluation.evaluation import Metric
from mpsearch.statistics import Z95, drop_interval, wilson_interval

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


DRAWS = 1000  # of the bootstrap; for a function of the user's, which may be slow, fewer
OWN_DRAWS = 200
FEWEST_DRAWS, MOST_WORK = 100, 2 * 10**9  # elements; AUC of 1,000 classes would take hours
SEED = 0


@dataclass(frozen=True)
class _Estimate:
    value: float
    interval: tuple[float, float]
    method: str


def measured(statistic: Statistic, reference: Statistic | None, draws: int = DRAWS) -> Metric:
    """The value with its interval, and the difference from the reference's on the same samples.

    A share of samples has Wilson's interval and, for the difference, Tango's; another mean that of
    the normal distribution; everything else percentiles of a seeded bootstrap over samples, paired
    for the difference.
    """
    affordable = MOST_WORK // max(statistic.work, statistic.n)
    draws = min(draws, max(FEWEST_DRAWS, affordable))
    found = _value(statistic, draws)
    change = None if reference is None else _difference(statistic, reference, draws)
    return Metric(
        found.value, found.interval, found.method,
        None if change is None else change.value, None if change is None else change.interval,
    )  # fmt: skip


def _value(one: Statistic, draws: int) -> _Estimate:
    value, values = one.value, one.values
    if values is None:
        ends = _percentiles(_drawn(one, draws), value) if one.n > 1 else (-math.inf, math.inf)
        return _Estimate(value, ends, f"bootstrap of {draws}")
    if bool(np.isin(values, (0.0, 1.0)).all()) and one.transform is float:
        return _Estimate(value, wilson_interval(round(values.sum()), one.n), "wilson")
    low, high = _normal(values)
    ends = (one.transform(max(low, 0.0) if values.min() >= 0 else low), one.transform(high))
    return _Estimate(value, ends, "normal")


def _difference(one: Statistic, other: Statistic, draws: int) -> _Estimate:
    value = one.value - other.value
    if one.values is None or other.values is None or one.transform is not float:
        drawn = _drawn(one, draws) - _drawn(other, draws)
        return _Estimate(value, _percentiles(drawn, value), f"bootstrap of {draws}")
    both = np.concatenate([one.values, other.values])
    if bool(np.isin(both, (0.0, 1.0)).all()):
        lost = int(((other.values == 1) & (one.values == 0)).sum())
        won = int(((other.values == 0) & (one.values == 1)).sum())
        low, high = drop_interval(lost, won, one.n)
        return _Estimate(value, (-high, -low), "tango")
    return _Estimate(value, _normal(one.values - other.values), "normal")


def _normal(values: np.ndarray) -> tuple[float, float]:
    mean = float(values.mean())
    half = Z95 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return mean - half, mean + half


def _drawn(one: Statistic, draws: int) -> np.ndarray:
    """The statistic on draws with replacement; the same samples for every network of one size."""
    random = np.random.default_rng(SEED)
    counts = (np.bincount(random.integers(0, one.n, one.n), minlength=one.n) for _ in range(draws))
    return np.array([one.at(count.astype(np.float64)) for count in counts])


def _percentiles(drawn: np.ndarray, value: float) -> tuple[float, float]:
    """2.5 % and 97.5 %; draws without a value (a class that was not drawn) do not count.

    Where the draws lie all on one side of the value, as those of a biased statistic can, the
    interval is widened to it: what was measured is never outside.
    """
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return -math.inf, math.inf
    ends = (0.025, 0.975)
    if np.isfinite(known).all():
        low, high = np.quantile(known, ends)
    else:  # nothing lies between a number and infinity
        low, high = np.quantile(known, ends, method="nearest")
    return min(float(low), value), max(float(high), value)

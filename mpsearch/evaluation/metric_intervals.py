"""How sure a metric is: 95 % intervals of a value, and of a difference on the same samples."""

import math
from dataclasses import dataclass

import numpy as np

from mpsearch.evaluation.evaluation import Metric
from mpsearch.evaluation.metrics import Statistic
from mpsearch.statistics import Z95, drop_interval, wilson_interval

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
        return _Estimate(value, _percentiles(_drawn(one, draws), value), f"bootstrap of {draws}")
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
    low, high = np.quantile(known, (0.025, 0.975))
    return min(float(low), value), max(float(high), value)

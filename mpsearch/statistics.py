"""How sure measured figures are: quantiles, score intervals, McNemar's test, samples that decide,
rank correlations."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError

# 97.5 % quantile of the standard normal distribution to the last digit, where `normal_quantile` is
# one digit less: stored intervals of accuracies and losses were computed with it.
Z95 = 1.959963984540054
ROUNDING = 1e-9  # of intervals whose end is the value itself


def check_confidence(confidence: float) -> float:
    """The confidence itself. Raises InputError outside 0.5 to 0.9999."""
    if not 0.5 <= confidence <= 0.9999:
        raise InputError(f"got the confidence {confidence:g}; expected 0.5 to 0.9999, as 0.95")
    return confidence


def normal_quantile(confidence: float, comparisons: int = 1) -> float:
    """Two-sided standard normal quantile: 0.95 -> 1.96.

    comparisons: that all of so many intervals hold at once (Bonferroni), each is taken at
    1 - (1 - confidence) / comparisons.
    """
    return NormalDist().inv_cdf(1 - (1 - confidence) / 2 / comparisons)


def student_975(freedom: float) -> float:
    """97.5 % quantile of Student's t, also for broken degrees of freedom from 1 on: 9 -> 2.262.

    With t = √f·tan φ the density of φ is proportional to cos^(f-1) φ, which is integrated here.
    """
    angle = np.linspace(0.0, math.pi / 2, 10_001)
    height = np.abs(np.cos(angle)) ** (freedom - 1)
    area = np.concatenate([[0.0], np.cumsum((height[1:] + height[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(0.95, area / area[-1], angle)))


def wilson_interval(
    successes: int, n: int, comparisons: int = 1, confidence: float = 0.95
) -> tuple[float, float]:
    """Score interval of a proportion (Wilson, JASA 1927): (915, 1000) -> (0.896, 0.931) at 95 %.

    comparisons: as of `normal_quantile`.
    """
    plain = comparisons == 1 and confidence == 0.95
    z = Z95 if plain else normal_quantile(confidence, comparisons)
    p = successes / n
    centre = p + z**2 / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n * n))
    scale = 1 + z**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def score_statistic(lost: int, won: int, n: int, drop: float) -> float:
    """Tango's score statistic for "the drop is `drop`"; positive where more was lost than that.

    Of n samples that both networks saw, `lost` are right before and wrong after, `won` the other
    way round. With d = `drop` the statistic is (lost - won - n d) / sqrt(n (2 q + d (1 - d))),
    where q is the probability of a won sample that is likeliest among those with the drop d, the
    larger root of 2 n q² + ((2 n - lost + won) d - lost - won) q - won d (1 - d) = 0 (T. Tango,
    Statistics in Medicine 17, 1998, 891-908). For d = 0 it is McNemar's (lost - won) /
    sqrt(lost + won). It falls as d rises, and is standard normal where d is the true drop.
    """
    if drop < 0:  # the other way round; keeps the quadratic's last term from changing its sign
        return -score_statistic(won, lost, n, -drop)
    middle = (2 * n - lost + won) * drop - lost - won
    last = won * drop * (1 - drop)
    root = math.sqrt(middle**2 + 8 * n * last)
    # the form without cancellation
    q = (root - middle) / (4 * n) if middle <= 0 else 2 * last / (root + middle)
    variance = n * (2 * q + drop * (1 - drop))
    excess = lost - won - n * drop
    if variance <= 0:
        return math.copysign(math.inf, excess) if abs(excess) > 1e-12 * n else 0.0
    return excess / math.sqrt(variance)


def drop_interval(lost: int, won: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """All drops that Tango's test does not reject, as shares: (6, 16, 161) -> (-0.1240, -0.0054).

    Unlike Wald's it does not shrink to a point where no sample changed: (0, 0, 100) -> ±0.037.
    """
    z = normal_quantile(confidence)

    def crossing(level: float) -> float:
        low, high = -1.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            if score_statistic(lost, won, n, middle) > level:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    return (-1.0 if won == n else crossing(z), 1.0 if lost == n else crossing(-z))


def paired_drop(
    reference: Iterable[bool], other: Iterable[bool]
) -> tuple[float, tuple[float, float]]:
    """Accuracy lost from `reference` to `other` on the same samples, with its 95 % interval.

    With b samples lost and c won of n, the drop is (b - c)/n; Tango's score interval
    (`drop_interval`), which is not a point where all pairs are alike.
    """
    pairs = list(zip(reference, other, strict=True))
    n = len(pairs)
    lost = sum(before and not after for before, after in pairs)
    won = sum(after and not before for before, after in pairs)
    return (lost - won) / n, drop_interval(lost, won, n)


def mcnemar_p(lost: int, won: int) -> float:
    """Exact one-sided p-value of "no drop": how often at least `lost` of the changed samples are
    lost where each is lost or won with probability 1/2 (McNemar, Psychometrika 12, 1947).

    (16, 6) -> 0.0262; 1.0 where nothing changed.
    """
    changed = lost + won
    terms = (
        math.exp(
            math.lgamma(changed + 1)
            - math.lgamma(k + 1)
            - math.lgamma(changed - k + 1)
            - changed * math.log(2)
        )
        for k in range(lost, changed + 1)
    )
    return min(1.0, math.fsum(terms))


def samples_for_accuracy(
    accuracy: Fraction, limit: Fraction, confidence: float = 0.95
) -> int | None:
    """How many samples put the limit outside Wilson's interval at this accuracy; None: none do.

    From |accuracy - limit| = z sqrt(limit (1 - limit) / n), which ends that interval.
    """
    if accuracy == limit:
        return None
    share = float(limit * (1 - limit) / (accuracy - limit) ** 2)
    return max(1, math.ceil(normal_quantile(confidence) ** 2 * share))


def samples_for_drop(
    lost: int, won: int, n: int, limit: float, confidence: float = 0.95
) -> int | None:
    """The same for Tango's interval: his statistic grows with the root of n at equal rates."""
    statistic = score_statistic(lost, won, n, limit)
    if abs(statistic) < 1e-9:
        return None
    return max(1, math.ceil(n * (normal_quantile(confidence) / statistic) ** 2))


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's correlation of the mid-ranks (Spearman, 1904): [1, 2, 3], [1, 3, 2] -> 0.5.

    None where one of them is constant.
    """
    x, y = mid_ranks(first), mid_ranks(second)
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
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
    scale = math.sqrt(apart_x) * math.sqrt(apart_y)
    return agreeing / scale if scale else None


def mid_ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Ranks from 1, ties share their mean: [3, 1, 3] -> [2.5, 1, 2.5]."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle = last - (counts - 1) / 2
    ranks: NDArray[np.float64] = middle[inverse]
    return ranks

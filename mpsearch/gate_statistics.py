"""How sure a measured accuracy or drop is: score intervals, McNemar's test, samples that decide."""

import math
from fractions import Fraction
from statistics import NormalDist

from mpsearch.errors import InputError

Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
ROUNDING = 1e-9  # of intervals whose end is the value itself


def check_confidence(confidence: float) -> float:
    """The confidence itself. Raises InputError outside 0.5 to 0.9999."""
    if not 0.5 <= confidence <= 0.9999:
        raise InputError(f"got the confidence {confidence:g}; expected 0.5 to 0.9999, as 0.95")
    return confidence


def quantile(confidence: float) -> float:
    """Two-sided standard normal quantile: 0.95 -> 1.96."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson_interval(
    successes: int, n: int, comparisons: int = 1, confidence: float = 0.95
) -> tuple[float, float]:
    """Score interval of a proportion (Wilson, JASA 1927): (915, 1000) -> (0.896, 0.931) at 95 %.

    comparisons: that all of so many intervals hold at once (Bonferroni), each is taken at
    1 - (1 - confidence) / comparisons.
    """
    z = Z95
    if comparisons != 1 or confidence != 0.95:
        z = NormalDist().inv_cdf(1 - (1 - confidence) / 2 / comparisons)
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
    z = quantile(confidence)

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
    return max(1, math.ceil(quantile(confidence) ** 2 * share))


def samples_for_drop(
    lost: int, won: int, n: int, limit: float, confidence: float = 0.95
) -> int | None:
    """The same for Tango's interval: his statistic grows with the root of n at equal rates."""
    statistic = score_statistic(lost, won, n, limit)
    if abs(statistic) < 1e-9:
        return None
    return max(1, math.ceil(n * (quantile(confidence) / statistic) ** 2))

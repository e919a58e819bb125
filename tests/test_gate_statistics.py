"""The gate's statistics against published figures, scipy, general theory and enumeration."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, multinomial, norm

from mpsearch.errors import InputError
from mpsearch.statistics import (
    drop_interval,
    mcnemar_p,
    samples_for_accuracy,
    samples_for_drop,
    score_statistic,
    wilson_interval,
)
from mpsearch.tables.units import parse_confidence

TABLES = [(6, 16, 161), (1, 7, 21), (12, 2, 50), (40, 20, 160), (30, 10, 1000), (3, 0, 40)]


@pytest.mark.parametrize(
    ("lost", "won", "n", "interval"),
    [
        # Complete response before and after consolidation therapy (Cavo et al., 2012), and airway
        # hyper-responsiveness (Bentur et al., 2009), in Fagerland, Lydersen and Laake, Statistics
        # in Medicine 33 (2014), and in the tests of the R package contingencytables
        (6, 16, 161, (-0.1240, -0.0054)),
        (1, 7, 21, (-0.517, -0.026)),
    ],
)
def test_tangos_interval_of_published_tables(
    lost: int, won: int, n: int, interval: tuple[float, float]
) -> None:
    np.testing.assert_allclose(drop_interval(lost, won, n), interval, atol=6e-4)
    assert round(drop_interval(6, 16, 161)[0], 4) == -0.1240
    assert round(drop_interval(6, 16, 161)[1], 4) == -0.0054


def test_mcnemars_p_value_of_a_published_table() -> None:
    """The same 6 and 16: 0.052479 on both sides."""
    assert 2 * mcnemar_p(16, 6) == pytest.approx(0.052479, abs=5e-7)


def general_score(lost: int, won: int, n: int, drop: float) -> float:
    """The score test of any model: the derivative of the log-likelihood at the likeliest values
    under the hypothesis, over its standard deviation from the Fisher information."""
    same = n - lost - won

    def likelihood(q: float) -> float:
        cells = ((lost, drop + q), (won, q), (same, 1 - drop - 2 * q))
        return -sum(count * math.log(p) for count, p in cells if count)

    ends = (max(0.0, -drop) + 1e-13, (1 - drop) / 2 - 1e-13)
    q = minimize_scalar(likelihood, bounds=ends, method="bounded", options={"xatol": 1e-13}).x
    one, two, rest = drop + q, q, 1 - drop - 2 * q
    derivative = lost / one - same / rest
    information = n * np.array(
        [
            [1 / one + 1 / rest, 1 / one + 2 / rest],
            [1 / one + 2 / rest, 1 / one + 1 / two + 4 / rest],
        ]
    )
    return float(derivative * math.sqrt(np.linalg.inv(information)[0, 0]))


@pytest.mark.parametrize("table", TABLES[:5])
@pytest.mark.parametrize("drop", [-0.2, -0.03, 0.0, 0.01, 0.15, 0.4])
def test_the_statistic_is_the_score_test_of_the_multinomial(
    table: tuple[int, int, int], drop: float
) -> None:
    assert score_statistic(*table, drop) == pytest.approx(general_score(*table, drop), abs=2e-5)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_interval_ends_where_the_test_begins_to_reject(
    table: tuple[int, int, int], confidence: float
) -> None:
    low, high = drop_interval(*table, confidence)
    z = norm.ppf((1 + confidence) / 2)
    assert score_statistic(*table, low) == pytest.approx(z, abs=1e-6)
    assert score_statistic(*table, high) == pytest.approx(-z, abs=1e-6)
    lost, won, n = table
    other = drop_interval(won, lost, n, confidence)
    np.testing.assert_allclose(other, (-high, -low), atol=1e-12)


@pytest.mark.parametrize(
    ("lost", "won", "n"), [(0, 0, 1), (0, 0, 100), (5, 0, 5), (0, 5, 5), (1, 0, 1)]
)
def test_tables_without_one_kind_of_pair_have_an_interval_too(lost: int, won: int, n: int) -> None:
    low, high = drop_interval(lost, won, n)
    assert -1 <= low <= (lost - won) / n <= high <= 1
    assert high - low > 0.05
    if lost == won == 0:  # the statistic is -sqrt(n d / (1 - d)) there
        z = norm.ppf(0.975) ** 2
        assert high == pytest.approx(z / (n + z))
        assert low == -high


def test_mcnemar_is_the_exact_binomial_tail() -> None:
    for lost, won in [(0, 0), (0, 5), (5, 0), (7, 1), (30, 10), (12, 12)]:
        changed = lost + won
        exact = Fraction(sum(math.comb(changed, k) for k in range(lost, changed + 1)), 2**changed)
        assert mcnemar_p(lost, won) == pytest.approx(float(exact), rel=1e-12)
    for lost, won in [(2600, 2400), (51000, 50000)]:
        test = binomtest(lost, lost + won, alternative="greater")
        assert mcnemar_p(lost, won) == pytest.approx(test.pvalue, rel=1e-9)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilsons_interval_at_other_confidences(confidence: float) -> None:
    for hits, n in [(0, 10), (10, 10), (880, 1000), (59, 64)]:
        expected = binomtest(hits, n).proportion_ci(confidence, method="wilson")
        interval = wilson_interval(hits, n, confidence=confidence)
        np.testing.assert_allclose(interval, (expected.low, expected.high), atol=1e-12)


def test_the_samples_that_decide_an_accuracy() -> None:
    """At 88 % the interval loses the limit between the multiples of 25 around the number."""
    needed = samples_for_accuracy(Fraction(88, 100), Fraction(89, 100))
    assert needed == 3761
    assert wilson_interval(3300, 3750)[1] > 0.89  # 88 %
    assert wilson_interval(3322, 3775)[1] < 0.89
    below = samples_for_accuracy(Fraction(88, 100), Fraction(87, 100), 0.99)
    assert below is not None
    n = below - below % 25
    assert wilson_interval(n * 22 // 25, n, confidence=0.99)[0] < 0.87
    assert wilson_interval((n + 25) * 22 // 25, n + 25, confidence=0.99)[0] > 0.87
    assert samples_for_accuracy(Fraction(88, 100), Fraction(88, 100)) is None


def test_the_samples_that_decide_a_drop() -> None:
    """3 % lost and 1 % won, limit 2.5 points: between two multiples of 100."""
    assert samples_for_drop(30, 10, 1000, 0.025) == 6486
    assert drop_interval(192, 64, 6400)[1] > 0.025
    assert drop_interval(195, 65, 6500)[1] < 0.025
    assert samples_for_drop(30, 10, 1000, 0.02) is None  # the drop is the limit
    # nothing changed: z² (1 - d) / d, as the statistic is -sqrt(n d / (1 - d))
    assert samples_for_drop(0, 0, 50, 0.01) == math.ceil(norm.ppf(0.975) ** 2 * 99)
    assert drop_interval(0, 0, 380)[1] > 0.01 > drop_interval(0, 0, 381)[1]


Interval = Callable[[int, int, int], tuple[float, float]]


def wald(lost: int, won: int, n: int) -> tuple[float, float]:
    """Of a paired difference (Agresti, Categorical Data Analysis, 10.1)."""
    half = norm.ppf(0.975) * math.sqrt(lost + won - (lost - won) ** 2 / n) / n
    return (lost - won) / n - half, (lost - won) / n + half


def coverages(interval: Interval, n: int) -> list[float]:
    """Exact coverage at true shares (lost, won): every table with its multinomial probability."""
    tables = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    ends = np.array([interval(b, c, n) for b, c in tables])
    counts = np.array([(b, c, n - b - c) for b, c in tables])
    found = []
    for lost in (0.01, 0.02, 0.05, 0.1, 0.2, 0.3):
        for won in (0.005, 0.01, 0.05, 0.1):
            truth = lost - won
            covered = (ends[:, 0] <= truth) & (truth <= ends[:, 1])
            chances = multinomial.pmf(counts, n, [lost, won, 1 - lost - won])
            found.append(float(chances[covered].sum()))
    return found


def test_tangos_interval_covers_what_it_says_by_enumeration() -> None:
    """The figures of docs/gate.md, and the textbook's interval beside it."""
    tango, others = coverages(drop_interval, 50), coverages(wald, 50)
    assert min(tango) > 0.93
    assert 0.945 < float(np.mean(tango)) < 0.975
    assert min(others) < 0.89


def test_wrong_decisions_are_as_rare_as_the_confidence_says() -> None:
    """A drop of exactly the limit must seldom be called met or missed: 2.5 % each."""
    random = np.random.default_rng(7)
    n, lost, won = 500, 0.04, 0.02
    draws = random.multinomial(n, [lost, won, 1 - lost - won], size=4000)
    z = norm.ppf(0.975)
    statistics = np.array([score_statistic(int(b), int(c), n, lost - won) for b, c, _ in draws])
    met, missed = (statistics < -z).mean(), (statistics > z).mean()
    error = 4 * math.sqrt(0.025 * 0.975 / len(draws))
    assert met < 0.025 + error
    assert missed < 0.025 + error
    assert met + missed > 0.02  # and not by never deciding


@pytest.mark.parametrize(("text", "value"), [("0.95", 0.95), ("95%", 0.95), (".9", 0.9)])
def test_confidence_as_share_or_percentage(text: str, value: float) -> None:
    assert parse_confidence(text) == value


@pytest.mark.parametrize("text", ["", "1", "0.3", "100%", "nan", "-0.9", "95 percent"])
def test_what_is_no_confidence(text: str) -> None:
    with pytest.raises(InputError, match="confidence"):
        parse_confidence(text)

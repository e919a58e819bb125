"""Power samples as arrays, windows of time, and the mean power in a window with its error."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpsearch.device.power import PowerError, Sample
from mpsearch.statistics import student_975

BATCHES = 10
LARGEST_STEP = 100.0  # mW; a display of 0.1 W
BACK = 0.5  # seconds that a time may lie before the one above it: meters send packets


@dataclass(frozen=True)
class Window:
    """From `start` to `end`, in seconds since the epoch."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Readings:
    """Samples in order of time, each time once."""

    seconds: NDArray[np.float64]
    milliwatts: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.seconds)

    def inside(self, window: Window) -> "Readings":
        """The samples from `window.start` to `window.end`."""
        kept = (self.seconds >= window.start) & (self.seconds <= window.end)
        return Readings(self.seconds[kept], self.milliwatts[kept])


@dataclass(frozen=True)
class Level:
    """A mean power in mW, its standard error, and the degrees of freedom of that error."""

    mean: float
    stderr: float
    freedom: float


def readings_of(samples: Iterable[Sample]) -> Readings:
    """Sorted arrays; samples of the same time become their mean, as of a clock of whole seconds.

    Raises PowerError when a time lies more than half a second before the one in front of it.
    """
    pairs = np.array(list(samples), dtype=np.float64).reshape(-1, 2)
    back = np.max(-np.diff(pairs[:, 0]), initial=0.0)
    if back > BACK:
        raise PowerError(
            f"the time of the samples goes back by {back:.1f} s; measure while no clock is set"
        )
    seconds, place, count = np.unique(pairs[:, 0], return_inverse=True, return_counts=True)
    total = np.zeros(len(seconds))
    np.add.at(total, place.reshape(-1), pairs[:, 1])
    return Readings(seconds, total / np.maximum(count, 1))


def level_of(readings: Readings, step: float = 0.0) -> Level:
    """Trapezoid mean over the time of the samples, and its standard error, for two or more.

    mean = Σ w_k·P_k / Σ w_k with the weights of the trapezoid rule, w_k = (t_{k+1} - t_{k-1}) / 2.
    Neighbouring samples of a meter are alike, so s/√n would claim too much. The error is the larger
    of two that allow for that, batch means and a first-order autoregression. Where the values vary
    by less than half a `step` q of the meter, its rounding does not average out: q²/12 is added.
    """
    seconds, power = readings.seconds, readings.milliwatts
    steps = np.diff(seconds)
    weights = (np.append(steps, 0.0) + np.insert(steps, 0, 0.0)) / 2
    mean = float(weights @ power / weights.sum())
    batches = min(BATCHES, len(seconds))
    regression, effective = _by_regression(power)
    variance = max(_by_batches(weights, power, mean, batches), regression)
    if float(np.std(power)) < step / 2:
        variance += step**2 / 12
    return Level(mean, math.sqrt(variance), min(effective, batches) - 1)


def _by_batches(
    weights: NDArray[np.float64], power: NDArray[np.float64], mean: float, batches: int
) -> float:
    """b/(b-1)·Σ (W_b/W)²·(m_b - m)² over b successive parts of the samples (Schmeiser 1982)."""
    squares = 0.0
    for part in np.array_split(np.arange(len(power)), batches):
        weight = weights[part].sum()
        share = float(weight / weights.sum())
        squares += (share * (float(weights[part] @ power[part]) / weight - mean)) ** 2
    return float(squares * batches / (batches - 1))


def _by_regression(power: NDArray[np.float64]) -> tuple[float, float]:
    """s²/(n' - 1), and n' = n·(1 - r)/(1 + r), the number of independent samples that n are worth.

    r is the correlation of neighbours, plus (1 + 4r)/n against its bias (Marriott & Pope 1954).
    """
    n = len(power)
    deviations = power - power.mean()
    squares = float(deviations @ deviations)
    if squares == 0:
        return 0.0, float(n)
    r = float(deviations[1:] @ deviations[:-1]) / squares
    r = min(0.99, max(0.0, r + (1 + 4 * r) / n))
    effective = max(3.0, n * (1 - r) / (1 + r))
    return squares / n / (effective - 1), effective


def step_of(readings: Readings) -> float:
    """The step of a coarse meter: what all its values are multiples of, at most 100 mW."""
    microwatts = np.round(1e3 * readings.milliwatts).astype(np.int64)
    return min(float(np.gcd.reduce(microwatts)) / 1e3, LARGEST_STEP)


def difference(above: Level, below: Level) -> Level:
    """`above` less `below`; degrees of freedom as Welch and Satterthwaite add them."""
    one, two = above.stderr**2, below.stderr**2
    parts = one**2 / above.freedom + two**2 / below.freedom
    freedom = (one + two) ** 2 / parts if parts > 0 else above.freedom + below.freedom
    return Level(above.mean - below.mean, math.sqrt(one + two), freedom)


def half_width(level: Level) -> float:
    """Half of the 95 % interval: Student's quantile times the standard error."""
    return student_975(level.freedom) * level.stderr

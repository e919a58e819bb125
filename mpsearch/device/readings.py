"""Power samples as arrays, windows of time, and the mean power in a window with its error.

What can be wrong with the samples of a meter. Each is said; none becomes a number.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

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


GAP = 0.3  # seconds that a busy machine may keep a line waiting
FEWEST = 5  # samples in a window
JUMP = 5.0  # a sample of this many times what is usual, or less than a fifth of it, is no power
SURE = 1e-6  # chance of a long run of equal values below which the meter counts as stuck
COARSE = 5  # different values in a window
PLAUSIBLE = (20.0, 100_000.0)  # mW at idle, of what runs Linux on a desk


def check_cover(readings: Readings, idle: Window, run: Window) -> None:
    """Raise PowerError unless the samples reach from the idle time to the end of the run."""
    if not len(readings):
        raise PowerError("the meter gave no sample; expected some per second")
    first, last = float(readings.seconds[0]), float(readings.seconds[-1])
    if last < idle.start or first > run.end:
        raise PowerError(
            f"the samples ({_clock(first)} to {_clock(last)}) and the measurement "
            f"({_clock(idle.start)} to {_clock(run.end)}) do not overlap; "
            "give the difference of the clocks as offset=SECONDS"
        )
    for name, window in (("idle time", idle), ("run", run)):
        part = readings.inside(window)
        if len(part) < FEWEST:
            raise PowerError(
                f"{len(part)} samples in the {window.seconds:.1f} s of the {name}; expected "
                f"{FEWEST} or more; measure longer, or sample faster"
            )
        times = np.concatenate([[window.start], part.seconds, [window.end]])
        gap = float(np.max(np.diff(times)))
        if gap > max(3 * interval_of(part, window), 0.05 * window.seconds, GAP):
            raise PowerError(
                f"no sample for {gap:.1f} s of the {name}: the meter stopped, its program keeps "
                "lines back (flush them), or a clock is wrong; measure again"
            )


def check_values(readings: Readings, idle: Window, run: Window) -> None:
    """Raise PowerError for powers that are negative, jump, stay stuck, or have another unit."""
    medians = [float(np.median(readings.inside(one).milliwatts)) for one in (idle, run)]
    for name, window in (("idle time", idle), ("run", run)):
        part = readings.inside(window)
        power = part.milliwatts
        if np.all(power < 0):
            raise PowerError(
                f"every power in the {name} is negative; turn the meter round "
                "(the supply at its input, the device at its output)"
            )
        # Both levels, because a sample at the border may still be the other one.
        wrong = (power <= 0) | (power > JUMP * max(medians)) | (power < min(medians) / JUMP)
        if np.any(wrong):
            at = int(np.argmax(wrong))
            raise PowerError(
                f"{int(wrong.sum())} of {len(power)} samples jump, the first to {power[at]:g} mW "
                f"{part.seconds[at] - window.start:.1f} s into the {name} "
                f"(median {np.median(power):g} mW); "
                "check the meter's cable and measure again"
            )
    if not PLAUSIBLE[0] <= medians[0] <= PLAUSIBLE[1]:
        raise PowerError(
            f"{medians[0]:g} mW at idle; expected {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g}: "
            "is it another unit? Samples are in mW; a csv may say unit=W"
        )
    values = max(len(np.unique(readings.inside(one).milliwatts)) for one in (idle, run))
    _check_not_stuck(readings.inside(Window(idle.start, run.end)), values)


def _check_not_stuck(readings: Readings, values: int) -> None:
    """Equal powers in a row that the rest of the samples makes incredible.

    A coarse meter repeats itself, and so does one that is asked more often than it measures. With p
    the part of equal neighbours elsewhere, n samples hold k + 1 in a row with a chance below n·p^k.
    values: how many different ones a window holds; few are a meter whose steps hide the noise.
    """
    power = readings.milliwatts
    starts = np.concatenate([[0], np.flatnonzero(np.diff(power)) + 1])
    lengths = np.diff(np.append(starts, len(power)))
    if len(lengths) > 1 and values <= COARSE:
        return
    longest = int(np.argmax(lengths))
    k = int(lengths[longest]) - 1
    others = np.delete(lengths, longest)
    p = (int(np.sum(others - 1)) + 1) / (len(power) - 1 - k + 2)
    asked_often = k >= 20 and k > 5 * int(np.max(others, initial=1))
    if len(lengths) > 1 and (k < FEWEST or len(power) * p**k > SURE) and not asked_often:
        return
    seconds = readings.seconds[starts[longest] + k] - readings.seconds[starts[longest]]
    raise PowerError(
        f"the meter gave {power[starts[longest]]:g} mW {k + 1} times in a row, {seconds:.1f} s "
        "long: it stopped measuring; look at it and measure again"
    )


def check_enough(readings: Readings, name: str) -> None:
    """Raise PowerError for fewer samples than an error can be told from."""
    if len(readings) < FEWEST:
        raise PowerError(
            f"{len(readings)} usable samples in the {name}; expected {FEWEST} or more; "
            "measure longer, or sample faster"
        )


def check_visible(above: Level, half: float) -> None:
    """Raise PowerError where the run takes no more than idle, as far as one can tell."""
    if above.mean <= half:
        raise PowerError(
            f"the run takes {above.mean:.1f} ± {half:.1f} mW (95 %) more than idle, which may be "
            "nothing: is the meter at this device, are the clocks right, was it idle before?"
        )


def interval_of(readings: Readings, window: Window) -> float:
    """Mean seconds from sample to sample."""
    return window.seconds / max(1, len(readings))


def _clock(seconds: float) -> str:
    """A time of the day for the reader, or seconds where it cannot be one."""
    if seconds < 1e8:
        return f"{seconds:.1f} s"
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")

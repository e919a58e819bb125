"""Which part of a recording is surely idle and which is surely the loop."""

import numpy as np
from numpy.typing import NDArray

from mpsearch.device.power import PowerError
from mpsearch.device.readings import Readings, Window

NEAR = 0.05  # a power is settled when it is this near its level, as a part of the step
SIGMAS = 3.0  # or within so many standard deviations of the noise
SHIFT = 0.35  # part of a window that may be left out at one end


def settled(
    readings: Readings, idle: Window, run: Window, same_clock: bool = True
) -> tuple[Window, Window, list[str]]:
    """The parts of both windows that the other level does not reach into, and what to warn of.

    One interval is left out at every end, because a sample may stand for the time before it. From
    the ends of both windows inwards, means over an interval (or longer, where the noise is large)
    are compared with the window's median: where the power is not there yet, or not any more, a
    clock is off or the meter is slow, and that time is left out as well. Raises PowerError where
    that takes more than a third of a window; and where the load is too small to tell, unless the
    samples come with the `same_clock` as the windows.
    """
    interval = max(one.seconds / max(1, len(readings.inside(one))) for one in (idle, run))
    low, high = (float(np.median(readings.inside(one).milliwatts)) for one in (idle, run))
    step, width = high - low, interval
    while (noise := _noise(readings, idle, run, width)) * 2 * SIGMAS > step:
        width *= 2
        if width > run.seconds / 10:
            text = (
                f"the load's {step:.0f} mW are not clear enough above the noise to see "
                "whether the clocks agree"
            )
            if not same_clock:
                raise PowerError(f"{text}; measure longer, with --power-seconds")
            return _within(idle, interval, interval), _within(run, interval, interval), [text]
    margin = max(NEAR * step, SIGMAS * noise)
    lost: dict[tuple[str, str], float] = {}
    shift = 0.0
    for name, window, end, border, sign in (
        ("run", run, "start", margin - high, 1),  # still idle: the power comes late
        ("run", run, "end", margin - high, -1),  # idle again: it comes early
        ("idle", idle, "end", margin + low, -1),  # busy already: early
        ("idle", idle, "start", margin + low, 1),  # still busy: late
    ):
        side = 1 if name == "idle" else -1
        seconds = _unsettled(readings.inside(window), window, end, side, border, width)
        if seconds > SHIFT * window.seconds:
            raise PowerError(
                f"the power follows the run {sign * seconds:+.1f} s later: a clock is off, the "
                "meter is slow, or something else was running; "
                f"with csv: change offset by {-sign * seconds:+.1f}"
            )
        lost[name, end] = seconds
        shift = sign * seconds if seconds > abs(shift) else shift
    parts = [
        _within(window, lost[name, "start"] + interval, lost[name, "end"] + interval)
        for name, window in (("idle", idle), ("run", run))
    ]
    if abs(shift) <= interval:
        return parts[0], parts[1], []
    late = f"the power follows the run {shift:+.1f} s later; that time was left out of the means"
    return parts[0], parts[1], [late]


def _within(window: Window, first: float, last: float) -> Window:
    return Window(window.start + first, window.end - last)


def _noise(readings: Readings, idle: Window, run: Window, width: float) -> float:
    """Standard deviation of means over `width` seconds, the larger of both windows.

    From the median deviation, which a part of the window at another level hardly moves.
    """
    noise = 0.0
    for window in (idle, run):
        _, power = _bins(readings, window.start, window.end, width)
        noise = max(noise, 1.4826 * float(np.median(np.abs(power - np.median(power)))))
    return noise


def _bins(
    readings: Readings, start: float, end: float, width: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean power of every stretch of `width` seconds that has samples, and where it begins, both
    counted from `start`, which may be the later end."""
    part = readings.inside(Window(min(start, end), max(start, end)))
    place = np.floor(np.abs(part.seconds - start) / width + 1e-9).astype(np.int64)
    used, index, count = np.unique(place, return_inverse=True, return_counts=True)
    total = np.zeros(len(used))
    np.add.at(total, index.reshape(-1), part.milliwatts)
    return (used * width).astype(np.float64), total / np.maximum(count, 1)


def _unsettled(
    readings: Readings, window: Window, end: str, side: int, border: float, width: float
) -> float:
    """Seconds from one end of the window until side·power is at most the border."""
    edges = (window.start, window.end) if end == "start" else (window.end, window.start)
    begins, power = _bins(readings, *edges, width)
    right = np.flatnonzero(side * power <= border)
    if not len(right):
        return window.seconds
    return float(begins[right[0]]) if right[0] > 0 else 0.0

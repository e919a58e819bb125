"""Energy of an inference: mean power of a loop less idle, times its time, by its inferences.

An energy in words: joules above idle first, the paper's peak less idle beside them.

Which part of a recording is surely idle and which is surely the loop.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpsearch.device.power import Manual, Meter, PowerError, Sample
from mpsearch.device.profile import Energy
from mpsearch.device.readings import (
    FEWEST,
    Readings,
    Window,
    check_cover,
    check_enough,
    check_values,
    check_visible,
    difference,
    half_width,
    interval_of,
    level_of,
    readings_of,
    step_of,
)


def energy_lines(energy: Energy) -> list[str]:
    """Lines for the terminal; every warning is one."""
    lines = []
    if energy.joules_per_inference is not None:
        half = energy.joules_half_width
        error = "" if half is None else f" ± {1e3 * half:.2g} (95 %)"
        lines.append(
            f"energy above idle: {1e3 * energy.joules_per_inference:.4g}{error} mJ per inference, "
            f"{energy.inferences:,} in {energy.seconds:.1f} s"
        )
    if energy.mean_mw is not None:
        lines.append(
            f"  power: {energy.mean_mw:,.0f} mW less {energy.idle_mw:,.0f} mW idle is "
            f"{energy.mean_mw - energy.idle_mw:,.0f} mW, from {energy.samples} samples"
        )
    lines.append(
        f"  peak less idle, as in the TinyM²Net paper: {energy.peak_minus_idle_mw:,.0f} mW"
    )
    return [*lines, *(f"  note: {warning}" for warning in energy.warnings)]


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


IDLE_SECONDS = RUN_SECONDS = 10.0
FEW = 20  # samples of a run below which peaks and errors are weak
BURST = 0.1  # seconds: the one that slow meters are warned to miss


@dataclass(frozen=True)
class Power:
    """What `mpsearch device run --power` asks for."""

    source: Meter | Manual
    idle_seconds: float = IDLE_SECONDS
    seconds: float = RUN_SECONDS


Loop = Callable[[float], tuple[float, float, int]]
"""Repeats the workload for at least the given seconds; gives when the first inference began and the
last ended, in seconds since the epoch on this machine's clock, and how many there were."""


def chance_of_seeing(burst: float, interval: float, aperture: float = 0.0) -> float:
    """How often a meter with a sample every `interval` seconds sees one burst of `burst` seconds.

    Samples fall at random against the burst, and a sample shows its full power if all of the
    meter's own averaging time, the aperture, lies inside it:

        P = min(1, max(0, burst - aperture) / interval)

    A burst of 100 ms and a meter of 1 Hz: 10 % at best, 8 % with an aperture of 20 ms.
    """
    return min(1.0, max(0.0, burst - aperture) / interval)


def measure_energy(
    source: Meter | Manual,
    loop: Loop,
    idle_seconds: float = IDLE_SECONDS,
    seconds: float = RUN_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Energy:
    """Record `idle_seconds` of idle, then `loop(seconds)`, and what the loop takes beyond idle.

    For numbers read by eye nothing is run. Raises PowerError for every fault of the meter: what is
    wrong, and no number; errors of the loop pass through.
    """
    if isinstance(source, Manual):
        return source.energy()
    with source.record() as recording:
        recording.ready()
        begin = time.time()
        sleep(idle_seconds)
        idle = Window(begin, time.time())
        recording.check()
        start, end, inferences = loop(seconds)
        samples = recording.samples(idle.start, end)
        notes, same = recording.notes, recording.same_clock
    return energy_of(samples, idle, Window(start, end), inferences, source.text, notes, same)


def energy_of(
    samples: Iterable[Sample],
    idle: Window,
    run: Window,
    inferences: int,
    source: str,
    notes: tuple[str, ...] = (),
    same_clock: bool = True,
) -> Energy:
    """What `inferences` in the window `run` take beyond the power of the window `idle`.

        joules per inference = (∫P dt / t - idle) · T / inferences

    The integral is the trapezoid one over the samples of the settled part of the run, t long: the
    ends are left out, where a sample may stand for another time. T is the whole run. The workload
    is the same throughout, so this is the integral over the run less idle · T, without its ends.
    The peak is the largest sample of the run; peak less idle is the figure of the TinyM²Net paper.

    same_clock: the samples were stamped by the clock that gave the windows. Raises PowerError for
    every fault in `meter_faults` and `settling`.
    """
    if inferences < 1 or run.seconds <= 0:
        raise PowerError(f"{inferences} inferences in {run.seconds:.1f} s; expected one or more")
    readings = readings_of(samples)
    check_cover(readings, idle, run)
    check_values(readings, idle, run)
    whole = readings.inside(run)
    idle_part, run_part, warnings = settled(readings, idle, run, same_clock)
    quiet, busy = readings.inside(idle_part), readings.inside(run_part)
    check_enough(quiet, "idle time")
    check_enough(busy, "run")
    step = step_of(readings)
    below, level = level_of(quiet, step), level_of(busy, step)
    above = difference(level, below)
    half = half_width(above)
    check_visible(above, half)
    per_milliwatt = run.seconds / inferences / 1e3
    peak = float(whole.milliwatts.max())
    return Energy(
        source=source,
        idle_mw=below.mean,
        mean_mw=level.mean,
        peak_mw=peak,
        seconds=run.seconds,
        inferences=inferences,
        joules_per_inference=above.mean * per_milliwatt,
        peak_minus_idle_mw=peak - below.mean,
        samples=len(busy),
        joules_stderr=above.stderr * per_milliwatt,
        joules_half_width=half * per_milliwatt,
        warnings=(
            *notes,
            *warnings,
            *_drift(quiet, step, half, run),
            *_weak(len(busy), idle, run, whole),
        ),
    )


def _drift(quiet: Readings, step: float, half: float, run: Window) -> list[str]:
    """Idle that rises or falls by more than its noise, and would by more than `half` until the
    middle of the run."""
    middle = len(quiet) // 2
    if middle < FEWEST:
        return []
    parts = [
        Readings(quiet.seconds[part], quiet.milliwatts[part])
        for part in (slice(None, middle), slice(middle, None))
    ]
    change = difference(level_of(parts[1], step), level_of(parts[0], step))
    times = [float(part.seconds.mean()) for part in parts]
    slope = change.mean / (times[1] - times[0])
    further = slope * ((run.start + run.end) / 2 - sum(times) / 2)
    if abs(change.mean) < 1.5 * half_width(change) or abs(further) < half:
        return []
    return [
        f"the idle power drifts by {slope:+.1f} mW per second, which may be {further:+.0f} mW of "
        "the difference; let the device settle"
    ]


def _weak(samples: int, idle: Window, run: Window, whole: Readings) -> list[str]:
    """What a longer measurement or a faster meter would make better."""
    interval = interval_of(whole, run)
    warnings = []
    if samples < FEW:
        seen = chance_of_seeing(BURST, interval)
        warnings.append(
            f"{samples} samples, one every {interval:.2g} s: a burst of {1e3 * BURST:.0f} ms is "
            f"seen in {100 * seen:.0f} % of runs, so the peak means little; "
            f"measure for {FEW * interval + 2 * interval:.0f} s or longer"
        )
    for name, window, least in (("idle", idle, IDLE_SECONDS), ("run", run, RUN_SECONDS)):
        if window.seconds < 0.99 * least:
            warnings.append(f"only {window.seconds:.1f} s of {name}; expected {least:g} or more")
    return warnings

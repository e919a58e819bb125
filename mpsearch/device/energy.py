"""Energy of an inference: mean power of a loop less idle, times its time, by its inferences."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mpsearch.device.meter_faults import (
    FEWEST,
    check_cover,
    check_enough,
    check_values,
    check_visible,
    interval_of,
)
from mpsearch.device.power import Meter, PowerError, Sample
from mpsearch.device.power_sources_manual import Manual
from mpsearch.device.profile import Energy
from mpsearch.device.readings import (
    Readings,
    Window,
    difference,
    half_width,
    level_of,
    readings_of,
    step_of,
)
from mpsearch.device.settling import settled

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

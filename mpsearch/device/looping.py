"""The workload for a power meter: inferences one after the other for some seconds."""

import math
import time
from dataclasses import replace

from mpsearch.device.energy import Loop, Power, measure_energy
from mpsearch.device.profile import Energy
from mpsearch.device.session import Session
from mpsearch.device.timing import MOST_RUNS, Settings, read_times, run_program

SETTLE = 0.5  # seconds
SPARE = 1.1  # the repeats are counted beforehand, and the device may be quicker than it was


def energy_on(
    session: Session,
    settings: Settings,
    power: Power,
) -> Energy:
    """Idle on the device, then the program that `session` holds, in front of the meter.

    Raises PowerError for a faulty meter, DeviceError for a device or program that fails.
    """
    return measure_energy(
        power.source, loop_on(session, settings), power.idle_seconds, power.seconds
    )


def loop_on(session: Session, settings: Settings) -> Loop:
    """Repeats in one process, or in a few where that takes more than the program's `--repeat`.

    The window begins with the first inference and ends with the last process. Its length is told by
    the device's clock. That it has ended is known here when the answer comes, some 10 ms late.
    """

    def loop(seconds: float) -> tuple[float, float, int]:
        longer = replace(settings, timeout=settings.timeout + math.ceil(10 * seconds))
        wanted = math.ceil(SPARE * seconds / _seconds_of_one(session, longer))
        processes = math.ceil(wanted / MOST_RUNS)
        each = max(2, math.ceil(wanted / processes))
        length = _repeat(session, longer, each, processes)
        end = time.time()
        return end - length, end, processes * each

    return loop


def _seconds_of_one(session: Session, settings: Settings) -> float:
    """From as many repeats as take half a second, so that the clock's governor has settled."""
    count = 2
    while True:
        length = _repeat(session, settings, count)
        if length >= SETTLE or count == MOST_RUNS:
            return length / count
        count = min(MOST_RUNS, max(10 * count, math.ceil(SPARE * SETTLE * count / length)))


def _repeat(session: Session, settings: Settings, each: int, processes: int = 1) -> float:
    """Seconds from the first inference to the end of the last process."""
    words = ("--input", "one.f32", "--repeat", str(each))
    runs = run_program(session, settings, "looping for the meter", *words, count=processes)
    start = read_times(session, runs[0], each).start_ns
    return max(1, runs[-1].spawned_ns + runs[-1].wall_ns - start) / 1e9

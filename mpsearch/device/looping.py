"""The workload for a power meter: inferences one after the other for some seconds."""

import math
import time
from dataclasses import replace

from mpsearch.device.energy import Loop, Power, measure_energy
from mpsearch.device.profile import Energy
from mpsearch.device.session import Session
from mpsearch.device.timing import MOST_RUNS, Settings, read_times, run_program, time_repeats

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
        once = time_repeats(session, settings).median_s
        wanted = max(2, math.ceil(SPARE * seconds / once))
        processes = math.ceil(wanted / MOST_RUNS)
        each = math.ceil(wanted / processes)
        longer = replace(settings, timeout=settings.timeout + math.ceil(10 * seconds))
        words = ("--input", "one.f32", "--repeat", str(each))
        runs = run_program(session, longer, "looping for the meter", *words, count=processes)
        end = time.time()
        start = read_times(session, runs[0], each).start_ns
        length = (runs[-1].spawned_ns + runs[-1].wall_ns - start) / 1e9
        return end - length, end, processes * each

    return loop

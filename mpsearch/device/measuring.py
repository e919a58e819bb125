"""The run on a device: prepare, then measure, with the device's state around every mode."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

from mpsearch.device.conditions import (
    Moment,
    invalid_reasons,
    last_state,
    other_work,
    read_moment,
)
from mpsearch.device.energy import Power
from mpsearch.device.exported import Exported
from mpsearch.device.looping import energy_on
from mpsearch.device.power import PowerError
from mpsearch.device.preparing import prepare
from mpsearch.device.profile import DeviceProfile, check_plausible
from mpsearch.device.session import Session
from mpsearch.device.timing import (
    MOST_RUNS,
    Settings,
    safe_word,
    time_cold_starts,
    time_processes,
    time_repeats,
)
from mpsearch.device.transport import DeviceError
from mpsearch.errors import InputError


def steps_of(settings: Settings, power: Power | None = None) -> int:
    """How often `measure` calls `step`."""
    return 1 + len(settings.modes) + (power is not None)


def measure(
    exported: Exported,
    host: str,
    settings: Settings,
    step: Callable[[], None] = lambda: None,
    root: str = "",
    power: Power | None = None,
    asking: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> DeviceProfile:
    """Run an export on `host` and return what it took.

    root: where /sys lies on the device. power: a meter, and how long to measure with it; a faulty
    one leaves the profile without energy, and `power_failure` says why. asking: see Session. Raises
    ReferenceMismatch, before anything is timed, when a sample gives other integers; DeviceError
    when the device, the way to it or the program fails; InputError when the export does not compile
    here. Throttling and the like are no errors: the profile says that it is invalid, and why.
    """
    if settings.warm_up + settings.repeat > MOST_RUNS:
        raise InputError(f"warm-up and repeats are more than {MOST_RUNS:,}; take fewer")
    with Session(host, settings.folder, asking) as session:
        prepared = prepare(session, exported, settings)
        session.ask(f"root {safe_word(root)}", doing="preparing")
        step()
        moments, starts = [read_state(session)], [len(session.runs)]
        process = cold = steady = None
        for mode in settings.modes:
            if mode == "process":
                process = time_processes(session, settings)
            elif mode == "cold":
                cold = time_cold_starts(session, settings)
            else:
                steady = time_repeats(session, settings)
            moments.append(read_state(session))
            starts.append(len(session.runs))
            step()
        energy, failure = None, None
        if power is not None:
            try:
                energy = energy_on(session, settings, power)
            except PowerError as error:
                failure = str(error)
            moments.append(read_state(session))
            step()
        runs = [session.runs[slice(*ends)] for ends in pairwise(starts)]
    disturbed = other_work(settings.modes, moments, runs, prepared.machine.cores)
    profile = DeviceProfile(
        export_digest=exported.digest,
        network=exported.network,
        host=host,
        machine=prepared.machine,
        compiler=prepared.compiler,
        flags=" ".join(settings.compiler.flags),
        program_bytes=prepared.program_bytes,
        constant_bytes=exported.constant_bytes,
        arena_bytes=exported.arena_bytes,
        checked_samples=len(exported.expected),
        process=process,
        cold=cold,
        steady=steady,
        before=moments[0].state,
        after=last_state(moments),
        invalid=invalid_reasons(moments),
        launch_prefix=settings.launch_prefix,
        emulated=prepared.emulated,
        energy=energy,
        power_failure=failure,
        model_digest=exported.model_digest,
        quantized_digest=exported.quantized_digest,
        notes=(*prepared.notes, *([disturbed] if disturbed else [])),
    )
    try:
        check_plausible(profile)
    except ValueError as error:
        raise DeviceError(f"{host} gave figures that no run gives: {error}") from None
    return profile


def read_state(session: Session) -> Moment:
    """The device's clock, governor, temperature and throttling now."""
    return read_moment(session.ask("state", doing="reading the device's state").facts)

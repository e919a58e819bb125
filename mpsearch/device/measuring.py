"""The run on a device: prepare, then measure, with the device's state around every mode.

The workload for a power meter: inferences one after the other for some seconds.

A program on a device that was compiled and gives the reference's integers: ready to be timed.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest

from mpsearch.device.conditions import (
    Moment,
    invalid_reasons,
    last_state,
    other_work,
    read_machine,
    read_moment,
)
from mpsearch.device.energy import Loop, Power, measure_energy
from mpsearch.device.exported import Compiler, Exported, build, cross_compiler, is_native
from mpsearch.device.power import PowerError
from mpsearch.device.profile import DeviceProfile, Energy, Machine, check_plausible, is_virtual
from mpsearch.device.session import Session
from mpsearch.device.timing import (
    MOST_RUNS,
    Settings,
    read_times,
    run_program,
    safe_word,
    time_cold_starts,
    time_processes,
    time_repeats,
)
from mpsearch.device.transport import DeviceError
from mpsearch.errors import InputError, MpsearchError

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


class ReferenceMismatch(MpsearchError):
    """The program on the device gives other integers than the reference (exit code 1)."""

    exit_code = 1


@dataclass(frozen=True)
class Prepared:
    """What is known before anything is timed; `emulated` and `notes` as in DeviceProfile."""

    machine: Machine
    compiler: str
    program_bytes: int
    emulated: bool
    notes: tuple[str, ...] = ()


def prepare(session: Session, exported: Exported, settings: Settings) -> Prepared:
    """Send, compile and compare with the reference.

    Raises ReferenceMismatch when a sample gives other integers; DeviceError when the device or the
    program on it fails; InputError when the export does not compile on this machine.
    """
    prepared = install(session, exported, settings)
    _check(session, exported, settings)
    return prepared


def install(session: Session, exported: Exported, settings: Settings) -> Prepared:
    """Send and compile, without a comparison; errors as for `prepare`."""
    prefix = settings.launch_prefix
    machine = read_machine(session.ask("describe", doing="describing the device").facts)
    built = build(exported, settings.compiler, prefix)
    reply = session.unpack(built.files, built.programs)
    if reply.exit != 0:
        raise session.failed("cannot unpack the files", reply)
    compiler = built.compiler or _compile(session, settings.compiler, machine.architecture)
    reply = session.ask("program", doing="looking at the program")
    if reply.exit != 0:
        raise DeviceError(
            f"the program is not for {session.host}, a {machine.architecture}; use "
            f"{cross_compiler(machine.architecture)}, or an emulator with --launch-prefix"
        )
    native = is_native(_bytes(reply.facts.get("header", "")), machine.architecture)
    size = int(_digits(reply.facts.get("program_bytes", "")))
    virtual = is_virtual(machine)
    emulated = bool(settings.emulated or prefix or not native or virtual)
    note = f"the device calls itself {machine.cpu_model}: it is emulated or virtual"
    return Prepared(machine, compiler, size, emulated, (note,) if virtual else ())


def _compile(session: Session, compiler: Compiler, architecture: str) -> str:
    """Compile on the device; the compiler's name."""
    reply = session.ask("compile", seconds=600, doing="compiling")
    if reply.exit == 127 and not reply.texts:
        raise DeviceError(
            f"{session.host} has no compiler {compiler.words[0]}; install one there (sudo apt "
            "install gcc)",
            f"or compile on this machine: {cross_compiler(architecture)}",
        )
    if reply.exit != 0:
        raise session.failed("cannot compile the export", reply)
    return reply.facts.get("compiler", "unknown")


def _check(session: Session, exported: Exported, settings: Settings) -> None:
    """Every sample must give the reference's integers."""
    arguments = ("--input", "check.f32", "--integers")
    run_program(session, settings, "comparing with the reference", *arguments, output="output")
    got = session.ask("results", doing="reading the results", lines=len(exported.expected)).outputs
    check_outputs(exported, got, session.host)


def check_outputs(exported: Exported, got: Sequence[str], host: str) -> None:
    """Raise ReferenceMismatch unless the lines of integers are those of the reference."""
    pairs = enumerate(zip_longest(exported.expected, got))
    wrong = [place for place, (meant, given) in pairs if meant != given]
    if wrong:
        raise ReferenceMismatch(
            f"{len(wrong)} of {len(exported.expected)} samples give other integers on "
            f"{host} than the reference (first: sample {wrong[0]}); nothing was timed.",
            "Is the compiler or a flag at fault? Try --flags -O1, then report it.",
        )


def _digits(text: str) -> str:
    return text.strip() if text.strip().isdecimal() and len(text) < 20 else "0"


def _bytes(text: str) -> bytes:
    """`127 69 76 70` -> b"\x7fELF"."""
    return bytes(int(_digits(word)) & 255 for word in text.split())


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

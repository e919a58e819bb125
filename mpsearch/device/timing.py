"""Starting the program on a device, and the three ways to time it."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median_high

from mpsearch.device.exported import Compiler
from mpsearch.device.profile import ColdRuns, Latency, Mode, ProcessRuns
from mpsearch.device.session import Run, Session
from mpsearch.device.transport import ELSEWHERE, DeviceError, clean, telling
from mpsearch.files.json_file import from_json, parse_json

MODES: tuple[Mode, ...] = ("process", "cold", "steady")
LEAST_SILENCE = 60
MOST_RUNS = 100_000  # of the program's --repeat


@dataclass(frozen=True)
class Settings:
    """How to measure. runs: fresh processes for `process` and `cold`; repeat: inferences of
    `steady` after warm_up ones that do not count; timeout: seconds that one process may take;
    folder: where to work on the device, empty for its TMPDIR or /tmp."""

    modes: tuple[Mode, ...] = MODES
    runs: int = 50
    repeat: int = 200
    warm_up: int = 20
    timeout: int = 120
    compiler: Compiler = field(default_factory=Compiler)
    launch_prefix: tuple[str, ...] = ()
    emulated: bool = False
    folder: str = ""


@dataclass(frozen=True)
class Times:
    """The line that the program prints for a sample with --repeat."""

    sample: int
    runs: int
    start_ns: int
    first_ns: int
    minimum_ns: int
    median_ns: int
    p90_ns: int
    p99_ns: int


def run_program(
    session: Session,
    settings: Settings,
    what: str,
    *arguments: str,
    count: int = 1,
    output: str = "/dev/null",
) -> tuple[Run, ...]:
    """Start the program `count` times. Raises DeviceError unless all of them end well."""
    words = " ".join(map(safe_word, (output, str(settings.timeout), str(count), *arguments)))
    reply = session.ask(
        f"run {words}", seconds=settings.timeout + LEAST_SILENCE, doing=what, lines=count
    )
    host = session.host
    for run in reply.runs:
        if run.timed_out:
            raise DeviceError(
                f"the program did not end within {settings.timeout} s on {host} and was killed "
                f"while {what}; if it is only slow, raise --timeout"
            )
        if run.signal:
            raise DeviceError(
                f"the program crashed on {host} while {what}: {_signal(run.signal)} "
                f"{clean(run.stderr)}".rstrip()
            )
        if run.exit:
            said = clean(run.stderr) or f"exit status {run.exit}"
            raise DeviceError(f"the program failed on {host} while {what}: {said}")
    if reply.exit != 0 or len(reply.runs) != count:
        error = session.failed(f"cannot run the program while {what}", reply)
        if any("Permission denied" in text for text in reply.texts):
            error = DeviceError(
                f"{host} starts no programs in its temporary folder: {telling(reply.texts)}",
                f"Is it mounted noexec? {ELSEWHERE}",
            )
        raise error
    return reply.runs


def time_processes(session: Session, settings: Settings) -> ProcessRuns:
    """From spawn to exit, `settings.runs` times."""
    arguments = ("--input", "one.f32")
    runs = run_program(session, settings, "timing processes", *arguments, count=settings.runs)
    peak = max(run.peak_kb for run in runs)
    return ProcessRuns(latency_of([run.wall_ns for run in runs]), 1024 * peak if peak else None)


def time_cold_starts(session: Session, settings: Settings) -> ColdRuns:
    """Initialisation and first inference of `settings.runs` fresh processes."""
    arguments = ("--input", "one.f32", "--repeat", "1")
    runs = run_program(session, settings, "timing cold starts", *arguments, count=settings.runs)
    times = [read_times(session, run, 1) for run in runs]
    starts = [one.start_ns - run.spawned_ns for one, run in zip(times, runs, strict=True)]
    first = [one.first_ns for one in times]
    return ColdRuns(len(runs), median_high(starts) / 1e9, median_high(first) / 1e9)


def time_repeats(session: Session, settings: Settings) -> Latency:
    """`settings.repeat` inferences of one process after `settings.warm_up` that do not count."""
    count = settings.warm_up + settings.repeat
    words = ("--input", "one.f32", "--repeat", str(count), "--warm-up", str(settings.warm_up))
    (run,) = run_program(session, settings, "timing repeats", *words)
    times = read_times(session, run, count)
    seconds = (times.median_ns / 1e9, times.p90_ns / 1e9, times.p99_ns / 1e9)
    return Latency(settings.repeat, *seconds, times.minimum_ns / 1e9)


def read_times(session: Session, run: Run, runs: int) -> Times:
    """What the program printed for `runs` repeats. Raises DeviceError for anything else."""
    try:
        times = from_json(Times, parse_json(run.stderr), "")
        ordered = [1, times.minimum_ns, times.median_ns, times.p90_ns, times.p99_ns]
        if (
            (times.sample, times.runs) != (0, runs)
            or times.first_ns > run.wall_ns
            or ordered != sorted(ordered)
        ):
            raise ValueError("not the times of this run")
    except ValueError as error:
        raise DeviceError(
            f"the program on {session.host} printed no times that mpsearch understands: "
            f"{clean(str(error))}; export again"
        ) from None
    return times


def latency_of(nanoseconds: Sequence[int]) -> Latency:
    """As the program takes percentiles: the sorted values at n/2, 9n/10 and 99n/100."""
    ordered = sorted(nanoseconds)
    n = len(ordered)
    at = (n // 2, n * 9 // 10, n * 99 // 100, 0)
    return Latency(n, *(ordered[place] / 1e9 for place in at))


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def safe_word(word: str) -> str:
    """Words of commands are our own; a mistake here must not reach a shell."""
    assert all(c.isalnum() or c in "./_-" for c in word), word
    return word

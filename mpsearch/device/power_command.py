"""The lines that a program prints, each with the time of its arrival.

`command:PROGRAM`: a program of the user's that prints milliwatts.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from mpsearch.device.power import PowerError, Recording, Sample, number

Line = tuple[float, str]  # seconds since the epoch when it came, and what it says
PATIENCE = 10.0  # seconds of silence after which a meter counts as stopped
LONGEST_LINE = 4096
MOST_LINES = 2_000_000  # half an hour of a meter with 1000 samples a second


class ProcessRecording:
    """A running program; `convert` makes samples of its lines and raises PowerError for rubbish."""

    same_clock = True

    def __init__(
        self,
        name: str,
        process: "subprocess.Popen[bytes]",
        errors: IO[bytes],
        convert: Callable[[Sequence[Line]], list[Sample]],
        patience: float,
        notes: tuple[str, ...],
    ) -> None:
        self.notes = notes
        self._name, self._process, self._errors = name, process, errors
        self._convert, self._patience = convert, patience
        self._lines: list[Line] = []
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while line := self._process.stdout.readline(LONGEST_LINE):
                now = time.time()
                if text := line.decode(errors="replace").strip():
                    self._lines.append((now, text))
                if len(self._lines) == MOST_LINES:
                    return
        finally:
            self._ended.set()

    def ready(self) -> None:
        """Wait for the first line."""
        self.samples(float("-inf"), float("-inf"))

    def check(self) -> None:
        """Raise PowerError for a program that ended or has printed rubbish."""
        self._convert(self._lines[:])
        if self._ended.is_set():
            raise PowerError(self._end())

    def samples(self, since: float, until: float) -> list[Sample]:
        """See Recording."""
        asked = time.time()
        while True:
            ended = self._ended.is_set()  # before the lines are read: no line comes after it
            samples = self._convert(self._lines[:])
            if samples and samples[-1][0] >= until:
                return [sample for sample in samples if sample[0] >= since]
            if ended:
                raise PowerError(self._end())
            if time.time() > max(asked, until) + self._patience:
                raise PowerError(self._silence(samples, until))
            time.sleep(0.02)

    def close(self) -> None:
        """After the program was ended: leave no open pipe."""
        self._reader.join(timeout=2)
        if not self._reader.is_alive() and self._process.stdout is not None:
            self._process.stdout.close()

    def _silence(self, samples: Sequence[Sample], until: float) -> str:
        if not samples:
            return (
                f"{self._name} has printed nothing; expected one line a sample, "
                "written at once (flush the output)"
            )
        return (
            f"{self._name} stopped {until - samples[-1][0]:.1f} s before the end of the run; "
            "expected samples until then; look at the meter and run again"
        )

    def _end(self) -> str:
        if len(self._lines) == MOST_LINES:
            return f"{self._name} has printed {MOST_LINES:,} lines; expected one line a sample"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 500))
        said = self._errors.read(500).decode(errors="replace").split("\n")
        words = [line.strip() for line in said if line.strip()]
        last = f"; its last words: {ascii(words[-1])[1:-1][:200]}" if words else ""
        return (
            f"{self._name} ended with exit code {self._process.returncode} after "
            f"{len(self._lines)} lines; a meter must run until the measurement ends{last}"
        )


@contextlib.contextmanager
def recording(
    name: str,
    arguments: Sequence[str],
    convert: Callable[[Sequence[Line]], list[Sample]],
    script: str = "",
    patience: float = PATIENCE,
    notes: tuple[str, ...] = (),
) -> Iterator[ProcessRecording]:
    """Run a program without a shell, `script` on its standard input, and record what it prints.

    It is ended, with what it started, when the block is left. Raises PowerError when it cannot be
    started.
    """
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as given:
        given.write(script.encode())
        given.seek(0)
        try:
            process = subprocess.Popen(
                arguments,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # so that its children can be ended with it
            )
        except OSError as error:
            raise PowerError(f"{name} cannot be started: {error.strerror or error}") from None
        try:
            lines = ProcessRecording(name, process, errors, convert, patience, notes)
        except BaseException:
            _end_group(process)
            raise
        try:
            yield lines
        finally:
            _end_group(process)
            lines.close()


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and SIGKILL two seconds later, to the program and its children."""
    for stop in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, stop)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=2)
            break
    # Its own session may outlive the leader; the pipe closes with the last of them.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Command:
    """A program that prints one number of mW per line for as long as it runs.

    arguments: as the shell would split them; no shell is started. interval: None for a program that
    runs on, else the program prints one number and ends, and is started every `interval` seconds.
    A sample has the time at which its line came, or the middle of the short run.
    """

    text: str
    arguments: tuple[str, ...]
    interval: float | None = None
    patience: float = PATIENCE

    @contextlib.contextmanager
    def record(self) -> Iterator[Recording]:
        """Start the program. Raises PowerError when that fails."""
        if self.interval is None:
            with recording(self._name, self.arguments, self._convert, "", self.patience) as lines:
                yield lines
            return
        polled = _Polled(self, self.interval)
        try:
            yield polled
        finally:
            polled.stop()

    @property
    def _name(self) -> str:
        return f"the meter program {ascii(self.arguments[0])[1:-1][:80]}"

    def _convert(self, lines: Sequence[Line]) -> list[Sample]:
        return [(arrival, self._milliwatts(text)) for arrival, text in lines]

    def _milliwatts(self, text: str) -> float:
        try:
            return number(text)
        except ValueError:
            raise PowerError(
                f"{self._name} printed {text[:60]!a}; expected one number of mW in each line"
            ) from None


class _Polled:
    """Starts the program again and again; the first failure ends the recording."""

    notes = ()
    same_clock = True

    def __init__(self, command: Command, interval: float) -> None:
        self._command, self._interval = command, interval
        self._samples: list[Sample] = []
        self._failure: str | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()

    def _poll(self) -> None:
        while not self._stopped.is_set():
            began = time.time()
            try:
                milliwatts = self._ask()
            except PowerError as error:
                self._failure = str(error)
                return
            ended = time.time()
            self._samples.append(((began + ended) / 2, milliwatts))
            self._stopped.wait(max(0.0, began + self._interval - ended))

    def _ask(self) -> float:
        name = self._command._name
        try:
            done = subprocess.run(
                self._command.arguments,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._command.patience,
            )
        except OSError as error:
            raise PowerError(f"{name} cannot be started: {error.strerror or error}") from None
        except subprocess.TimeoutExpired:
            raise PowerError(
                f"{name} did not end within {self._command.patience:g} s; with --power-interval "
                "it must print one number and end"
            ) from None
        if done.returncode != 0:
            raise PowerError(f"{name} ended with exit code {done.returncode}; expected 0")
        return self._command._milliwatts(done.stdout.decode(errors="replace").strip())

    def ready(self) -> None:
        """Wait for the first number."""
        self.samples(float("-inf"), float("-inf"))

    def check(self) -> None:
        """Raise PowerError for a program that failed."""
        if self._failure is not None:
            raise PowerError(self._failure)

    def samples(self, since: float, until: float) -> list[Sample]:
        """See Recording."""
        while not self._samples or self._samples[-1][0] < until:
            self.check()  # one call ends or fails within `patience`
            time.sleep(0.02)
        return [sample for sample in self._samples if sample[0] >= since]

    def stop(self) -> None:
        """End the polling; a call that is under way is waited for."""
        self._stopped.set()
        self._thread.join()


def command(text: str, rest: str, interval: float | None = None) -> Command:
    """`command:./meter --fast` -> Command. Raises PowerError for one that cannot be split."""
    try:
        arguments = tuple(shlex.split(rest))
    except ValueError as error:
        raise PowerError(f"--power {ascii(text)[1:-1]}: {error}; expected a command") from None
    if not arguments:
        raise PowerError("--power command: names no program; expected command:PROGRAM")
    if interval is not None and not 0.001 <= interval <= 60:
        raise PowerError(f"--power-interval is {interval:g}; expected 0.001 to 60 seconds")
    return Command(text, arguments, interval)

"""The lines that a program prints, each with the time of its arrival."""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from mpsearch.device.power import PowerError, Sample

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

"""`command:PROGRAM`: a program of the user's that prints milliwatts."""

import contextlib
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mpsearch.device.power import PowerError, Recording, Sample, number
from mpsearch.device.power_process import PATIENCE, Line, recording


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

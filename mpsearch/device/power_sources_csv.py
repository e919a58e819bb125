"""`csv:FILE?time=…&power=…`: what another program records while the workload runs."""

import contextlib
import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpsearch.device.power import PowerError, Recording, Sample, number
from mpsearch.device.power_process import PATIENCE
from mpsearch.device.power_times import TimeColumn

LARGEST_FILE = 1 << 28
BACK = 0.5  # seconds that a time may lie before the one above it: meters send packets


@dataclass(frozen=True)
class CsvColumns:
    """Which columns give milliwatts: `names` of one (power) or two (voltage, current), `factor`
    from their product to mW."""

    names: tuple[str, ...]
    factor: float


@dataclass(frozen=True)
class Csv:
    """A text file with a header. offset: seconds to add to its times, where its clock is late.

    separator: None to take the one of , ; tab that the header has. A comma in a number is a decimal
    one unless it separates columns.
    """

    text: str
    path: str
    times: TimeColumn
    columns: CsvColumns
    offset: float = 0.0
    separator: str | None = None
    patience: float = PATIENCE

    @contextlib.contextmanager
    def record(self) -> Iterator[Recording]:
        """Nothing to start."""
        yield _CsvRecording(self)

    def read(self, since: float) -> list[Sample]:
        """The samples from `since` on, by time. Raises PowerError naming the line that is wrong."""
        try:
            if Path(self.path).stat().st_size > LARGEST_FILE:
                raise PowerError(f"{self.path} is larger than 256 MiB; start a new recording")
            text = Path(self.path).read_text(encoding="utf-8-sig", errors="replace")
        except OSError as error:
            raise PowerError(
                f"cannot read the samples in {self.path}: {error.strerror or error}; "
                "let the meter's program write there while the workload runs"
            ) from None
        return self._samples(text, since)

    def _samples(self, text: str, since: float) -> list[Sample]:
        lines = text.split("\n")
        lines.pop()  # empty, or a line that is still being written
        lines = [line.removesuffix("\r") for line in lines]
        top = next((n for n, line in enumerate(lines) if line.strip()), None)
        if top is None:
            return []
        header, separator = lines[top], self._separator_of(lines[top])
        places = self._places(_cells(header, separator))
        samples: list[Sample] = []
        for n in range(top + 1, len(lines)):
            if not lines[n].strip() or lines[n] == header:  # recordings that were put together
                continue
            sample = self._sample(_cells(lines[n], separator), places, separator, n + 1)
            if sample[0] < since:
                continue
            if samples and sample[0] < samples[-1][0] - BACK:
                raise PowerError(
                    f"{self.path}, line {n + 1}: time goes back by "
                    f"{samples[-1][0] - sample[0]:.1f} s; record again while no clock is set"
                )
            samples.append(sample)
        return sorted(samples)

    def _separator_of(self, header: str) -> str:
        if self.separator is not None:
            return self.separator
        return max(",;\t", key=header.count)

    def _places(self, header: Sequence[str]) -> list[int]:
        wanted = (self.times.name, *self.columns.names)
        for name in wanted:
            if header.count(name) != 1:
                raise PowerError(
                    f"{self.path} has {header.count(name)} columns {name!a}; expected one; "
                    f"its header has {ascii(', '.join(header))[1:-1][:200]}"
                )
        return [header.index(name) for name in wanted]

    def _sample(
        self, cells: Sequence[str], places: Sequence[int], separator: str, line: int
    ) -> Sample:
        value = self.columns.factor
        cell = ""
        try:
            for place in places[1:]:
                cell = cells[place]
                value *= number(cell if separator == "," else cell.replace(",", "."))
            cell = cells[places[0]]
            return self.times.seconds(cell) + self.offset, value
        except (ValueError, IndexError, OverflowError):
            raise PowerError(
                f"{self.path}, line {line}: got {cell[:60]!a}; expected a number or a time"
            ) from None


class _CsvRecording:
    """Reads the file again until it holds the last moment that is asked for."""

    notes = ()
    same_clock = False

    def __init__(self, source: Csv) -> None:
        self._source = source

    def ready(self) -> None:
        """The other program may write later."""
        self.check()

    def check(self) -> None:
        """Raise PowerError for a file that is there and has not the columns."""
        if Path(self._source.path).exists():
            self._source.read(time.time())

    def samples(self, since: float, until: float) -> list[Sample]:
        """See Recording. A recorder may write late: the file is waited for."""
        deadline = time.time() + self._source.patience
        while True:
            late = time.time() > deadline
            try:
                samples = self._source.read(since)
            except PowerError:
                if late or Path(self._source.path).exists():
                    raise
                samples = []
            if samples and samples[-1][0] >= until:
                return samples
            if late:
                raise PowerError(self._missing(until))
            time.sleep(0.2)

    def _missing(self, until: float) -> str:
        every = self._source.read(float("-inf"))
        if not every:
            return f"{self._source.path} holds no sample; record while the workload runs"
        first, last = every[0][0], every[-1][0]
        if last < 1e8:
            hint = "its times begin at 0: give start=TIME, when the recording began"
        else:
            hint = (
                "record until the command has ended, or, where the meter's clock is "
                "late, give offset=SECONDS"
            )
        return (
            f"{self._source.path} ends {until - last:.1f} s before the run did (it holds "
            f"{last - first:.1f} s); {hint}"
        )


def _cells(line: str, separator: str) -> list[str]:
    if separator == " ":
        return line.split()
    if '"' not in line:  # ten times as quick, and long recordings are read more than once
        return [cell.strip() for cell in line.split(separator)]
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]

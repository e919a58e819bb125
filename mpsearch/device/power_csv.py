"""`csv:FILE?time=…&power=…`: what another program records while the workload runs.

Times as meters write them: since the epoch, since the start, on a clock, or as a date.

The text after `csv:`, which says what the columns of a recording are.
"""

import contextlib
import csv
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

from mpsearch.device.power import PowerError, Recording, Sample, number
from mpsearch.device.power_command import PATIENCE

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d(?:[.,]\d+)?)")
# Today is 1.8e9 s since the epoch: 1e8 is 1973 in seconds and a day in milliseconds.
_EPOCH = ((1e8, 1e11, "s"), (1e11, 1e14, "ms"), (1e14, 1e17, "us"))


@dataclass(frozen=True)
class TimeColumn:
    """How one column is read. unit: of plain numbers, None to tell by their size.

    start: the moment of the column's 0, in seconds since the epoch, for times that count from the
    beginning of the recording. form: for strptime, None for plain numbers, H:MM:SS and ISO dates.
    """

    name: str
    unit: str | None = None
    start: float | None = None
    form: str | None = None

    def seconds(self, text: str) -> float:
        """Seconds since the epoch; since the start where `start` is not known.

        '1657568326.775' -> 1657568326.775; '1657568326775' the same; '2022-07-11 19:38:46Z';
        '0:00:12.5' -> start + 12.5. A date without a zone is in this machine's. Raises ValueError.
        """
        if self.form is not None:
            return _epoch(datetime.strptime(text, self.form))
        if clock := _CLOCK.fullmatch(text):
            hours, minutes, rest = clock.groups()
            past = 3600 * int(hours) + 60 * int(minutes) + float(rest.replace(",", "."))
            return past + (self.start or 0.0)
        try:
            value = number(text.replace(",", "."))
        except ValueError:
            return _epoch(datetime.fromisoformat(text))
        return value * UNITS[self._unit(value)] + (self.start or 0.0)

    def _unit(self, value: float) -> str:
        if self.unit is not None:
            return self.unit
        for low, high, unit in _EPOCH:
            if self.start is None and low <= value < high:
                return unit
        return "s"


def _epoch(when: datetime) -> float:
    """A date without a zone is local time, as Python takes it."""
    return when.timestamp()


def time_column(name: str, unit: str | None, start: float | None, form: str | None) -> TimeColumn:
    """Checked TimeColumn. Raises PowerError for an unknown unit."""
    if unit is not None and unit not in UNITS:
        raise PowerError(f"--power csv: time_unit is {unit[:20]!a}; expected s, ms or us")
    return TimeColumn(name, unit, start, form)


def moment(text: str) -> float:
    """start=…: seconds since the epoch, or an ISO date. Raises PowerError for anything else."""
    try:
        return number(text)
    except ValueError:
        pass
    try:
        return _epoch(datetime.fromisoformat(text))
    except ValueError:
        raise PowerError(
            f"--power csv: start is {text[:40]!a}; expected seconds since 1970 or a date "
            "like 2026-11-21T19:00:00"
        ) from None


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


TO_MILLI = {
    "power": {"mW": 1.0, "W": 1e3, "uW": 1e-3},
    "voltage": {"V": 1.0, "mV": 1e-3},
    "current": {"A": 1e3, "mA": 1.0, "uA": 1e-3},
}
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " "}
KEYS = (
    "time", "power", "unit", "voltage", "current", "voltage_unit", "current_unit", "offset",
    "start", "time_unit", "format", "separator",
)  # fmt: skip


def csv_source(text: str, rest: str) -> Csv:
    """`csv:meter.csv?time=t&power=P&unit=W` -> Csv. Raises PowerError for what is not understood.

    A column is `power` (unit=mW, W or uW), or `voltage` and `current` (voltage_unit=V or mV,
    current_unit=A, mA or uA). `%26` is an & in a column's name, `%25` a %.
    """
    path, _, query = rest.partition("?")
    options: dict[str, str] = {}
    for part in query.split("&"):
        key, equals, value = part.partition("=")
        if not equals or key not in KEYS or key in options:
            raise PowerError(
                f"--power csv: got {part[:60]!a}; expected "
                f"csv:FILE?time=COLUMN&power=COLUMN with keys out of {', '.join(KEYS)}, each once"
            )
        options[key] = unquote(value)
    if not path or "time" not in options:
        raise PowerError("--power csv names no file or no time; expected csv:FILE?time=COLUMN&…")
    offset = _number(options, "offset") if "offset" in options else 0.0
    separator = options.get("separator")
    if separator is not None and separator not in SEPARATORS:
        raise PowerError(f"--power csv: separator is one of {', '.join(SEPARATORS)}")
    return Csv(
        text,
        path,
        time_column(
            options["time"],
            unit=options.get("time_unit"),
            start=None if "start" not in options else moment(options["start"]),
            form=options.get("format"),
        ),
        _columns(options),
        offset,
        None if separator is None else SEPARATORS[separator],
    )


def _columns(options: Mapping[str, str]) -> CsvColumns:
    power, product = "power" in options, {"voltage", "current"} <= options.keys()
    stray = {"voltage", "current", "voltage_unit", "current_unit"} if power else {"unit"}
    if power == product or stray & options.keys():
        raise PowerError(
            "--power csv: expected power=COLUMN (and unit=), or voltage=COLUMN and "
            "current=COLUMN (and voltage_unit=, current_unit=)"
        )
    if power:
        return CsvColumns((options["power"],), _factor("power", options.get("unit", "mW"), "unit"))
    return CsvColumns(
        (options["voltage"], options["current"]),
        _factor("voltage", options.get("voltage_unit", "V"), "voltage_unit")
        * _factor("current", options.get("current_unit", "A"), "current_unit"),
    )


def _factor(kind: str, unit: str, key: str) -> float:
    if unit not in TO_MILLI[kind]:
        raise PowerError(
            f"--power csv: {key} is {unit[:20]!a}; expected {', '.join(TO_MILLI[kind])}"
        )
    return TO_MILLI[kind][unit]


def _number(options: Mapping[str, str], key: str) -> float:
    try:
        return number(options[key])
    except ValueError:
        raise PowerError(f"--power csv: {key} is {options[key][:40]!a}; expected seconds") from None

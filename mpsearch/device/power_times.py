"""Times as meters write them: since the epoch, since the start, on a clock, or as a date."""

import re
from dataclasses import dataclass
from datetime import datetime

from mpsearch.device.power import PowerError, number

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

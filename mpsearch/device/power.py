"""Power meters: every one gives samples (seconds, mW), all on the clock of this machine."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from mpsearch.errors import InputError

Sample = tuple[float, float]  # seconds since the epoch on this machine's clock, milliwatts
FORMS = "command:PROGRAM, csv:FILE?time=…&power=…, hwmon[:NAME], or manual:IDLE,PEAK in mW"


class PowerError(InputError):
    """The meter gave nothing that an energy can be claimed from; the message says why."""


class Recording(Protocol):
    """A meter that is being recorded. notes: what the reader of its figures must know.

    same_clock: this machine stamps the samples, so that no other clock can be wrong.
    """

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def same_clock(self) -> bool: ...

    def ready(self) -> None:
        """Wait for a first sample where they come by themselves. Raises PowerError for none."""

    def check(self) -> None:
        """Raise PowerError when the meter is known to have failed."""

    def samples(self, since: float, until: float) -> Sequence[Sample]:
        """All samples from `since` on; waits until there is one at or after `until`.

        Raises PowerError when the meter ends or falls silent before.
        """


class Meter(Protocol):
    """Where samples come from. Settings only; `record` starts what there is to start.

    text: as the user wrote it, for the device profile.
    """

    @property
    def text(self) -> str: ...

    def record(self) -> AbstractContextManager[Recording]: ...


def number(text: str) -> float:
    """`text` as a finite float. Raises ValueError otherwise, also for `nan` and `inf`."""
    value = float(text)
    if value - value != 0:
        raise ValueError(text)
    return value

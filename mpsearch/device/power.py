"""Power meters: every one gives samples (seconds, mW), all on the clock of this machine.

`manual:IDLE,PEAK`: two numbers that somebody read off a meter.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from mpsearch.device.profile import Energy
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


BY_EYE = (
    "read by eye: no joules can be claimed from two numbers, only the peak less idle, which is "
    "what the TinyM²Net paper gives"
)


@dataclass(frozen=True)
class Manual:
    """Milliwatts at idle, and the largest that the meter showed while the workload ran."""

    text: str
    idle_mw: float
    peak_mw: float

    def energy(self) -> Energy:
        """Peak less idle and nothing else."""
        return Energy(
            source=self.text,
            idle_mw=self.idle_mw,
            mean_mw=None,
            peak_mw=self.peak_mw,
            seconds=None,
            inferences=None,
            joules_per_inference=None,
            peak_minus_idle_mw=self.peak_mw - self.idle_mw,
            samples=None,
            warnings=(BY_EYE,),
        )


def manual(text: str, rest: str) -> Manual:
    """`manual:2700,3498` -> Manual. Raises PowerError for anything else."""
    try:
        idle, peak = (number(part) for part in rest.split(","))
    except ValueError:
        raise PowerError(
            f"--power {ascii(text)[1:-1]} does not hold two numbers; expected manual:IDLE,PEAK "
            "in mW, as in manual:2700,3498"
        ) from None
    if not 0 < idle <= peak:
        raise PowerError(
            f"--power {ascii(text)[1:-1]}: expected 0 < IDLE <= PEAK; "
            "read both with the same meter at the same place"
        )
    return Manual(text, idle, peak)

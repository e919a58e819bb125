"""`manual:IDLE,PEAK`: two numbers that somebody read off a meter."""

from dataclasses import dataclass

from mpsearch.device.power import PowerError, number
from mpsearch.device.profile import Energy

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

"""`Verdict`: one condition of the gate, met or missed, and whether the samples decide it."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from mpsearch.gating.limits import BY_QUANTITY

Number = int | float | Fraction
Outcome = Literal["pass", "fail", "inconclusive"]
Policy = Literal["measured", "strict", "lenient"]


@dataclass(frozen=True)
class Paired:
    """What a drop was measured from: of the samples that both networks saw, `lost` became wrong
    and `won` became right. p_no_drop: exact one-sided McNemar p-value of "no drop at all"."""

    reference: str
    lost: int
    won: int
    p_no_drop: float


@dataclass(frozen=True)
class Verdict:
    """One condition.

    quantity: `size_bytes`, `bops`, `accuracy` (0 to 1), `drop` or `drop_baseline` (in points),
    what a device took: `latency_s`, `peak_memory_bytes`, `energy_j`; or the growth of one of these
    against the baseline, `size_bytes_growth` and so on (a share: 0.01 is 1 % more). `metric f1`
    and so on: a metric of the evaluation; at_least: its limit is one from below.
    passed: the measured value meets the limit; one equal to its limit does.
    interval, samples: of what was measured on samples; None for exact numbers, such as the drop
    of a network against itself.
    needed: how many samples would decide at the rates that were measured; None: none would.
    baseline: the value that a growth is relative to.
    """

    quantity: str
    value: Number
    limit: Number
    passed: bool
    interval: tuple[float, float] | None = None
    samples: int | None = None
    confidence: float = 0.95
    needed: int | None = None
    paired: Paired | None = None
    baseline: Number | None = None
    at_least: bool = False

    @property
    def higher_is_better(self) -> bool:
        """Whether the limit is one from below."""
        asked = BY_QUANTITY.get(self.quantity)
        return self.at_least or (asked is not None and asked.at_least)

    @property
    def outcome(self) -> Outcome:
        """`pass` where the whole interval meets the limit, `fail` where all of it misses it."""
        if self.interval is None:
            return "pass" if self.passed else "fail"
        low, high = self.interval
        if self.higher_is_better:
            met, missed = low >= self.limit, high <= self.limit
        else:
            met, missed = high <= self.limit, low >= self.limit
        if met:
            return "pass"
        return "fail" if missed and not self.passed else "inconclusive"

    @property
    def decided(self) -> bool:
        """Whether the outcome holds with the confidence that was asked for."""
        return self.outcome != "inconclusive"

    def stops(self, policy: Policy = "measured") -> bool:
        """Whether this condition makes the gate say no.

        What is decided does as it came out. What is inconclusive stops under `strict`, lets through
        under `lenient`, and under `measured` does as the measured value says.
        """
        if self.decided or policy == "measured":
            return not self.passed
        return policy == "strict"


def says_no(verdicts: Iterable[Verdict], policy: Policy = "measured") -> bool:
    """Whether any condition stops the network."""
    return any(verdict.stops(policy) for verdict in verdicts)

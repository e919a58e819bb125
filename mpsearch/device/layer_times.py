"""From times of steps, measured on a device, to seconds of layers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from mpsearch.errors import InputError


@dataclass(frozen=True)
class StepTimes:
    """Median seconds of each step of one program, in order, and of a whole run with its clocks.

    Reading the clock is taken off every step.
    """

    seconds: tuple[float, ...]
    whole_s: float
    runs: int


def parse_step_times(lines: Sequence[str], steps: int) -> StepTimes:
    """What step_times.c prints: `STEP NANOSECONDS` for each step, then `0 CLOCK WHOLE RUNS`.

    Raises InputError for anything else, for it comes from another machine.
    """
    try:
        *times, last = [[int(word) for word in line.split()] for line in lines]
        if [time[0] for time in times] != list(range(1, steps + 1)):
            raise ValueError("steps are missing")
        zero, clock, whole, runs = last
        numbers = (clock, whole, runs, *(ns for _, ns in times))
        if zero or min(numbers) < 0 or max(numbers) > 2**63:
            raise ValueError("a number is negative, or has more than 64 bits")
        seconds = tuple(max(0, ns - clock) * 1e-9 for _, ns in times)
        return StepTimes(seconds, whole * 1e-9, runs)
    except (ValueError, IndexError) as error:
        raise InputError(
            f"the device did not print the times of {steps} steps ({error}); got {lines[:2]!r}"
        ) from None


def layer_seconds(steps: Sequence[str], times: StepTimes) -> dict[str, float]:
    """Seconds by layer: the sum over the steps that count for it (`steps`: a layer for each).

    Their sum over all layers is what the whole network takes.
    """
    totals: dict[str, float] = {}
    for layer, seconds in zip(steps, times.seconds, strict=True):
        totals[layer] = totals.get(layer, 0.0) + seconds
    return totals


def median_of_rounds(rounds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The median of each layer over rounds: a round that was disturbed does not count."""
    all_rounds = list(rounds)
    return {layer: median(one[layer] for one in all_rounds) for layer in all_rounds[0]}

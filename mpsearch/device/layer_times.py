"""From times of steps, measured on a device, to seconds of layers."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from mpsearch.errors import InputError


@dataclass(frozen=True)
class StepTimes:
    """Median seconds of each step of one program, in order, and of a whole run with its clocks.

    Reading the clock is taken off every step.
    """

    seconds: tuple[float, ...]
    whole_s: float
    runs: int


def parse_step_times(text: str, steps: int) -> StepTimes:
    """What step_times.c prints: one JSON line a step, then one for the whole run.

    Raises InputError for anything else, for it comes from another machine.
    """
    try:
        lines = [json.loads(line) for line in text.splitlines()]
        *times, last = lines
        if [line["step"] for line in times] != list(range(1, steps + 1)):
            raise ValueError("steps are missing")
        clock = _count(last["clock_ns"])
        seconds = tuple(max(0, _count(line["median_ns"]) - clock) * 1e-9 for line in times)
        return StepTimes(seconds, _count(last["whole_ns"]) * 1e-9, _count(last["runs"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the device did not print the times of {steps} steps ({error}); got {text[:80]!r}"
        ) from None


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise ValueError(f"{value!r} is not a number of nanoseconds")
    return value


def layer_seconds(steps: Sequence[Mapping[str, Any]], times: StepTimes) -> dict[str, float]:
    """Seconds by layer: the sum over the steps that count for it (`steps` of export.json).

    Their sum over all layers is what the whole network takes.
    """
    totals: dict[str, float] = {}
    for step, seconds in zip(steps, times.seconds, strict=True):
        totals[step["layer"]] = totals.get(step["layer"], 0.0) + seconds
    return totals


def median_of_rounds(rounds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The median of each layer over rounds: a round that was disturbed does not count."""
    all_rounds = list(rounds)
    return {layer: median(one[layer] for one in all_rounds) for layer in all_rounds[0]}

"""Meters of known power for tests: what a real one shows, with its noise, averaging and faults."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from mpsearch.device.power import PowerError, Recording, Sample
from mpsearch.device.readings import Window

BEGIN = 1_780_000_000.0  # an ordinary moment
IDLE_MW, LOAD_MW = 2700.0, 798.0
INFERENCES = 1250


@dataclass(frozen=True)
class Setting:
    """idle 10 s, a pause, a run, a tail. hz: samples per second. averaging: a sample is the mean
    over the time since the last one. noise: standard deviation in mW, correlated over `memory`
    seconds. phase: of the first sample, as part of a step. before: so many seconds of other work
    that end 2 s before the idle time; with it 25 s are recorded at both sides."""

    hz: float = 10.0
    averaging: bool = False
    noise: float = 30.0
    memory: float = 0.0
    load: float = LOAD_MW
    phase: float = 0.3
    idle_seconds: float = 10.0
    run_seconds: float = 10.0
    pause: float = 0.4
    step: float = 0.1
    before: float = 0.0

    @property
    def idle(self) -> Window:
        return Window(BEGIN, BEGIN + self.idle_seconds)

    @property
    def run(self) -> Window:
        start = self.idle.end + self.pause
        return Window(start, start + self.run_seconds)

    @property
    def joules(self) -> float:
        """The truth, from the definition: watts above idle times seconds, by inferences."""
        return self.load / 1000 * self.run_seconds / INFERENCES

    def samples(self, seed: int = 0) -> list[Sample]:
        """What the meter shows from 2 s before the idle time to 2 s after the run, or longer."""
        around = 25 if self.before else 2
        random = np.random.default_rng(seed)
        times = np.arange(BEGIN - around, self.run.end + around, 1 / self.hz) + self.phase / self.hz
        power = IDLE_MW + self._load(times) + self._noise(random, len(times))
        shown = np.round(power / self.step) * self.step
        return list(zip(times.tolist(), shown.tolist(), strict=True))

    def _load(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        if not self.averaging:
            busy = (times >= self.run.start) & (times < self.run.end)
            busy |= (times >= BEGIN - 2 - self.before) & (times < BEGIN - 2)
            return busy * np.float64(self.load)
        begins = times - 1 / self.hz
        overlap = np.minimum(times, self.run.end) - np.maximum(begins, self.run.start)
        shown: NDArray[np.float64] = self.load * np.maximum(overlap, 0) * self.hz
        return shown

    def _noise(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        keep = math.exp(-1 / (self.hz * self.memory)) if self.memory else 0.0
        noise, value = np.empty(count), random.normal()
        for n in range(count):
            noise[n] = value
            value = keep * value + math.sqrt(1 - keep**2) * random.normal()
        return self.noise * noise


@dataclass(frozen=True)
class FakeMeter:
    """Gives what `power_at` says, without waiting; fails where that raises."""

    power_at: Callable[[float], float]
    hz: float = 10.0
    text: str = "fake"
    notes: tuple[str, ...] = ()
    same_clock: bool = True

    @contextlib.contextmanager
    def record(self) -> Iterator[Recording]:
        yield self

    def ready(self) -> None:
        """At once."""

    def check(self) -> None:
        """Never fails."""

    def samples(self, since: float, until: float) -> list[Sample]:
        times = np.arange(since, until + 1 / self.hz, 1 / self.hz)
        return [(float(t), self.power_at(float(t))) for t in times]


def message_of(call: Callable[[], object]) -> str:
    """The text of the PowerError that the call must raise, which is one or two short lines."""
    with pytest.raises(PowerError) as caught:
        call()
    text = str(caught.value)
    assert len(text) < 420
    assert text.count("\n") < 2
    assert text.isprintable()
    return text

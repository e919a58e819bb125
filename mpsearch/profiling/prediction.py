"""How long a profile takes and how much memory, before it is made: a part of it is, and timed.

For metrics of the outputs m of the n layers are prepared as in a profile and run on two batches.

    passes over all data (histograms, signals, moments)   take as long for all layers
    ranges                                                R(1) for one layer, R(m) for m: a line
    rounding                                              Q for the m, by `work_of` for all
    reruns                                                T of the m layers on the second batch

    seconds = passes + R(m) + (n − m)(R(m) − R(1))/(m − 1) + Q · W/w + T · batches · n/m

with w and W the work of the m and of all. Other metrics are begun, and their steps are counted: a
step of theirs is a pass over a batch, as a rule.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import Any

from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network
from mpsearch.post_training.quantizing import work_of
from mpsearch.running.journal import Journal
from mpsearch.sensitivity.cells import extent, input_moments, together
from mpsearch.sensitivity.forward_metric import OutputMetric
from mpsearch.sensitivity.study import Profiler, Study
from mpsearch.tables.choice import by_weights

_LAYERS = 4  # that are tried
_HEAVY = 8.0  # times the median work: such a layer is not tried, as it may take minutes
_SECONDS = 5.0  # that other metrics are tried for, and two steps at least


@dataclass(frozen=True)
class Prediction:
    """What a profile will take."""

    seconds: float
    """For the metric, without loading the model."""
    more_bytes: int
    """Of memory beyond what the trial took."""
    tried: int
    """Layers, or steps, that were timed."""
    of: int
    """So many there are."""
    at_most: bool
    """Whether it may end sooner, because an estimate is good enough."""
    unit: str = "layers"
    """What was tried: `layers` or `steps`."""


class _EnoughError(Exception):
    """Raised where a step would begin that need not be timed."""


@dataclass(frozen=True)
class _Part(Network):
    """A network of which only some layers are quantized."""

    chosen: tuple[Layer, ...] = ()

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """These layers alone."""
        return self.chosen


def predict(
    profiler: Profiler, study: Study, clock: Callable[[], float] = time.perf_counter
) -> Prediction:
    """Try a part of `profiler.score(study)`. Raises InputError as that does."""
    if isinstance(profiler, OutputMetric):
        return _by_layers(profiler, study, clock)
    return _by_steps(profiler, study, clock)


def tried_layers(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """A few of them, evenly from first to last, but for those that take far more work."""
    most = _HEAVY * median(map(work_of, layers))
    usual = [layer for layer in layers if work_of(layer) <= most]
    count = min(_LAYERS, len(usual))
    places = {round(i * (len(usual) - 1) / max(1, count - 1)) for i in range(count)}
    return tuple(usual[place] for place in sorted(places))


def _by_layers(profiler: OutputMetric, study: Study, clock: Callable[[], float]) -> Prediction:
    layers = study.network.layers
    chosen = tried_layers(layers)
    m, n, batches = len(chosen), len(layers), study.batch_count

    def timed(compute: Callable[[], object]) -> float:
        before = clock()
        compute()
        return clock() - before

    one, part = _part(study, chosen[:1]), _part(study, chosen)
    histograms, signals = timed(lambda: part.histograms), timed(lambda: profiler.measure(part))
    _ = one.histograms
    first, ranges = timed(lambda: one.quantizers), timed(lambda: part.quantizers)
    inputs = {name: own.values() for name, own in part.quantizers.items()}
    moments = timed(lambda: input_moments(part, chosen, inputs))
    times = _begin(profiler, part, clock, lambda times: len(times) > 2 * m)
    batch = times[-1] - times[m] if batches > 1 else 0.0
    rounding = max(0.0, times[m] - times[0] - 2 * signals - moments - batch)
    share = sum(map(work_of, chosen)) / sum(map(work_of, layers))
    each = max(0.0, ranges - first) / (m - 1) if m > 1 else ranges
    seconds = histograms + 2 * signals + moments + rounding / share
    seconds += ranges + each * (n - m) + batch * batches * n / m
    return Prediction(seconds, _more_bytes(study, chosen), m, n, at_most=False)


def _part(study: Study, layers: tuple[Layer, ...]) -> Study:
    """The study of these layers alone."""
    given: dict[str, Any] = {one.name: getattr(study.network, one.name) for one in fields(Network)}
    return replace(study, network=_Part(**given, chosen=layers))


def _by_steps(profiler: Profiler, study: Study, clock: Callable[[], float]) -> Prediction:
    times = _begin(
        profiler, study, clock,
        lambda times: len(times) > 2 and times[-1] - times[0] > _SECONDS,
    )  # fmt: skip
    done, steps = len(times) - 1, max(len(times) - 1, profiler.steps(study))
    each = [after - before for before, after in pairwise(times)]
    usual = median(each[1:]) if done > 1 else 0.0
    seconds = times[-1] - times[0] + usual * (steps - done)
    batches, n = study.batch_count, len(study.network.layers)
    at_most = steps not in (batches, n, batches * n)  # rounds of probes, as many as there can be
    return Prediction(seconds, 0, done, steps, at_most, "steps")


def _begin(
    profiler: Profiler,
    study: Study,
    clock: Callable[[], float],
    is_enough: Callable[[list[float]], bool],
) -> list[float]:
    """The time at which the metric begins, and after each of its steps until there are enough."""
    times = [clock()]

    def step() -> None:
        times.append(clock())
        if is_enough(times):
            raise _EnoughError

    with Journal(None, "") as journal, contextlib.suppress(_EnoughError):
        profiler.score(study, journal, step)
    return times


def _more_bytes(study: Study, chosen: tuple[Layer, ...]) -> int:
    """Of what is kept of all layers: moments of their inputs as long as they are rounded, their
    codes at every width of weights; and the largest layer's weights at every choice."""
    network = study.network
    whole = together(study, network.layers)
    moments = sum(extent(study, one).bytes for one in whole)
    moments -= sum(extent(study, one).bytes for one in chosen)
    rest = [layer.weights for layer in network.layers if layer not in chosen]
    codes = sum(rest) * len(by_weights(study.choices))
    tried = max(layer.weights for layer in chosen)
    restored = 4 * len(study.choices) * max(0, max(rest, default=0) - tried)
    return max(0, moments) + codes + restored

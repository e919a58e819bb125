"""Hessian traces of all layers over a data set: exact where possible, sampled to a bound elsewhere.

Tr(H_i) = Tr(G_i) + Tr(R_i), Gauss-Newton part and residual part. R_i vanishes where the outputs are
piecewise linear in the layer's weights, and for every layer where the loss is the divergence from
the network's own predictions (its gradient in the outputs is zero there). Tr(G_i) is exact for up
to `MOST_EXACT_CLASSES` classes. What remains is estimated in rounds of probes, until each layer's
standard error, times what one unit of trace contributes to its Ω, is below rtol × max(its own Ω,
the layers' mean Ω): a layer that contributes little need not be known well, and no layer hides
behind the total.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mpsearch.data import Batch
from mpsearch.errors import InputError
from mpsearch.journal import Journal
from mpsearch.layers import Layer
from mpsearch.profiler import Study
from mpsearch.sensitivity.gauss_newton import sampled_traces, trace_sums
from mpsearch.sensitivity.hutchinson import residual_traces
from mpsearch.sensitivity.linearity import piecewise_linear
from mpsearch.sensitivity.probing import Moments, estimate

# Exact costs C - 1 backward passes and has no error; sampling costs 8 per round, and mostly stops
# after one to four rounds at 5 %. Beyond 32 classes sampling is cheaper.
MOST_EXACT_CLASSES = 32
ROUND = 8  # probes


@dataclass(frozen=True)
class Trace:
    """Trace of one layer's Hessian block of the mean loss, with its standard error and the
    Gauss-Newton part of it; `probes` is 0 where nothing is estimated."""

    value: float
    stderr: float
    gauss_newton: float
    gauss_newton_stderr: float
    probes: int


def split(study: Study) -> tuple[list[Layer], list[Layer]]:
    """(layers whose Hessian block equals its Gauss-Newton block, the others)."""
    equal: list[Layer] = []
    smooth: list[Layer] = []
    for layer in study.network.layers:
        vanishes = not study.loss.uses_labels or piecewise_linear(study.network.graph, layer)
        (equal if vanishes else smooth).append(layer)
    return equal, smooth


def is_sampled(study: Study) -> bool:
    """True when there are too many classes for exact Gauss-Newton traces."""
    return study.network.output_shape[0] > MOST_EXACT_CLASSES


def traces(
    study: Study, weights: Mapping[str, float], journal: Journal, step: Callable[[], None]
) -> dict[str, Trace]:
    """Trace of every layer by name. `weights`: Ω of the layer per unit of trace.

    Pieces go to the journal per batch and round. `step` is called once per batch: in the first
    round, or with the exact traces. Raises InputError when a trace is not finite.
    """
    n = len(study.data)
    _, smooth = split(study)
    sampled = is_sampled(study)
    exact: dict[str, float] = dict.fromkeys((layer.name for layer in study.network.layers), 0.0)
    for index, batch in _batches(study):
        if not sampled:
            key = f"exact batch {index}"
            sums = journal.get(key)
            if sums is None:
                sums = trace_sums(study.network, batch[0])
                journal.put(key, sums)
            for name, value in sums.items():
                exact[name] += value / n
        step()
    result = {name: Trace(value, 0.0, value, 0.0, 0) for name, value in exact.items()}
    _check(result)
    active = list(study.network.layers) if sampled else smooth
    samples = {layer.name: _Samples() for layer in active}
    done = 0
    while active and done < study.max_probes:
        probes = min(ROUND, study.max_probes - done)
        keys = range(done, done + probes)
        _round(study, active, keys, samples, journal)
        done += probes
        for layer in active:
            result[layer.name] = samples[layer.name].trace(exact[layer.name], n, done)
        _check(result)
        active = [
            layer for layer in active if not within_bound(layer.name, result, weights, study.rtol)
        ]
    return result


def within_bound(
    name: str, traces: Mapping[str, Trace], weights: Mapping[str, float], rtol: float
) -> bool:
    """True when the layer's Ω is known to rtol × max(its |Ω|, mean |Ω| of the layers)."""
    omegas = {layer: abs(trace.value) * weights[layer] for layer, trace in traces.items()}
    bound = rtol * max(omegas[name], sum(omegas.values()) / len(omegas))
    return traces[name].stderr * weights[name] <= bound


class _Samples:
    """What a layer's rounds measured so far, batch by batch."""

    def __init__(self) -> None:
        self.gauss_newton: list[list[Moments]] = []
        self.residual: list[list[Moments]] = []

    def trace(self, exact: float, n: int, probes: int) -> Trace:
        value, stderr = estimate(self.gauss_newton) if self.gauss_newton else (exact * n, 0.0)
        more, more_stderr = estimate(self.residual) if self.residual else (0.0, 0.0)
        both = (stderr**2 + more_stderr**2) ** 0.5
        return Trace((value + more) / n, both / n, value / n, stderr / n, probes)


def _round(
    study: Study,
    active: list[Layer],
    probes: range,
    samples: Mapping[str, _Samples],
    journal: Journal,
) -> None:
    """One round of probes for the active layers: from the journal, or measured and journaled."""
    smooth = {layer.name for layer in split(study)[1]}
    curved = [layer for layer in active if layer.name in smooth]
    for layer in active:
        samples[layer.name].gauss_newton += [[]] if is_sampled(study) else []
        samples[layer.name].residual += [[]] if layer.name in smooth else []
    for index, (inputs, labels) in _batches(study):
        key = f"probes {probes.start} to {probes.stop - 1} batch {index}"
        piece = journal.get(key)
        if piece is None:
            keys = [f"{study.seed} {index} {probe}" for probe in probes]
            piece = {"gauss_newton": {}, "residual": {}}
            if is_sampled(study):
                found = sampled_traces(study.network, inputs, active, keys)
                piece["gauss_newton"] = _plain(found)
            if curved:
                found = residual_traces(study.network, study.loss, (inputs, labels), curved, keys)
                piece["residual"] = _plain(found)
            journal.put(key, piece)
        for name, (total, scatter) in piece["gauss_newton"].items():
            samples[name].gauss_newton[-1].append(Moments(len(probes), total, scatter))
        for name, (total, scatter) in piece["residual"].items():
            samples[name].residual[-1].append(Moments(len(probes), total, scatter))


def _plain(found: Mapping[str, Moments]) -> dict[str, list[float]]:
    return {name: [moments.total, moments.scatter] for name, moments in found.items()}


def _batches(study: Study) -> Iterator[tuple[int, Batch]]:
    return enumerate(study.data.batches(study.batch_size))


def _check(traces: Mapping[str, Trace]) -> None:
    for name, trace in traces.items():
        if not abs(trace.value) + trace.stderr < float("inf"):
            raise InputError(
                f"the Hessian trace of layer {name} is {trace.value}; expected a finite number: "
                "check the network's weights and the data for NaN, infinite or huge values"
            )

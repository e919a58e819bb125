"""The range of a layer's input activations: four rules on its histogram, and one that measures.

Every range holds zero exactly, and is one-sided where the data are: zero_point 0 after ReLU.

Ranges by measurement: of every layer's input the one that the network's outputs suffer least.

A layer's own error does not know what the next layers make of it. MLPerf Tiny's DS-CNN reads
cepstral coefficients of which one, the energy, is ten times the others and matters little: by the
squared error 4 bits go to its range and none to the others (32 % of clips right with 4-bit
activations everywhere; 81 % where the outputs decide).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from mpsearch.data import Data
from mpsearch.errors import InputError, did_you_mean
from mpsearch.graph.layers import EMBEDDING, Layer, packet
from mpsearch.graph.network import Network
from mpsearch.graph.outputs import split_outputs
from mpsearch.graph.partial_forward import PartialForward
from mpsearch.quantization.calibration import Histogram
from mpsearch.quantization.quantizer import (
    FLOAT_BITS,
    ActivationQuantizer,
    affine,
    check_bits,
    histogram_error,
)
from mpsearch.tables.choice import Choice

METHODS = ("auto", "mse", "minmax", "percentile", "entropy", "measured")
MEASURING = ("auto", "measured")  # those that look at the network's outputs
PERCENT = 99.99  # what `percentile` alone means
_MEASURED = (
    "mse",
    "minmax",
    "percentile",
    "percentile:99.9",
    "entropy",
)  # what `measured` compares
_COST_OF_ENTROPY = 4.0  # in squared error, over minmax: 6 dB, a bit
_FRACTIONS = np.linspace(1.0, 0.1, 91)


def check_method(method: str) -> str:
    """`method` itself when it is known: one of METHODS or `percentile:99.9`. Else InputError."""
    name, colon, percent = method.partition(":")
    if name not in METHODS or (colon and name != "percentile"):
        raise InputError(
            f"unknown range method {method!r}{did_you_mean(name, METHODS)}; "
            f"expected {', '.join(METHODS)} or percentile:99.9"
        )
    if colon:
        _percent(percent)
    return method


def quantizer_of(histogram: Histogram, bits: int, method: str = "mse") -> ActivationQuantizer:
    """The quantizer whose range `method` takes from the histogram.

    - `minmax`: the smallest and the largest value seen;
    - `percentile`: 99.99 % of the values, or `percentile:99.9`; half of the rest at either end,
      all of it at the top of a one-sided tensor;
    - `mse`: the least squared error (`quantizer.activation_quantizer`);
    - `entropy`: the least Kullback-Leibler divergence of the quantized histogram from the clipped
      one (Migacz, "8-bit Inference with TensorRT", GTC 2017), both ends searched in turn, among the
      ranges whose squared error is at most four times that of `minmax`: one bit of resolution.

    Raises InputError for unknown methods and bits, and for `auto` and `measured`, which need data.
    """
    name, _, percent = check_method(method).partition(":")
    if check_bits(bits) == FLOAT_BITS or name == "mse":
        return histogram.quantizer(bits)
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if low == high:
        return ActivationQuantizer(bits, 1.0, 0)
    if name == "minmax":
        return affine(bits, low, high)
    if name == "percentile":
        return affine(bits, *_percentiles(histogram, _percent(percent) if percent else PERCENT))
    if name == "entropy":
        return _least_divergence(histogram, bits, low, high)
    raise InputError(f"the range method {name} measures on data; it has no answer for a histogram")


def choose_quantizers(
    network: Network,
    choices: Mapping[str, Choice],
    histograms: Mapping[str, Histogram],
    method: str,
    data: Data,
    batch_size: int = 64,
) -> dict[str, ActivationQuantizer]:
    """Every layer's input quantizer at its choice's a_bits, by `method`.

    `measured` takes, for each layer, the range that the network's outputs on `data` suffer least
    (`measured_ranges`), beginning with what the other methods give. `auto` does so below 8 bits,
    beginning with `mse`, which it takes from 8 bits on.
    """
    by_method = {
        layer.name: [
            quantizer_of(histograms[layer.name], choices[layer.name].a_bits, each)
            for each in {"measured": _MEASURED, "auto": ("mse",)}.get(method, (method,))
        ]
        for layer in network.layers
    }
    if method not in MEASURING:
        return {name: found[0] for name, found in by_method.items()}
    return measured_quantizers(network, choices, by_method, histograms, data, batch_size)


def _percent(text: str) -> float:
    try:
        percent = float(text)
    except ValueError:
        percent = 0.0
    if not 50 < percent <= 100:
        raise InputError(f"got percentile:{text}; expected a number above 50 and at most 100")
    return percent


def _percentiles(histogram: Histogram, percent: float) -> tuple[float, float]:
    """(low, high) that hold `percent` of the values, by linear interpolation inside the bins."""
    low, high = histogram.low, histogram.high
    if low == high:
        return min(low, 0.0), max(high, 0.0)
    edges = np.linspace(low, high, len(histogram.counts) + 1)
    below = np.concatenate([[0], np.cumsum(histogram.counts)]) / histogram.counts.sum()
    left_out = 1 - percent / 100
    bottom, top = left_out / 2, 1 - left_out / 2
    if low >= 0:
        bottom, top = 0.0, 1 - left_out
    elif high <= 0:
        bottom, top = left_out, 1.0
    ends = np.interp([bottom, top], below, edges)
    found = min(float(ends[0]), 0.0), max(float(ends[1]), 0.0)
    if found[1] - found[0] <= edges[1] - edges[0]:  # nearly all are zero: keep the few others
        return min(low, 0.0), max(high, 0.0)
    return found


def _least_divergence(
    histogram: Histogram, bits: int, low: float, high: float
) -> ActivationQuantizer:
    edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
    centres, counts = (edges[:-1] + edges[1:]) / 2, histogram.counts.astype(np.float64)
    # The divergence says little of few different values: what is cut off may look like noise beside
    # counts that are noise themselves. So what it costs is bounded.
    most = _COST_OF_ENTROPY * histogram_error(centres, counts, affine(bits, low, high))
    whole, everything = centres, counts.copy()
    if histogram.low <= 0.0 <= histogram.high:
        # Zero is exact in every range, and after ReLU most values are zero: its bin says nothing
        # about the range, so it counts as much as its neighbours.
        zero = int(np.clip(np.searchsorted(edges, 0.0, side="right") - 1, 0, len(counts) - 1))
        around = counts[max(0, zero - 1) : zero + 2].sum() - counts[zero]
        counts[zero] = around / max(1, len(counts[max(0, zero - 1) : zero + 2]) - 1)
    used = counts > 0
    centres, counts = centres[used], counts[used]
    best = (np.inf, low, high)
    if not used.any():
        return affine(bits, low, high)
    for _ in range(2 if low < 0 < high else 1):
        for moves_low in (False, True):
            for fraction in _FRACTIONS:
                lo, hi = (low * fraction, best[2]) if moves_low else (best[1], high * fraction)
                if hi - lo <= 0:
                    continue
                quantizer = affine(bits, lo, hi)
                divergence = _divergence(centres, counts, quantizer)
                if divergence < best[0] and histogram_error(whole, everything, quantizer) <= most:
                    best = (divergence, lo, hi)
    return affine(bits, best[1], best[2])


def _divergence(centres: np.ndarray, counts: np.ndarray, quantizer: ActivationQuantizer) -> float:
    """KL(P, Q): P clipped, what was cut off at its ends; Q evenly spread within each code."""
    codes = np.rint(centres / quantizer.scale) + quantizer.zero_point
    inside = (codes >= 0) & (codes <= 2**quantizer.bits - 1)
    if not inside.any():
        return float(np.inf)
    kept, groups = counts[inside], codes[inside].astype(np.int64)
    clipped = kept.copy()
    first, last = np.flatnonzero(inside)[[0, -1]]
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last + 1 :].sum()
    spread = (np.bincount(groups, kept) / np.maximum(np.bincount(groups), 1))[groups]
    p, q = clipped / clipped.sum(), spread / spread.sum()
    return float(np.sum(p * np.log(p / q)))


_SAMPLES = 64  # each candidate is a pass over them, from its layer on
_FINE = 8  # bits from which on the rules' candidates do, and ends are not searched
_MEASURED_FRACTIONS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.22, 0.16)
Error = Callable[[ActivationQuantizer], float]


def measured_quantizers(
    network: Network,
    choices: Mapping[str, Choice],
    candidates: Mapping[str, Sequence[ActivationQuantizer]],
    histograms: Mapping[str, Histogram],
    data: Data,
    batch_size: int = 64,
) -> dict[str, ActivationQuantizer]:
    """Of each layer's candidates the one with the least error of the network's outputs.

    The error is Σ over outputs of ‖f̂ - f‖² / ‖f‖² when only this layer's input is quantized, on at
    most 64 samples. Below 8 bits both ends are then searched in turn, from what was seen down to
    16 % of it. On a tie the earlier candidate wins.
    """
    errors: OutputErrors | None = None
    nodes = {node.name: node for node in network.graph.graph.nodes}
    found = {}
    for layer in network.layers:
        tried = list(dict.fromkeys(candidates[layer.name]))
        if all(packet(nodes[name]) == EMBEDDING for name in layer.nodes):
            tried = tried[:1]  # indices are not quantized
        bits, histogram = choices[layer.name].a_bits, histograms[layer.name]
        if len(tried) == 1 and bits >= _FINE:
            found[layer.name] = tried[0]
            continue
        errors = errors or OutputErrors(network, data.take(_SAMPLES, 0), batch_size)
        known = {quantizer: errors(layer, quantizer) for quantizer in tried}
        best = min(known, key=known.__getitem__)
        if bits < _FINE and histogram.low < histogram.high:
            best = _searched(best, known[best], histogram, partial(errors, layer))
        found[layer.name] = best
    return found


def _searched(
    best: ActivationQuantizer, error: float, histogram: Histogram, measure: Error
) -> ActivationQuantizer:
    """The better of `best` and of ranges whose ends move one after the other, twice."""
    bottom, top = min(histogram.low, 0.0), max(histogram.high, 0.0)
    ends = [end for end, there in ((0, bottom < 0), (1, top > 0)) if there]
    for end in ends * len(ends):
        low = -best.scale * best.zero_point
        high = best.scale * (2**best.bits - 1 - best.zero_point)
        for fraction in _MEASURED_FRACTIONS:
            tried = (bottom * fraction, high) if end == 0 else (low, top * fraction)
            quantizer = affine(best.bits, *tried)
            found = measure(quantizer)
            if found < error:
                best, error = quantizer, found
    return best


class OutputErrors:
    """`errors(layer, quantizer)`: how far the outputs are from FP32's with that input quantized."""

    def __init__(self, network: Network, data: Data, batch_size: int = 64) -> None:
        device = network.device
        self.network = network
        self.forward = PartialForward(network.graph, data.inputs)
        self.runs = [
            self.forward.run(tuple(x.to(device) for x in inputs))
            for inputs, _ in data.batches(batch_size)
        ]
        self.exact = torch.cat([self.forward.logits(values) for values in self.runs])

    def __call__(self, layer: Layer, quantizer: ActivationQuantizer) -> float:
        """Σ over outputs of ‖f̂ - f‖² / ‖f‖²."""

        def quantized(
            node: torch.fx.Node, arguments: tuple[torch.Tensor, ...], _: int
        ) -> tuple[torch.Tensor, ...]:
            if packet(node) == EMBEDDING:
                return arguments
            return (quantizer.fake_quantize(arguments[0]), *arguments[1:])

        rough = [self.forward.rerun(layer, values, quantized, 1)[0] for values in self.runs]
        exact = split_outputs(self.network.outputs, self.exact)
        difference = split_outputs(self.network.outputs, torch.cat(rough) - self.exact)
        return sum(
            float(part.double().square().sum()) / (float(exact[name].double().square().sum()) or 1)
            for name, part in difference.items()
        )

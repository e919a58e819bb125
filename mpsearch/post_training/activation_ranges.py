"""The range of a layer's input activations: four rules on its histogram, and one that measures.

Every range holds zero exactly, and is one-sided where the data are: zero_point 0 after ReLU.
"""

from collections.abc import Mapping

import numpy as np

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.network import Network
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
            f"unknown range method {method!r}; expected {', '.join(METHODS)} or percentile:99.9"
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
    from mpsearch.post_training.measured_ranges import measured_quantizers

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

"""The range of every tensor of a quantized network on calibration data, as far as it survives.

A tensor may saturate where nobody can tell: sat(x) = min(max(x, low), high) is monotone and works
element by element, so sat(f(x)) = f(sat(x)) for every move f (clamps, max-pooling, padding with a
saturated constant, slices, concatenation). What matters of a tensor that is only moved is the range
of what others read in the end: a padding of -1e9 in front of a max-pool is as good as any number
below all results of the pool.
"""

import math

import numpy as np
import torch
from torch import fx

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.layers import argument, packet
from mpsearch.integer.operators import (
    MOVES,
    SOFTMAXES,
    SUPPORTED,
    adds_at_one_scale,
    per_sample,
    sources,
)
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantizer import ActivationQuantizer

Range = tuple[float, float]
Ranges = dict[str, Range]

_EVERYTHING = (-math.inf, math.inf)
# Beyond these a function changes by less than 2^-15, or is x itself or nothing.
_LEVEL = {
    "sigmoid": (-12.0, 12.0), "tanh": (-6.0, 6.0), "hardsigmoid": (-3.0, 3.0),
    "hardswish": (-3.0, math.inf), "silu": (-14.0, math.inf), "mish": (-14.0, math.inf),
    "gelu": (-6.0, math.inf), "softplus": (-12.0, math.inf), "exp": (-12.0, math.inf),
}  # fmt: skip
_NO_PROBABILITY = 31 * math.log(2)  # below the largest logit: the integer softmax gives zero


class InfiniteValuesError(InputError):
    """Integers cannot stand for a tensor, and it is not only moved."""


class _Recorder(fx.Interpreter):
    """Runs the graph and widens the range of every node that gives a tensor of real numbers.

    `peaks`: the smallest of the largest values along the axis that a softmax or arg-max reads.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.ranges: Ranges = {}
        self.peaks: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if packet(n) in {*SOFTMAXES, "argmax"} and argument(n, "dim") is not None:
            logits = self.fetch_args_kwargs_from_env(n)[0][0]
            peak = float(logits.amax(argument(n, "dim")).min())
            self.peaks[n.name] = min(peak, self.peaks.get(n.name, peak))
        if isinstance(value, torch.Tensor) and value.dtype == torch.bool:
            self.ranges[n.name] = (0.0, 1.0)
        elif isinstance(value, torch.Tensor) and n.op != "get_attr" and value.is_floating_point():
            low, high = (float(end) for end in torch.aminmax(value))
            old = self.ranges.get(n.name, (low, high))
            # numpy's keep what is not a number
            self.ranges[n.name] = (
                float(np.minimum(low, old[0])), float(np.maximum(high, old[1]))
            )  # fmt: skip
        return value


def tensor_ranges(quantized: QuantizedNetwork, data: Data, batch_size: int) -> Ranges:
    """Node name -> (smallest, largest value) that matters, of those that the fake-quantized network
    computes on `data`.

    Read by a move, that of the move's result; by a layer, the ends of its quantizer; by an
    addition with sum [l, h], of its operand a: [l - max b, h - min b], beyond which the sum
    saturates too; by a softmax, what is not a probability of zero; by everything else, all of it.
    Raises InfiniteValuesError naming a node where infinite values, or NaN, matter.
    """
    recorder = _Recorder(quantized.graph)
    with torch.no_grad():
        for inputs, _ in data.batches(batch_size):
            recorder.run(*inputs)
    quantizers = {
        node: quantized.layers[layer.name].activation
        for layer in quantized.source.layers
        for node in layer.nodes
    }
    computed = set(per_sample(quantized.source.graph.graph))
    ranges: Ranges = recorder.ranges
    matters: Ranges = {}
    for node in reversed(quantized.source.graph.graph.nodes):
        if node.op == "output":
            read = [(node.args[0], _EVERYTHING)]
        elif node in computed and packet(node) in SUPPORTED:
            read = _read(node, quantizers, ranges, recorder.peaks, matters)
        else:
            continue
        for source, limit in read:
            if source.name in ranges:
                kept = _within(ranges[source.name], limit)
                matters[source.name] = _widened(matters.get(source.name, kept), kept)
    for name, ends in matters.items():
        if not all(map(math.isfinite, ends)):
            raise InfiniteValuesError(
                f"node {name!r} gives infinite values, or what is not a number, and they are not "
                "only moved: integers cannot stand for them; use a finite constant there"
            )
    return matters


def _read(
    node: fx.Node,
    quantizers: dict[str, ActivationQuantizer],
    ranges: Ranges,
    peaks: dict[str, float],
    matters: Ranges,
) -> list[tuple[fx.Node, Range]]:
    """What a node reads, each with the range beyond which it makes no difference."""
    read, kind = sources(node), packet(node)
    low, high = matters.get(node.name, _EVERYTHING)
    limit = _EVERYTHING
    if node.name in quantizers:
        quantizer = quantizers[node.name]
        limit = (
            -quantizer.zero_point * quantizer.scale,
            (2**quantizer.bits - 1 - quantizer.zero_point) * quantizer.scale,
        )
    elif kind in MOVES:
        limit = (low, high)
    elif kind in SOFTMAXES and node.name in peaks:
        limit = (peaks[node.name] - _NO_PROBABILITY, math.inf)
    elif kind == "argmax" and node.name in peaks:
        limit = (2 * min(peaks[node.name], 0.0), math.inf)
    elif kind in _LEVEL:
        limit = _LEVEL[kind]
    elif adds_at_one_scale(node):
        ends = [ranges.get(source.name, _EVERYTHING) for source in reversed(read)]
        return [
            (source, (low - max(other[1], 0.0), high - min(other[0], 0.0)))
            for source, other in zip(read, ends, strict=True)
        ]
    return [(source, limit) for source in read]


def _within(seen: Range, limit: Range) -> Range:
    """The ends of `seen`, moved into `limit`; what is not a number stays."""
    low, high = (float(np.minimum(np.maximum(end, limit[0]), limit[1])) for end in seen)
    return low, high


def _widened(known: Range, more: Range) -> Range:
    return float(np.minimum(known[0], more[0])), float(np.maximum(known[1], more[1]))

"""Ranges by measurement: of every layer's input the one that the network's outputs suffer least.

A layer's own error does not know what the next layers make of it. MLPerf Tiny's DS-CNN reads
cepstral coefficients of which one, the energy, is ten times the others and matters little: by the
squared error 4 bits go to its range and none to the others (32 % of clips right with 4-bit
activations everywhere; 81 % where the outputs decide).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from mpsearch.data import Data
from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network
from mpsearch.graph.operators import EMBEDDING, packet
from mpsearch.graph.outputs import split_outputs
from mpsearch.graph.partial_forward import PartialForward
from mpsearch.quantization.calibration import Histogram
from mpsearch.quantization.quantizer import ActivationQuantizer, affine
from mpsearch.tables.choice import Choice

_SAMPLES = 64  # each candidate is a pass over them, from its layer on
_FINE = 8  # bits from which on the rules' candidates do, and ends are not searched
_FRACTIONS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.22, 0.16)
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
        for fraction in _FRACTIONS:
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

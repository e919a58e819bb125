"""Quantizers for what is stored between layers: the last stage of post-training quantization.

Which tensors these are is the graph's matter (`integer.stored`). Each gets the range with the least
squared error of what it is in the quantized network, or the quantizer of a layer of as many bits
that reads it; others of that width take it over, so that nothing is stored twice. Eight bits, and
sixteen where the network's own outputs on the calibration data say so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.network import Network
from mpsearch.integer.ranges import InfiniteValuesError, tensor_ranges
from mpsearch.integer.stored import BYTE, SHORT, StoredTensor, stored_tensors
from mpsearch.post_training.kept_repairs import MOST_TRIALS
from mpsearch.quantization.calibration import Histogram, calibrate_nodes
from mpsearch.quantization.quantized import (
    QuantizedLayer,
    QuantizedNetwork,
    assemble,
    with_activation,
)
from mpsearch.quantization.quantizer import FLOAT_BITS, ActivationQuantizer

Wide = Literal["auto", "8", "16", "32"]
WIDTHS = ("auto", "8", "16", "32")
# What 8 bits may add to the noise of the outputs: of that with 16 bits, or of the outputs' energy.
_SHARE, _OF_SIGNAL = 0.5, 1e-3


def check_wide(wide: str) -> str:
    """`wide` itself when it is one of WIDTHS. Else InputError."""
    if wide not in WIDTHS:
        raise InputError(f"got {wide!r} for the bits of stored tensors; expected auto, 8, 16 or 32")
    return wide


def has_stored_tensors(layers: Mapping[str, QuantizedLayer]) -> bool:
    """False where a layer is left in float: nothing runs that in integers."""
    choices = [layer.choice for layer in layers.values()]
    return not any(FLOAT_BITS in (choice.w_bits, choice.a_bits) for choice in choices)


def shared_quantizers(
    network: Network, quantizers: Mapping[str, ActivationQuantizer]
) -> dict[str, ActivationQuantizer]:
    """Layers' quantizers with one for all that will read the same codes: that of the first of them
    which reads the tensor itself."""
    found = dict(quantizers)
    a_bits = {name: quantizer.bits for name, quantizer in quantizers.items()}
    for tensor in stored_tensors(network.graph, network.layers, a_bits):
        fitting = [name for name in tensor.layers if a_bits[name] == tensor.bits()]
        first = next((name for name in fitting if name in tensor.direct), None)
        if first is not None:
            found |= dict.fromkeys(fitting, quantizers[first])
    return found


def store_tensors(
    network: Network,
    layers: Mapping[str, QuantizedLayer],
    data: Data,
    wide: str,
    noise: Callable[[QuantizedNetwork], float],
    batch_size: int = 64,
) -> QuantizedNetwork:
    """The quantized network with quantizers for its stored tensors, calibrated on `data`.

    `network` has the biases that the layers' codes are rounded from; `noise` measures (as
    `Yardstick`), and `wide` is one of WIDTHS: with 32, with layers in float, and where infinite
    values matter, nothing is stored.
    """
    if check_wide(wide) == "32" or not has_stored_tensors(layers):
        return assemble(network, layers)
    a_bits = {name: layer.choice.a_bits for name, layer in layers.items()}
    tensors = stored_tensors(network.graph, network.layers, a_bits)
    try:
        return _chosen(_Storing(network, layers, tensors, data, batch_size), wide, noise)
    except InfiniteValuesError:
        return assemble(network, layers)


def _chosen(
    storing: "_Storing", wide: str, noise: Callable[[QuantizedNetwork], float]
) -> QuantizedNetwork:
    """With the bits that `wide` asks for."""
    at, tensors = storing.at, storing.tensors
    if wide != "auto":
        return at({tensor.node: int(wide) for tensor in tensors})
    open_ones = [t.node for t in tensors if t.bits(BYTE) < t.bits(SHORT)]
    coarse = at({})
    if not open_ones:
        return coarse
    least = noise(at(dict.fromkeys(open_ones, SHORT)))
    most = least + max(_SHARE * least, _OF_SIGNAL)
    if noise(coarse) <= most:
        return coarse
    alone = {node: noise(at({node: SHORT})) for node in open_ones[:MOST_TRIALS]}
    bits = dict.fromkeys(open_ones[MOST_TRIALS:], SHORT)
    for node in sorted(alone, key=alone.__getitem__):  # the one that helps most comes first
        bits[node] = SHORT
        if noise(found := at(bits)) <= most:
            return found
    return at(dict.fromkeys(open_ones, SHORT))


@dataclass(frozen=True)
class _Storing:
    network: Network
    layers: Mapping[str, QuantizedLayer]
    tensors: Sequence[StoredTensor]
    data: Data
    batch_size: int

    @cached_property
    def histograms(self) -> Mapping[str, Histogram]:
        """Of all tensors, in the network with quantized layers, as far as their values matter."""
        quantized = assemble(self.network, self.layers)
        matter = tensor_ranges(quantized, self.data, self.batch_size)
        ranges = {tensor.node: matter.get(tensor.node, (0.0, 0.0)) for tensor in self.tensors}
        device = self.network.device
        return calibrate_nodes(quantized.graph, ranges, device, self.data, self.batch_size)

    def at(self, wanted: Mapping[str, int]) -> QuantizedNetwork:
        """The network with these bits, where the tensors may have them; 8 by default."""
        layers, stored = dict(self.layers), {}
        by_name = {layer.name: layer for layer in self.network.layers}
        for tensor in self.tensors:
            bits = tensor.bits(wanted.get(tensor.node, BYTE))
            fitting = [name for name in tensor.layers if layers[name].choice.a_bits == bits]
            known = next((layers[n].activation for n in fitting if n in tensor.direct), None)
            quantizer = known or self.histograms[tensor.node].quantizer(bits)
            stored[tensor.node] = quantizer
            of_width = {bits: quantizer}  # one copy for all layers of another width, too
            for name in tensor.layers:
                given = layers[name]
                shared = of_width.setdefault(given.choice.a_bits, given.activation)
                if given.activation != shared:
                    layers[name] = with_activation(
                        self.network, by_name[name], given.choice, given.weight, shared
                    )
        return assemble(self.network, layers, stored)

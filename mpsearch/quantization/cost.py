"""Size and BOPS of a whole assignment, from the network itself."""

from collections.abc import Mapping

from mpsearch.graph.network import Network
from mpsearch.quantization.packing import layer_bytes
from mpsearch.tables.choice import Choice


def size_bytes(network: Network, choices: Mapping[str, Choice]) -> int:
    """Bytes that the export stores for all layers."""
    return sum(layer_bytes(layer, choices[layer.name]) for layer in network.layers)


def bops(network: Network, choices: Mapping[str, Choice]) -> int:
    """Bit operations of one sample: Σ MACs · w_bits · a_bits."""
    return sum(
        layer.macs * choices[layer.name].w_bits * choices[layer.name].a_bits
        for layer in network.layers
    )


def float_bytes_outside(network: Network) -> int:
    """Bytes of all tensors that belong to no layer, 4 per element: they are stored in float."""
    in_layers = sum(
        4 * layer.weights + (4 * layer.channels if layer.bias_name else 0)
        for layer in network.layers
    )
    return network.fp32_bytes - in_layers

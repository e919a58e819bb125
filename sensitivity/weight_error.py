"""||Q_b(W) − W||², the squared error that quantizing a layer's weights makes."""

from mpsearch.layers import Layer
from mpsearch.network import Network
from mpsearch.operators import output_channels_view
from mpsearch.quantizer import FLOAT_BITS, quantize_weight


def squared_weight_error(network: Network, layer: Layer, bits: int) -> float:
    """Squared error of the layer's weights at `bits`, summed in float64; 0 for float."""
    if bits == FLOAT_BITS:
        return 0.0
    node = next(node for node in network.graph.graph.nodes if node.name == layer.nodes[0])
    rows, _ = output_channels_view(node, network.weight(layer).detach())
    difference = quantize_weight(rows, bits).dequantize().double() - rows.double()
    return float(difference.square().sum())

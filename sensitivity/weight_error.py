"""||Q_b(W) − W||², the squared error that quantizing a layer's weights makes."""

from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network
from mpsearch.quantization.quantizer import FLOAT_BITS, layout_of, quantize_weight
from mpsearch.tables.choice import Choice


def squared_weight_error(network: Network, layer: Layer, choice: Choice) -> float:
    """Squared error of the layer's weights at `choice`, summed in float64; 0 for float."""
    if choice.w_bits == FLOAT_BITS:
        return 0.0
    rows, _ = network.weight_rows(layer)
    quantized = quantize_weight(rows, choice.w_bits, layout_of(layer, choice))
    difference = quantized.dequantize().double() - rows.double()
    return float(difference.square().sum())

"""||Q_b(W) − W||², the squared error that quantizing a layer's weights makes."""

from mpsearch.layers import Layer
from mpsearch.network import Network
from mpsearch.quantizer import FLOAT_BITS, quantize_weight


def squared_weight_error(network: Network, layer: Layer, bits: int) -> float:
    """Squared error of the layer's weights at `bits`, summed in float64; 0 for float."""
    if bits == FLOAT_BITS:
        return 0.0
    rows, _ = network.weight_rows(layer)
    quantized = quantize_weight(rows, bits, layer.scales == 1)
    difference = quantized.dequantize().double() - rows.double()
    return float(difference.square().sum())

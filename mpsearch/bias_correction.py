"""Bias correction: take the shift that quantization gives a layer's mean output out of its bias.

Nagel, van Baalen, Blankevoort, Welling, ICCV 2019, section 4.2, measured on data (their appendix):
b' = b + E[z] - E[ẑ] per output channel, z the FP32 output and ẑ the quantized one, whose inputs
come from the layers that are quantized and corrected already.
"""

from collections.abc import Sequence

import torch
from torch import fx

from mpsearch.layer_by_layer import Use, layer_output
from mpsearch.layers import Layer
from mpsearch.network import Network
from mpsearch.operators import packet
from mpsearch.quantized import QuantizedLayer


def can_correct(network: Network, layer: Layer) -> bool:
    """True when the layer has a bias, and it is its own."""
    return layer.bias_name != "" and all(
        other.bias_name != layer.bias_name or other.name == layer.name for other in network.layers
    )


def mean_shift(
    network: Network, layer: Layer, uses: Sequence[Use], quantized: QuantizedLayer
) -> torch.Tensor:
    """E[z] - E[ẑ] per output channel over all uses, samples and positions: [channels], float64."""
    bias = network.bias(layer)
    total = torch.zeros(layer.channels, dtype=torch.float64)
    count = 0
    for use in uses:
        for x, z in zip(use.inputs, use.targets, strict=True):
            difference = z - layer_output(network, layer, use.node, x, quantized, bias)
            total += channel_sums(use.node, difference.double()).cpu()
            count += z.numel() // layer.channels
    return total / count


def channel_sums(node: fx.Node, outputs: torch.Tensor) -> torch.Tensor:
    """Sums over everything but the channels: [channels]."""
    channels = outputs.dim() - 1 if packet(node) == "linear" else 1
    return outputs.sum([d for d in range(outputs.dim()) if d != channels])

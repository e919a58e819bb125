"""Bias correction: take the shift that quantization gives a layer's mean output out of its bias.

Nagel, van Baalen, Blankevoort, Welling, ICCV 2019, section 4.2, measured on data (their appendix):
b' = b + E[z] - E[ẑ] per output channel, z the FP32 output and ẑ that of the quantized layer. Its
inputs are those that its weights were rounded for. Adaptive rounding makes up for the errors of the
layers before and leaves the mean to the bias. Nearest rounding makes up for nothing, and there each
layer answers for its own shift, on the float network's inputs: with the errors of the others in it
as well, biases chase a mean that is lost in noise (ResNet-20 with 3-bit weights, images right: 56 %
without correction, 23 % on the quantized layers' inputs, 84 % on the float ones).
"""

from collections.abc import Sequence

import torch
from torch import fx

from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network
from mpsearch.graph.operators import EMBEDDING, packet
from mpsearch.post_training.layer_by_layer import Decision, Use, layer_output
from mpsearch.quantization.quantized import QuantizedLayer, bias_codes


def correct_bias(
    network: Network, layer: Layer, uses: Sequence[Use], quantized: QuantizedLayer, exact: bool
) -> Decision:
    """The layer with a corrected bias, and that bias in float; as it is where it has none alone.

    `exact`: on the float network's inputs, instead of those of the quantized layers before.
    """
    bias = network.bias(layer)
    # What an embedding gives has no bias: of a table that is a linear layer too, the latter counts.
    uses = [use for use in uses if packet(use.node) != EMBEDDING]
    if bias is None or not has_own_bias(network, layer) or not uses:
        return quantized, bias
    shift = _mean_shift(network, layer, uses, quantized, exact).to(bias.device)
    in_use = quantized.bias()  # the shift was measured with the bias that the codes stand for
    bias = ((bias if in_use is None else in_use).double() + shift).to(bias.dtype)
    codes = quantized.bias_codes
    if codes is not None and quantized.weight is not None:
        codes = bias_codes(bias, quantized.weight, quantized.activation)
    return QuantizedLayer(quantized.choice, quantized.weight, codes, quantized.activation), bias


def has_own_bias(network: Network, layer: Layer) -> bool:
    """Whether the layer has a bias that no other layer reads."""
    return layer.bias_name != "" and all(
        other.bias_name != layer.bias_name or other.name == layer.name for other in network.layers
    )


def _mean_shift(
    network: Network, layer: Layer, uses: Sequence[Use], quantized: QuantizedLayer, exact: bool
) -> torch.Tensor:
    """E[z] - E[ẑ] per output channel over all uses, samples and positions: [channels], float64."""
    bias = network.bias(layer)
    total = torch.zeros(layer.channels, dtype=torch.float64)
    count = 0
    for use in uses:
        for x, z in zip(use.exact if exact else use.inputs, use.targets, strict=True):
            difference = z - layer_output(network, layer, use.node, x, quantized, bias)
            total += channel_sums(use.node, difference.double()).cpu()
            count += z.numel() // layer.channels
    return total / count


def channel_sums(node: fx.Node, outputs: torch.Tensor) -> torch.Tensor:
    """Sums over everything but the channels: [channels]."""
    channels = outputs.dim() - 1 if packet(node) == "linear" else 1
    return outputs.sum([d for d in range(outputs.dim()) if d != channels])

"""A quantized layer as an integer step: stored codes, bias, proven accumulator, factors."""

import numpy as np
import torch
from torch import fx

from mpsearch.errors import InputError
from mpsearch.graph.layers import Layer
from mpsearch.graph.operators import argument, groups, packet
from mpsearch.integer.fixed_point import Integers, rescale_of
from mpsearch.integer.graph import Convolution, IntegerTensor, Linear, Weights
from mpsearch.integer.operators import convolution_padding, pair
from mpsearch.quantization.quantized import QuantizedLayer
from mpsearch.quantization.quantizer import FLOAT_BITS

_LARGEST_BOUND = 2**62


def check_integer(name: str, layer: QuantizedLayer) -> None:
    """Raise InputError for a layer that is left in float."""
    if FLOAT_BITS in (layer.choice.w_bits, layer.choice.a_bits):
        raise InputError(
            f"layer {name!r} is left in float ({layer.choice}); integer inference needs integer "
            "bits in every layer: choose 2 to 8 or 16"
        )


def reciprocal(tensor: IntegerTensor) -> float:
    """1/scale as quantizing multiplies with it: in float32 for codes, as torch has it."""
    if tensor.signed:
        return 1 / tensor.scale
    return float(np.float32(1) / np.float32(tensor.scale))


def layer_step(
    node: fx.Node,
    layer: Layer,
    quantized: QuantizedLayer,
    weight_shape: torch.Size,
    source: IntegerTensor,
    output: IntegerTensor,
) -> Convolution | Linear:
    """The step of one use of a layer. Raises InputError where 64 bits could overflow."""
    assert quantized.weight is not None
    codes: Integers = quantized.weight.codes.cpu().numpy().astype(np.int16)
    bias: Integers = np.zeros(len(codes), dtype=np.int32)
    if quantized.bias_codes is not None:
        bias = quantized.bias_codes.cpu().numpy().astype(np.int32)
    bound = _bound(codes, bias, source)
    if bound >= _LARGEST_BOUND:
        raise InputError(f"layer {layer.name!r}: its sums could exceed 62 bits; use fewer bits")
    scales = quantized.weight.channel_scales().cpu().numpy().astype(np.float64)
    factors = scales * source.scale * reciprocal(output)
    rescale = rescale_of(factors, pre_shift=max(0, bound.bit_length() - 31))
    is_linear, flat = packet(node) == "linear", len(weight_shape) == 3
    kernel = (1, weight_shape[-1]) if flat else tuple(weight_shape[2:])
    weights = Weights(
        layer.name,
        quantized.choice.w_bits,
        codes if is_linear else codes.reshape(*weight_shape[:2], *kernel),
        bias,
        source.zero_point,
        bound,
    )
    common = ((source.name,), output, weights, rescale, output.low, output.high)
    if is_linear:
        return Linear(*common)
    dilation = pair(argument(node, "dilation"), flat, 1)
    return Convolution(
        *common,
        stride=pair(argument(node, "stride"), flat, 1),
        padding=convolution_padding(node, (kernel[0], kernel[1]), dilation, flat),
        dilation=dilation,
        groups=groups(node),
    )


def _bound(codes: Integers, bias: Integers, source: IntegerTensor) -> int:
    """The largest |Σ w·(q - z) + bias| over all codes q: no partial sum, in any order, exceeds
    it."""
    reach = max(source.zero_point - source.low, source.high - source.zero_point)
    sums = np.abs(codes.astype(np.int64)).sum(axis=1) * reach + np.abs(bias.astype(np.int64))
    return int(sums.max())

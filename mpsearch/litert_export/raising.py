"""Bits that LiteRT has: activations 8, weights 4 or 8, in linear layers also 2. Others are raised.

A raised activation keeps the range that the file's quantizer has and gets 255 steps for it; at 2
and 4 bits the old codes are then exactly every 85th and 17th new one. Weights keep codes and
scales: a 3-bit code in a 4-bit place is the same number. So bits only go up, and what the network
computes changes by the rounding of activations that is no longer there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from mpsearch.choice import Choice
from mpsearch.errors import InputError
from mpsearch.layers import Layer
from mpsearch.quantized import QuantizedLayer, QuantizedNetwork, assemble
from mpsearch.quantizer import FLOAT_BITS, ActivationQuantizer

ACTIVATION_BITS = 8
WEIGHT_BITS = (4, 8)
WEIGHT_BITS_LINEAR = (2, 4, 8)
_LARGEST_BIAS = 2**31 - 1


@dataclass(frozen=True)
class Raised:
    """A layer whose assigned bits LiteRT does not have, and what it gets instead."""

    layer: str
    kind: str
    assigned: Choice
    stored: Choice


def raise_bits(quantized: QuantizedNetwork) -> tuple[QuantizedNetwork, tuple[Raised, ...]]:
    """The network at bits that LiteRT has, and the layers where these are not the assigned ones.

    w2a4 becomes w4a8, w5a6 w8a8. Raises InputError naming the layer for 16 bits and for float.
    """
    layers: dict[str, QuantizedLayer] = {}
    raised: list[Raised] = []
    for layer in quantized.source.layers:
        given = quantized.layers[layer.name]
        stored = _stored_choice(layer, given.choice)
        layers[layer.name] = _at(given, stored)
        if stored != given.choice:
            raised.append(Raised(layer.name, layer.kind, given.choice, stored))
    if not raised:
        return quantized, ()
    return assemble(quantized.source, layers), tuple(raised)


def choices(quantized: QuantizedNetwork) -> Mapping[str, Choice]:
    """What every layer is stored at."""
    return {name: layer.choice for name, layer in quantized.layers.items()}


def _stored_choice(layer: Layer, assigned: Choice) -> Choice:
    if FLOAT_BITS in (assigned.w_bits, assigned.a_bits):
        raise InputError(
            f"layer {layer.name!r} is left in float ({assigned}); a LiteRT file of integers needs "
            "integer bits in every layer: choose 2 to 8"
        )
    if max(assigned.w_bits, assigned.a_bits) > ACTIVATION_BITS:
        raise InputError(
            f"layer {layer.name!r} has {assigned}; LiteRT's integers have at most 8 bits for "
            "weights, and 16-bit activations only without a zero point: choose 2 to 8"
        )
    weight_bits = next(
        bits
        for bits in (WEIGHT_BITS_LINEAR if layer.kind == "linear" else WEIGHT_BITS)
        if bits >= assigned.w_bits
    )
    return Choice(weight_bits, ACTIVATION_BITS)


def _at(layer: QuantizedLayer, stored: Choice) -> QuantizedLayer:
    activation = finer(layer.activation, stored.a_bits)
    bias = layer.bias_codes
    if bias is not None and activation != layer.activation:
        steps = bias.double() * (layer.activation.scale / activation.scale)
        bias = steps.round().clamp(-_LARGEST_BIAS, _LARGEST_BIAS).to(torch.int32)
    return replace(layer, choice=stored, activation=activation, bias_codes=bias)


def finer(quantizer: ActivationQuantizer, bits: int) -> ActivationQuantizer:
    """The quantizer of the same range with more steps: zero stays exact, the ends to half a step.

    scale' = scale·(2^b - 1)/(2^b' - 1), zero_point' = round(zero_point·(2^b' - 1)/(2^b - 1)):
    4 -> 8 bits multiplies the zero point by 17.
    """
    if quantizer.bits == bits:
        return quantizer
    ratio = (2**bits - 1) / (2**quantizer.bits - 1)
    scale = float(torch.tensor(quantizer.scale / ratio, dtype=torch.float32))
    return ActivationQuantizer(bits, scale, round(quantizer.zero_point * ratio))

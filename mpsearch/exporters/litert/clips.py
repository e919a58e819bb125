"""What a step clips to, as LiteRT's fused activation where it has one, else as MAXIMUM, MINIMUM."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mpsearch.exporters.litert.layouts import Tensors, scales_of, stored_shape
from mpsearch.integer.graph import IntegerTensor
from mpsearch.quantization.quantizer import ActivationQuantizer

NONE, RELU, RELU6 = 0, 1, 3
_LOWEST, _HIGHEST = -128, 127


@dataclass(frozen=True)
class Clip:
    """The smallest and largest int8 that may come out, and the fused activation that does it.

    `rest` is true where no fused activation clips to exactly these ends.
    """

    low: int
    high: int
    fused: int
    rest: bool


def clip_of(
    low: int, high: int, tensor: IntegerTensor, quantizer: ActivationQuantizer, fusable: bool = True
) -> Clip:
    """The clip of a step of the integer graph, whose result LiteRT keeps at `quantizer`."""
    zero = quantizer.zero_point - 128
    ends = [_code(end, tensor, quantizer) for end in (low, high)]
    six = min(_HIGHEST, zero + round(6 / quantizer.scale))
    known = {(_LOWEST, _HIGHEST): NONE}
    if fusable:
        known = {(zero, six): RELU6, (zero, _HIGHEST): RELU, **known}
    fused = known.get((ends[0], ends[1]))
    return Clip(ends[0], ends[1], NONE if fused is None else fused, fused is None)


def _code(end: int, tensor: IntegerTensor, quantizer: ActivationQuantizer) -> int:
    """The int8 code of an end that is given in the integer graph's own units."""
    if not tensor.signed:
        return end - 128
    if end in (tensor.low, tensor.high):  # the graph's own saturation, which ours takes over
        return _LOWEST if end == tensor.low else _HIGHEST
    zero = quantizer.zero_point - 128
    return int(np.clip(round(end * tensor.scale / quantizer.scale) + zero, _LOWEST, _HIGHEST))


def write_clipped(
    tensors: Tensors, output: IntegerTensor, layout: str, clip: Clip, write: Callable[[int], None]
) -> None:
    """`write` gets the tensor for an operator's result; MAXIMUM and MINIMUM follow if needed."""
    name, quantizer = output.name, tensors.quantizers[output.name]
    target = tensors.new(name, output.shape, quantizer, layout)
    if not clip.rest:
        write(target)
        return
    stored = stored_shape(output.shape, layout)
    result = tensors.scratch(f"{name} unclipped", stored, quantizer)
    write(result)
    between = tensors.scratch(f"{name} raised", stored, quantizer)
    for operator, end, source, into in (
        ("MAXIMUM", clip.low, result, between),
        ("MINIMUM", clip.high, between, target),
    ):
        limit = tensors.file.tensor(
            f"{name} {operator}", (1,), "INT8", scales_of(quantizer), np.array([end])
        )
        tensors.file.operator(operator, 2, [source, limit], [into], "MaximumMinimumOptions")

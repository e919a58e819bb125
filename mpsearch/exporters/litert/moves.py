"""Steps that move values without changing them: one quantizer in and out."""

from typing import Any

import numpy as np

from mpsearch.exporters.litert.layouts import FIRST, LAST, Tensors, stored_axis, stored_shape
from mpsearch.integer.graph import Concatenate, Pad, Permute, Reshape, Shape, Slice, Step

_LOWEST, _HIGHEST = -128, 127


def common_layout(tensors: Tensors, step: Step) -> str:
    """Channels last where every source is there already."""
    known = {tensors.layout(name) for name in step.sources}
    return LAST if known == {LAST} else FIRST


def move(tensors: Tensors, step: Step, layout: str) -> tuple[int, int]:
    """(source, target) of a step with one source, whose quantizer the result keeps."""
    (name,) = step.sources
    source = tensors.read(name, layout)
    quantizer = tensors.quantizers[name]
    return source, tensors.new(step.output.name, step.output.shape, quantizer, layout)


def concatenate(tensors: Tensors, step: Concatenate) -> None:
    """CONCATENATION; all sources have one quantizer."""
    layout = common_layout(tensors, step)
    sources = [tensors.read(name, layout) for name in step.sources]
    quantizer = tensors.quantizers[step.sources[0]]
    target = tensors.new(step.output.name, step.output.shape, quantizer, layout)
    axis = stored_axis(step.axis, len(step.output.shape), layout)
    tensors.file.operator("CONCATENATION", 2, sources, [target], "ConcatenationOptions", axis=axis)


def reshape(tensors: Tensors, step: Reshape) -> None:
    """RESHAPE, in torch's order of values."""
    source, target = move(tensors, step, FIRST)
    tensors.reshape(source, target, stored_shape(step.output.shape, FIRST))


def permute(tensors: Tensors, step: Permute) -> None:
    """TRANSPOSE; nothing for [H, W, C] to [C, H, W], which is stored as [H, W, C]."""
    if step.axes == (2, 0, 1):
        tensors.channels_forward(step.output.name, step.sources[0], step.output.shape)
        return
    source, target = move(tensors, step, FIRST)
    tensors.transpose(source, target, (0, *(axis + 1 for axis in step.axes)))


def slice_axis(tensors: Tensors, step: Slice) -> None:
    """STRIDED_SLICE along one axis."""
    (name,) = step.sources
    layout, shape = common_layout(tensors, step), tensors.shapes[name]
    source, target = move(tensors, step, layout)
    stored = stored_shape(shape, layout)
    axis = stored_axis(step.axis, len(shape), layout)
    strided_slice(tensors, step, source, target, stored, axis)


def strided_slice(
    tensors: Tensors, step: Slice, source: int, target: int, stored: Shape, axis: int
) -> None:
    """STRIDED_SLICE of a tensor [`stored`] along its axis number `axis`."""
    begin, end, strides = [0] * len(stored), list(stored), [1] * len(stored)
    begin[axis], end[axis], strides[axis] = step.start, step.end, step.step
    _strided_slice(tensors, source, target, begin, end, strides)


def _strided_slice(
    tensors: Tensors, source: int, target: int, begin: list[int], end: list[int], strides: list[int]
) -> None:
    bounds = [tensors.indices(values) for values in (begin, end, strides)]
    tensors.file.operator("STRIDED_SLICE", 2, [source, *bounds], [target], "StridedSliceOptions")


def pad_axes(tensors: Tensors, step: Pad) -> None:
    """PADV2 with the constant's code, after cutting off where a padding is negative."""
    (name,) = step.sources
    layout, shape = common_layout(tensors, step), tensors.shapes[name]
    quantizer = tensors.quantizers[name]
    source, target = move(tensors, step, layout)
    stored = stored_shape(shape, layout)
    pads = [(0, 0)] * len(stored)
    for axis, given in enumerate(step.pads):
        pads[stored_axis(axis, len(shape), layout)] = given
    if any(end < 0 for given in pads for end in given):
        begin = [max(0, -before) for before, _ in pads]
        end = [n - max(0, -after) for n, (_, after) in zip(stored, pads, strict=True)]
        cut = tuple(b - a for a, b in zip(begin, end, strict=True))
        between = tensors.scratch(f"{step.output.name} cut", cut, quantizer)
        _strided_slice(tensors, source, between, begin, end, [1] * len(stored))
        source, pads = between, [(max(0, before), max(0, after)) for before, after in pads]
    real = (step.value - step.output.zero_point) * step.output.scale
    code = round(real / quantizer.scale) + quantizer.zero_point - 128
    padv2(tensors, source, target, pads, int(np.clip(code, _LOWEST, _HIGHEST)), step.output.name)


def padv2(tensors: Tensors, source: int, target: int, pads: Any, code: int, name: str) -> None:
    """PADV2 with `code` around: (before, after) for every stored axis."""
    file = tensors.file
    around = tensors.indices([end for given in pads for end in given], (len(pads), 2))
    quantization = file.tensors[source].quantization
    value = file.tensor(f"{name} around", (1,), "INT8", values=np.array([code]))
    file.tensors[value].quantization = quantization
    file.operator("PADV2", 2, [source, around, value], [target], "PadV2Options")

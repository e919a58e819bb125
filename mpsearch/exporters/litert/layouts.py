"""Tensors of one sample in LiteRT's two layouts: channels first as in torch, channels last.

Convolutions and pools want [1, H, W, C]; flattening, linear layers and the border want torch's
[1, C, H, W]. A tensor is kept where its operator writes it and transposed when a reader wants the
other layout, once. A line [C, W] is an image of height 1 in the layout with channels last.

Steps that move values without changing them: one quantizer in and out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpsearch.exporters.litert.flatbuffer import LiteRtFile, Scales
from mpsearch.integer.graph import (
    Concatenate,
    IntegerTensor,
    Pad,
    Permute,
    Reshape,
    Shape,
    Slice,
    Step,
)
from mpsearch.quantization.quantizer import ActivationQuantizer

FIRST, LAST = "channels first", "channels last"


def scales_of(quantizer: ActivationQuantizer) -> Scales:
    """int8 instead of uint8: everything moves down by 128, codes and zero point."""
    return Scales((quantizer.scale,), quantizer.zero_point - 128)


def stored_shape(shape: Shape, layout: str) -> Shape:
    """(3, 8, 9) -> (1, 3, 8, 9) or (1, 8, 9, 3); a line (3, 9) -> (1, 3, 9) or (1, 1, 9, 3)."""
    if layout == FIRST:
        return (1, *shape)
    channels, *places = shape
    return (1, *(1,) * (2 - len(places)), *places, channels)


def stored_axis(axis: int, dimensions: int, layout: str) -> int:
    """The place of a sample's axis: 0 (channels) of an image -> 1, or 3 with channels last."""
    if layout == FIRST:
        return axis + 1
    return 3 if axis == 0 else axis + 3 - dimensions


@dataclass
class Tensors:
    """The tensors written so far, by name and layout, the file that holds them, and what they are
    in the integer graph."""

    file: LiteRtFile = field(default_factory=LiteRtFile)
    shapes: dict[str, Shape] = field(default_factory=dict)
    quantizers: dict[str, ActivationQuantizer] = field(default_factory=dict)
    numbers: dict[str, dict[str, int]] = field(default_factory=dict)
    constants: dict[tuple[int, ...], int] = field(default_factory=dict)
    integers: Mapping[str, IntegerTensor] = field(default_factory=dict)

    def new(
        self, name: str, shape: Shape, quantizer: ActivationQuantizer, layout: str = FIRST
    ) -> int:
        """A tensor that an operator is about to write."""
        self.shapes[name], self.quantizers[name] = shape, quantizer
        self.numbers[name] = {layout: self._int8(name, stored_shape(shape, layout), quantizer)}
        return self.numbers[name][layout]

    def assume(self, step: Step, *_: object) -> None:
        """A tensor for a step that was refused, so that all that is refused is found."""
        output = step.output
        if output.name not in self.numbers:
            self.new(output.name, output.shape, self.quantizers[output.name])

    def same(self, name: str, source: str) -> None:
        """`name` is `source`: an operation that does nothing in these integers."""
        self.shapes[name] = self.shapes[source]
        self.quantizers[name] = self.quantizers[source]
        self.numbers[name] = self.numbers[source]

    def channels_forward(self, name: str, source: str, shape: Shape) -> None:
        """`name` [C, H, W] is `source` [H, W, C], whose bytes are those with channels last."""
        self.shapes[name], self.quantizers[name] = shape, self.quantizers[source]
        self.numbers[name] = {LAST: self.read(source, FIRST)}

    def scratch(self, name: str, stored: Sequence[int], quantizer: ActivationQuantizer) -> int:
        """A tensor between two operators of one step."""
        return self._int8(name, stored, quantizer)

    def layout(self, name: str) -> str:
        """Where the tensor's operator wrote it."""
        return next(iter(self.numbers[name]))

    def read(self, name: str, layout: str) -> int:
        """The tensor in this layout, transposed if it is not there yet."""
        numbers = self.numbers[name]
        if layout not in numbers:
            numbers[layout] = self._moved(name, layout)
        return numbers[layout]

    def indices(self, values: Sequence[int], shape: Sequence[int] | None = None) -> int:
        """A constant of 32-bit integers: axes, permutations, paddings, shapes."""
        stored = tuple(shape) if shape is not None else (len(values),)
        key = (len(stored), *stored, *values)
        if key not in self.constants:
            self.constants[key] = self.file.tensor(
                f"indices{len(self.constants)}", stored, "INT32", values=np.array(values)
            )
        return self.constants[key]

    def reshape(self, source: int, target: int, stored: Sequence[int]) -> None:
        """The same values in the same order in another shape."""
        self.file.operator(
            "RESHAPE", 1, [source, self.indices(stored)], [target], "ReshapeOptions",
            newShape=np.array(stored, dtype=np.int32),
        )  # fmt: skip

    def transpose(self, source: int, target: int, axes: Sequence[int]) -> None:
        """Target axis i is the source's axis `axes`[i]."""
        self.file.operator(
            "TRANSPOSE", 2, [source, self.indices(axes)], [target], "TransposeOptions"
        )

    def _int8(self, name: str, stored: Sequence[int], quantizer: ActivationQuantizer) -> int:
        return self.file.tensor(name, stored, "INT8", scales_of(quantizer))

    def _moved(self, name: str, layout: str) -> int:
        shape, quantizer = self.shapes[name], self.quantizers[name]
        stored = stored_shape(shape, layout)
        (old,) = self.numbers[name]
        source = self.numbers[name][old]
        target = self._int8(f"{name} {layout}", stored, quantizer)
        if shape[0] == 1 or int(np.prod(shape[1:])) == 1:  # the order of the values is the same
            self.reshape(source, target, stored)
            return target
        if len(shape) == 2:  # an image of height 1, [1, C, 1, W] and [1, 1, W, C]
            image = (1, shape[0], 1, shape[1])
            if layout == LAST:
                between = self._int8(f"{name} image", image, quantizer)
                self.reshape(source, between, image)
                self.transpose(between, target, (0, 2, 3, 1))
            else:
                between = self._int8(f"{name} image", image, quantizer)
                self.transpose(source, between, (0, 3, 1, 2))
                self.reshape(between, target, stored)
            return target
        self.transpose(source, target, (0, 2, 3, 1) if layout == LAST else (0, 3, 1, 2))
        return target


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


def cut(tensors: Tensors, source: int, target: int, begin: list[int], end: list[int]) -> None:
    """What lies between `begin` and `end` on every stored axis."""
    _strided_slice(tensors, source, target, begin, end, [1] * len(begin))


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

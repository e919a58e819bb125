"""Every step of the integer graph without weights as LiteRT operators on int8."""

import numpy as np

from mpsearch.errors import InputError
from mpsearch.exporters.litert.clips import clip_of, write_clipped
from mpsearch.exporters.litert.layouts import FIRST, LAST, Tensors, stored_shape
from mpsearch.exporters.litert.moves import (
    common_layout,
    concatenate,
    pad_axes,
    permute,
    reshape,
    slice_axis,
)
from mpsearch.exporters.litert.pools import average_pool, max_pool
from mpsearch.integer.graph import (
    Add,
    ArgMax,
    AveragePool,
    Clamp,
    Concatenate,
    MaxPool,
    Mean,
    Pad,
    Permute,
    Requantize,
    Reshape,
    Slice,
    Softmax,
    Step,
)


def write_step(tensors: Tensors, step: Step) -> None:
    """Add the operators of one step. Raises InputError, naming it, for what LiteRT cannot do."""
    match step:
        case Add():
            _add(tensors, step)
        case Requantize() | Clamp():
            _requantize(tensors, step)
        case MaxPool():
            max_pool(tensors, step)
        case AveragePool():
            average_pool(tensors, step)
        case Mean():
            _mean(tensors, step)
        case Concatenate():
            concatenate(tensors, step)
        case Reshape():
            reshape(tensors, step)
        case Permute():
            permute(tensors, step)
        case Slice():
            slice_axis(tensors, step)
        case Pad():
            pad_axes(tensors, step)
        case Softmax():
            _softmax(tensors, step)
        case ArgMax():
            _argmax(tensors, step)
        case _:
            raise InputError(f"{type(step).__name__} ({step.output.name!r}) has no LiteRT operator")


def _add(tensors: Tensors, step: Add) -> None:
    known = {tensors.layout(name) for name in step.sources}
    layout = LAST if LAST in known else FIRST
    sources = [tensors.read(name, layout) for name in step.sources]
    clip = clip_of(step.low, step.high, step.output, tensors.quantizers[step.output.name])

    def write(target: int) -> None:
        tensors.file.operator(
            "ADD", 2, sources, [target], "AddOptions", fusedActivationFunction=clip.fused
        )

    write_clipped(tensors, step.output, layout, clip, write)


def _requantize(tensors: Tensors, step: Requantize | Clamp) -> None:
    """QUANTIZE from int8 to int8; nothing at all where quantizer and ends stay."""
    (name,) = step.sources
    layout, quantizer = common_layout(tensors, step), tensors.quantizers[step.output.name]
    clip = clip_of(step.low, step.high, step.output, quantizer, fusable=False)
    if quantizer == tensors.quantizers[name] and not clip.rest:
        tensors.same(step.output.name, name)
        return
    source = tensors.read(name, layout)

    def write(target: int) -> None:
        tensors.file.operator("QUANTIZE", 1, [source], [target], "QuantizeOptions")

    write_clipped(tensors, step.output, layout, clip, write)


def _mean(tensors: Tensors, step: Mean) -> None:
    (name,) = step.sources
    shape, name_out = tensors.shapes[name], step.output.name
    keep = len(step.output.shape) == len(shape)
    places = tuple(range(1, len(shape)))
    last = tensors.layout(name) == LAST and step.axes == places and not keep
    layout = LAST if last else FIRST
    axes = (1, 2) if last else tuple(axis + 1 for axis in step.axes)
    source = tensors.read(name, layout)
    target = tensors.new(name_out, step.output.shape, tensors.quantizers[name_out])
    tensors.file.operator(
        "MEAN", 2, [source, tensors.indices(axes)], [target], "ReducerOptions", keepDims=keep
    )


def _softmax(tensors: Tensors, step: Softmax) -> None:
    """LiteRT's works along the last axis."""
    (name,) = step.sources
    dimensions = len(step.output.shape)
    source = tensors.read(name, FIRST)
    quantizer = tensors.quantizers[step.output.name]
    stored = stored_shape(step.output.shape, FIRST)
    axes = list(range(dimensions + 1))
    axes[step.axis + 1], axes[-1] = axes[-1], axes[step.axis + 1]
    turned = tuple(stored[axis] for axis in axes)
    last = step.axis == dimensions - 1
    target = tensors.new(step.output.name, step.output.shape, quantizer)
    result = target
    if not last:
        logits = tensors.scratch(f"{name} turned", turned, tensors.quantizers[name])
        tensors.transpose(source, logits, axes)
        source, result = logits, tensors.scratch(f"{step.output.name} turned", turned, quantizer)
    tensors.file.operator("SOFTMAX", 2, [source], [result], "SoftmaxOptions", beta=1.0)
    if not last:
        tensors.transpose(result, target, axes)


def _argmax(tensors: Tensors, step: ArgMax) -> None:
    """Class numbers in int64, as torch has them."""
    (name,) = step.sources
    file, shape = tensors.file, tensors.shapes[name]
    source = tensors.read(name, FIRST)
    reduced = (1, *(size for axis, size in enumerate(shape) if axis != step.axis))
    stored = stored_shape(step.output.shape, FIRST)
    classes = file.tensor(f"{name} classes", reduced, "INT64")
    axis = file.tensor(f"{name} axis", (), "INT32", values=np.array(step.axis + 1))
    file.operator(
        "ARG_MAX", 2, [source, axis], [classes], "ArgMaxOptions",
        outputType=file.schema.TensorType.INT64,
    )  # fmt: skip
    tensors.shapes[step.output.name] = step.output.shape
    if reduced != stored:
        kept = file.tensor(step.output.name, stored, "INT64")
        tensors.reshape(classes, kept, stored)
        classes = kept
    tensors.numbers[step.output.name] = {FIRST: classes}


def quantize_float(tensors: Tensors, name: str, shape: tuple[int, ...], source: int) -> None:
    """int8 codes of a float tensor: an input, or outputs put together."""
    target = tensors.new(name, shape, tensors.quantizers[name])
    tensors.file.operator("QUANTIZE", 1, [source], [target], "QuantizeOptions")

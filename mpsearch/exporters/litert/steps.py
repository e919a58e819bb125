"""Every step of the integer graph without weights as LiteRT operators on int8.

Max and average pools, with a PAD before where LiteRT's two paddings do not fit.
"""

from collections.abc import Callable, Sequence

import numpy as np

from mpsearch.exporters.litert.gathering import gather
from mpsearch.exporters.litert.layouts import (
    FIRST,
    LAST,
    Tensors,
    common_layout,
    concatenate,
    move,
    pad_axes,
    padv2,
    permute,
    reshape,
    scales_of,
    slice_axis,
    stored_shape,
)
from mpsearch.exporters.litert.norms import NORM_WRITERS
from mpsearch.exporters.litert.pointwise import WRITERS
from mpsearch.exporters.litert.weighted import pad
from mpsearch.exporters.litert.windows import (
    VALID,
    clip_of,
    of_two,
    padding_for,
    pads_for,
    regular,
    write_clipped,
)
from mpsearch.graph.refusals import Refusal, Refused
from mpsearch.integer.gathering import Fill, Gather
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
from mpsearch.integer.log_softmax import LogSoftmax
from mpsearch.integer.resizing import Resize, taps

_LOWEST = -128  # in a maximum it never wins


def _refused(step: Step, why: str) -> Refused:
    refusal = Refusal(type(step).__name__, step.output.name, why)
    return Refused(
        [refusal],
        "LiteRT's integer operators cannot compute that: change this operator of the network, or "
        "export with --format c",
    )


def max_pool(tensors: Tensors, step: MaxPool) -> None:
    """MAX_POOL_2D. Raises InputError for dilated windows."""
    if step.dilation != (1, 1):
        raise _refused(step, "has dilated windows")
    (name,) = step.sources
    source, target = move(tensors, step, LAST)
    size = stored_shape(tensors.shapes[name], LAST)
    output = stored_shape(step.output.shape, LAST)
    padding = padding_for(size[1:3], output[1:3], step.kernel, step.stride, (1, 1), step.padding)
    if any(any(pads) for pads in padding.pads):
        wider = [n + sum(p) for n, p in zip(size[1:3], padding.pads, strict=True)]
        between = tensors.scratch(
            f"{name} for {step.output.name}", (1, *wider, size[3]), tensors.quantizers[name]
        )
        padv2(tensors, source, between, ((0, 0), *padding.pads, (0, 0)), _LOWEST, name)
        source = between
    _pool(tensors, "MAX_POOL_2D", source, target, padding.scheme, step.kernel, step.stride)


def average_pool(tensors: Tensors, step: AveragePool) -> None:
    """AVERAGE_POOL_2D. Raises InputError for unequal windows and other divisors."""
    (name,) = step.sources
    size = stored_shape(tensors.shapes[name], LAST)
    pool = regular(step, (size[1], size[2]))
    if pool is None:
        raise _refused(step, "has unequal windows, or another divisor than their size")
    output = (len(step.rows), len(step.columns))
    padding = padding_for(size[1:3], output, pool.kernel, pool.stride, (1, 1), pool.before)
    pads = pads_for(size[1:3], output, pool.kernel, pool.stride, pool.before)
    source, target = move(tensors, step, LAST)
    scheme = padding.scheme
    if pool.counted and any(map(any, pads)):
        source, scheme = pad(tensors, name, source, pads), VALID
    _pool(tensors, "AVERAGE_POOL_2D", source, target, scheme, pool.kernel, pool.stride)


def _fill(tensors: Tensors, step: Fill) -> None:
    """A constant."""
    output = step.output
    quantizer, stored = tensors.quantizers[output.name], stored_shape(output.shape, FIRST)
    real = (step.codes.astype(np.float64) - output.zero_point) * output.scale
    codes = np.clip(np.rint(real / quantizer.scale) + quantizer.zero_point, 0, 255) - 128
    codes = np.broadcast_to(codes, output.shape).reshape(stored)
    number = tensors.file.tensor(output.name, stored, "INT8", scales_of(quantizer), codes)
    tensors.shapes[output.name] = output.shape
    tensors.numbers[output.name] = {FIRST: number}


def _resize(tensors: Tensors, step: Resize) -> None:
    """RESIZE_BILINEAR. Raises InputError for places that LiteRT does not read at."""
    (name,) = step.sources
    size = stored_shape(tensors.shapes[name], LAST)[1:3]
    wanted, outputs = (step.rows, step.columns), (len(step.rows), len(step.columns))
    corners = next(
        (
            given
            for given in (False, True)
            if wanted == tuple(taps(n, o, given) for n, o in zip(size, outputs, strict=True))
        ),
        None,
    )
    if corners is None:
        raise _refused(step, "has a factor that is not the quotient of its sizes")
    source, target = move(tensors, step, LAST)
    tensors.file.operator(
        "RESIZE_BILINEAR", 3, [source, tensors.indices(outputs)], [target],
        "ResizeBilinearOptions", alignCorners=corners, halfPixelCenters=not corners,
    )  # fmt: skip


def _pool(
    tensors: Tensors, operator: str, source: int, target: int, scheme: int,
    kernel: tuple[int, int], stride: tuple[int, int],
) -> None:  # fmt: skip
    tensors.file.operator(
        operator, 2, [source], [target], "Pool2DOptions", padding=scheme, filterHeight=kernel[0],
        filterWidth=kernel[1], strideH=stride[0], strideW=stride[1],
    )  # fmt: skip


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
        case Gather():
            gather(tensors, step)
        case Resize():
            _resize(tensors, step)
        case Fill():
            _fill(tensors, step)
        case Pad():
            pad_axes(tensors, step)
        case Softmax():
            _softmax(tensors, step)
        case LogSoftmax():
            _log_softmax(tensors, step)
        case ArgMax():
            _argmax(tensors, step)
        case _ if type(step) in WRITERS:
            WRITERS[type(step)](tensors, step)
        case _ if type(step) in NORM_WRITERS:
            NORM_WRITERS[type(step)](tensors, step)
        case _:
            raise _refused(step, "has no LiteRT operator")


def _add(tensors: Tensors, step: Add) -> None:
    known = {tensors.layout(name) for name in step.sources}
    of_two(tensors, step, LAST if LAST in known else FIRST, "ADD", "AddOptions")


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
    (name,), output = step.sources, step.output.name
    quantizer = tensors.quantizers[output]
    target = tensors.new(output, step.output.shape, quantizer)

    def between(shape: Sequence[int]) -> int:
        return tensors.scratch(f"{output} turned", shape, quantizer)

    def turned(shape: Sequence[int]) -> int:
        return tensors.scratch(f"{name} turned", shape, tensors.quantizers[name])

    along_last(tensors, step, "SOFTMAX", tensors.read(name, FIRST), target, (turned, between))


def _log_softmax(tensors: Tensors, step: LogSoftmax) -> None:
    """In float: LiteRT's integers have steps of 1/16."""
    (name,) = step.sources
    given = tensors.file.tensor(f"{name} real", stored_shape(step.output.shape, FIRST), "FLOAT32")
    tensors.file.operator(
        "DEQUANTIZE", 2, [tensors.read(name, FIRST)], [given], "DequantizeOptions"
    )
    result = log_softmax(tensors, step, given)
    quantize_float(tensors, step.output.name, step.output.shape, result)


def _argmax(tensors: Tensors, step: ArgMax) -> None:
    """Class numbers in int64, as torch has them; TensorFlow Lite Micro has them in int32 alone."""
    (name,) = step.sources
    file, shape = tensors.file, tensors.shapes[name]
    whole = "INT32" if file.micro else "INT64"
    source = tensors.read(name, FIRST)
    reduced = (1, *(size for axis, size in enumerate(shape) if axis != step.axis))
    stored = stored_shape(step.output.shape, FIRST)
    classes = file.tensor(f"{name} classes", reduced, whole)
    axis = file.tensor(f"{name} axis", (), "INT32", values=np.array(step.axis + 1))
    file.operator(
        "ARG_MAX", 2, [source, axis], [classes], "ArgMaxOptions",
        outputType=getattr(file.schema.TensorType, whole),
    )  # fmt: skip
    tensors.shapes[step.output.name] = step.output.shape
    if reduced != stored:
        kept = file.tensor(step.output.name, stored, whole)
        tensors.reshape(classes, kept, stored)
        classes = kept
    tensors.numbers[step.output.name] = {FIRST: classes}


def log_softmax(tensors: Tensors, step: LogSoftmax, source: int) -> int:
    """The float32 result for a float32 tensor [1, …]."""
    file, stored = tensors.file, stored_shape(step.output.shape, FIRST)
    target = file.tensor(f"{step.output.name} real", stored, "FLOAT32")

    def turned(shape: Sequence[int]) -> int:
        return file.tensor(f"{step.output.name} turned", shape, "FLOAT32")

    along_last(tensors, step, "LOG_SOFTMAX", source, target, (turned, turned))
    return target


def along_last(
    tensors: Tensors,
    step: Softmax | LogSoftmax,
    operator: str,
    source: int,
    target: int,
    turned: tuple[Callable[[Sequence[int]], int], Callable[[Sequence[int]], int]],
) -> None:
    """An operator that works along the last axis, between transpositions where `step` has another;
    `turned` makes the tensors for the transposed source and result."""
    stored = stored_shape(step.output.shape, FIRST)
    axes = list(range(len(stored)))
    axes[step.axis + 1], axes[-1] = axes[-1], axes[step.axis + 1]
    shape, result = tuple(stored[axis] for axis in axes), target
    moved = axes != sorted(axes)
    if moved:
        given, result = (make(shape) for make in turned)
        tensors.transpose(source, given, axes)
        source = given
    options = {"beta": 1.0} if operator == "SOFTMAX" else {}
    table = "SoftmaxOptions" if operator == "SOFTMAX" else "LogSoftmaxOptions"
    tensors.file.operator(operator, 2 if options else 1, [source], [result], table, **options)
    if moved:
        tensors.transpose(result, target, axes)


def quantize_float(tensors: Tensors, name: str, shape: tuple[int, ...], source: int) -> None:
    """int8 codes of a float tensor: an input, or outputs put together."""
    target = tensors.new(name, shape, tensors.quantizers[name])
    tensors.file.operator("QUANTIZE", 1, [source], [target], "QuantizeOptions")

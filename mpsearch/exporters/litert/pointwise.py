"""Functions of one number, sums, products and factors of any scale as LiteRT operators on int8.

A function that LiteRT has no integers for is a table of its 256 results, read with GATHER.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mpsearch.exporters.litert.flatbuffer import Scales
from mpsearch.exporters.litert.layouts import FIRST, LAST, Tensors, scales_of, stored_shape
from mpsearch.exporters.litert.windows import clip_of, of_two, write_clipped
from mpsearch.integer.arithmetic import Affine, Floats, Multiply, Prelu
from mpsearch.integer.comparing import Interval
from mpsearch.integer.functions import Lookup
from mpsearch.integer.graph import Step
from mpsearch.quantization.quantizer import ActivationQuantizer, affine

PROBABILITIES = ActivationQuantizer(8, 1 / 256, 0)  # the only one that SOFTMAX and LOGISTIC write
_TANH = ActivationQuantizer(8, 1 / 128, 128)
# What LiteRT computes in int8: the operator, its version for int8, the quantizer that it insists on
_NATIVE = {
    "sigmoid": ("LOGISTIC", 2, PROBABILITIES),
    "tanh": ("TANH", 2, _TANH),
    "hardswish": ("HARD_SWISH", 1, None),
    "leaky_relu": ("LEAKY_RELU", 2, None),
    "elu": ("ELU", 1, None),
    "gelu": ("GELU", 2, None),
}
_NOT_MICRO = {"gelu"}  # TensorFlow Lite Micro has the others
_CODES = np.arange(-128, 128)
_LARGEST_BIAS = 2.0**30


def _lookup(tensors: Tensors, step: Lookup) -> None:
    kind, *numbers = step.function.split()
    if any(word.isidentifier() for word in numbers):  # several operators: `sigmoid mul sub`
        _gathered(tensors, step)
    elif kind == "silu":
        _silu(tensors, step)
    elif kind in _NATIVE and not (tensors.file.micro and kind in _NOT_MICRO):
        _native(tensors, step, kind, numbers)
    else:
        _gathered(tensors, step)


def _native(tensors: Tensors, step: Lookup, kind: str, numbers: list[str]) -> None:
    operator, version, fixed = _NATIVE[kind]
    (name,) = step.sources
    layout, quantizer = tensors.layout(name), tensors.quantizers[step.output.name]
    source, stored = tensors.read(name, layout), stored_shape(step.output.shape, layout)
    options: dict[str, Any] = {"alpha": float(numbers[0])} if kind == "leaky_relu" else {}
    table = {"leaky_relu": "LeakyReluOptions", "gelu": "GeluOptions"}.get(kind, "")

    def write(target: int) -> None:
        if fixed is None or fixed == quantizer:
            tensors.file.operator(operator, version, [source], [target], table, **options)
            return
        exact = tensors.scratch(f"{step.output.name} {operator}", stored, fixed)
        tensors.file.operator(operator, version, [source], [exact], table, **options)
        tensors.file.operator("QUANTIZE", 1, [exact], [target], "QuantizeOptions")

    clip = clip_of(step.low, step.high, step.output, quantizer, fusable=False)
    write_clipped(tensors, step.output, layout, clip, write)


def _silu(tensors: Tensors, step: Lookup) -> None:
    """x times LOGISTIC of x, as LiteRT's own converter writes it."""
    (name,) = step.sources
    layout, quantizer = tensors.layout(name), tensors.quantizers[step.output.name]
    source, stored = tensors.read(name, layout), stored_shape(step.output.shape, layout)
    clip = clip_of(step.low, step.high, step.output, quantizer)

    def write(target: int) -> None:
        factor = tensors.scratch(f"{step.output.name} LOGISTIC", stored, PROBABILITIES)
        tensors.file.operator("LOGISTIC", 2, [source], [factor])
        tensors.file.operator(
            "MUL", 2, [source, factor], [target], "MulOptions", fusedActivationFunction=clip.fused
        )

    write_clipped(tensors, step.output, layout, clip, write)


def _gathered(tensors: Tensors, step: Lookup) -> None:
    """CAST to int32, ADD 128, GATHER from the 256 results."""
    (name,) = step.sources
    file, layout = tensors.file, tensors.layout(name)
    read, quantizer = tensors.quantizers[name], tensors.quantizers[step.output.name]
    real = (_CODES + 128 - read.zero_point) * read.scale
    given = np.clip(np.rint(real / tensors.integers[name].scale), -32767, 32767)
    values = step.compute(given.astype(np.int16)) - step.output.zero_point
    codes = np.rint(values * step.output.scale / quantizer.scale) + quantizer.zero_point - 128
    results = file.tensor(
        f"{step.output.name} table", (256,), "INT8", scales_of(quantizer), np.clip(codes, -128, 127)
    )
    stored = stored_shape(step.output.shape, layout)
    cast = file.tensor(f"{step.output.name} code", stored, "INT32")
    place = file.tensor(f"{step.output.name} place", stored, "INT32")
    types = file.schema.TensorType
    file.operator(
        "CAST", 1, [tensors.read(name, layout)], [cast], "CastOptions",
        inDataType=types.INT8, outDataType=types.INT32,
    )  # fmt: skip
    file.operator("ADD", 1, [cast, tensors.indices((128,))], [place], "AddOptions")
    target = tensors.new(step.output.name, step.output.shape, quantizer, layout)
    file.operator("GATHER", 2, [results, place], [target], "GatherOptions", axis=0)


def _interval(tensors: Tensors, step: Interval) -> None:
    """Two comparisons of int32, as real numbers 0 and 1."""
    (name,) = step.sources
    file, out = tensors.file, step.output.name
    stored, source = stored_shape(step.output.shape, FIRST), tensors.read(name, FIRST)

    def made(operator: str, inputs: list[int], what: str, options: str = "") -> int:
        target = file.tensor(f"{out} {what}", stored, "BOOL")
        file.operator(operator, 1, inputs, [target], options)
        return target

    above = made("GREATER_EQUAL", [source, tensors.indices((step.first,))], "from",
                 "GreaterEqualOptions")  # fmt: skip
    below = made("LESS_EQUAL", [source, tensors.indices((step.last,))], "to", "LessEqualOptions")
    found = made("LOGICAL_AND", [above, below], "inside", "LogicalAndOptions")
    if step.inside < step.outside:
        found = made("LOGICAL_NOT", [found], "outside", "LogicalNotOptions")
    real = file.tensor(f"{out} real", stored, "FLOAT32")
    types = file.schema.TensorType
    file.operator("CAST", 1, [found], [real], "CastOptions", inDataType=types.BOOL,
                  outDataType=types.FLOAT32)  # fmt: skip
    target = tensors.new(out, step.output.shape, tensors.quantizers[out])
    file.operator("QUANTIZE", 1, [real], [target], "QuantizeOptions")


def _multiply(tensors: Tensors, step: Multiply) -> None:
    of_two(tensors, step, _layout(tensors, step), "MUL", "MulOptions")


def _layout(tensors: Tensors, step: Step) -> str:
    """Channels last where a source that is not repeated is there already."""
    shape = step.output.shape
    known = {tensors.layout(n) for n in step.sources if tensors.shapes[n] == shape}
    return LAST if LAST in known else FIRST


def _affine(tensors: Tensors, step: Affine) -> None:
    factors = [
        np.ldexp(multipliers.astype(np.float64), -step.shift)
        * (step.output.scale / tensors.integers[name].scale)
        for name, multipliers in zip(step.sources, step.multipliers, strict=True)
    ]
    constant = np.ldexp(step.offset.astype(np.float64), step.raised - step.shift)
    constant = constant * step.output.scale
    if len(step.sources) > 1:
        _combine(tensors, step, [float(factor) for factor in factors])
        return
    dimensions = len(step.output.shape)
    varying = {
        axis
        for values in (factors[0], constant)
        for axis, length in enumerate(values.shape)
        if length > 1
    }
    if dimensions == 0:  # one number for each sample
        _with_constants(tensors, step, factors[0], constant)
    elif varying <= {0} and dimensions <= 3:
        _per_channel(tensors, step, factors[0], constant, LAST)
    elif varying <= {dimensions - 1}:
        _per_channel(tensors, step, factors[0], constant, FIRST)
    else:
        _with_constants(tensors, step, factors[0], constant)


def _per_channel(
    tensors: Tensors, step: Affine, factors: Floats, constant: Floats, layout: str
) -> None:
    """A depthwise 1x1 convolution: exact factors as weight scales, 32-bit constants as biases.

    With channels FIRST the last axis is the one that factors differ along.
    """
    (name,) = step.sources
    file, output, shape = tensors.file, step.output.name, step.output.shape
    channels = shape[0 if layout == LAST else -1]
    read = tensors.quantizers[name]
    factors = np.broadcast_to(factors.reshape(-1), channels)
    constant = np.broadcast_to(constant.reshape(-1), channels)
    reach = np.maximum(np.abs(factors) / 127, np.abs(constant) / read.scale / _LARGEST_BIAS)
    reach = np.maximum(reach, np.max(reach) * 2.0**-20 or 1.0).astype(np.float32)
    codes = np.clip(np.rint(factors / reach), -127, 127)
    weight = file.tensor(
        f"{output} factors", (1, 1, 1, channels), "INT8", Scales(tuple(reach.tolist()), 0, 3), codes
    )
    steps = (reach * np.float32(read.scale)).astype(np.float32)
    bias = file.tensor(
        f"{output} constants", (channels,), "INT32", Scales(tuple(steps.tolist())),
        np.rint(constant / steps.astype(np.float64)),
    )  # fmt: skip
    clip = clip_of(step.low, step.high, step.output, tensors.quantizers[output])
    source, stored = tensors.read(name, layout), stored_shape(shape, layout)
    image = (1, 1, int(np.prod(stored[:-1])), channels) if layout == FIRST else stored

    def write(target: int) -> None:
        given, result = source, target
        if image != stored:
            given = tensors.scratch(f"{output} read", image, read)
            tensors.reshape(source, given, image)
            result = tensors.scratch(f"{output} image", image, tensors.quantizers[output])
        file.operator(
            "DEPTHWISE_CONV_2D", 3, [given, weight, bias], [result], "DepthwiseConv2DOptions",
            padding=1, strideH=1, strideW=1, depthMultiplier=1, dilationHFactor=1,
            dilationWFactor=1, fusedActivationFunction=clip.fused,
        )  # fmt: skip
        if image != stored:
            tensors.reshape(result, target, stored)

    write_clipped(tensors, step.output, layout, clip, write)


def _with_constants(tensors: Tensors, step: Affine, factors: Floats, constant: Floats) -> None:
    """MUL by a constant tensor, ADD of a constant tensor, each where it is needed."""
    (name,) = step.sources
    file, output = tensors.file, step.output.name
    layout = _layout(tensors, step)
    source, quantizer = tensors.read(name, layout), tensors.quantizers[output]
    clip = clip_of(step.low, step.high, step.output, quantizer)

    def write(target: int) -> None:
        read = source
        if not np.allclose(factors, 1, rtol=1e-6):
            by = _constant(tensors, f"{output} factors", factors, len(step.output.shape), layout)
            read = target
            if constant.any():
                low, high = _ends(tensors.quantizers[name])
                ends = [factors.min() * low, factors.min() * high,
                        factors.max() * low, factors.max() * high]  # fmt: skip
                between = affine(8, float(min(ends)), float(max(ends)))
                read = tensors.scratch(
                    f"{output} multiplied", stored_shape(step.output.shape, layout), between
                )
            file.operator(
                "MUL", 2, [source, by], [read], "MulOptions",
                fusedActivationFunction=0 if constant.any() else clip.fused,
            )  # fmt: skip
        if constant.any() or read == source:
            more = _constant(
                tensors, f"{output} constants", constant, len(step.output.shape), layout
            )
            file.operator(
                "ADD", 2, [read, more], [target], "AddOptions", fusedActivationFunction=clip.fused
            )

    write_clipped(tensors, step.output, layout, clip, write)


def _ends(quantizer: ActivationQuantizer) -> tuple[float, float]:
    low = -quantizer.zero_point * quantizer.scale
    return low, low + (2**quantizer.bits - 1) * quantizer.scale


def _constant(tensors: Tensors, name: str, values: Floats, dimensions: int, layout: str) -> int:
    """An int8 constant with as many axes as a stored tensor of so many dimensions."""
    values = values.reshape(values.shape or (1,) * dimensions)
    if layout == LAST:
        values = np.moveaxis(values, 0, -1)
    stored = (1,) * (4 - values.ndim if layout == LAST else 1) + values.shape
    quantizer = affine(8, float(min(values.min(), 0.0)), float(max(values.max(), 0.0)))
    codes = np.rint(values / quantizer.scale) + quantizer.zero_point - 128
    return tensors.file.tensor(
        name, stored, "INT8", scales_of(quantizer), np.clip(codes, -128, 127)
    )


def _combine(tensors: Tensors, step: Affine, factors: list[float]) -> None:
    """ADD or SUB; a factor other than 1 takes a MUL, which only changes the scale."""
    names, layout = step.sources, _layout(tensors, step)
    minus = factors[1] < 0
    signed = [factors[0], abs(factors[1])]
    sources = [
        _scaled(tensors, step, name, factor, layout)
        for name, factor in zip(names, signed, strict=True)
    ]
    clip = clip_of(step.low, step.high, step.output, tensors.quantizers[step.output.name])

    def write(target: int) -> None:
        tensors.file.operator(
            "SUB" if minus else "ADD", 2, sources, [target],
            "SubOptions" if minus else "AddOptions", fusedActivationFunction=clip.fused,
        )  # fmt: skip

    write_clipped(tensors, step.output, layout, clip, write)


def _scaled(tensors: Tensors, step: Step, name: str, factor: float, layout: str) -> int:
    source = tensors.read(name, layout)
    if abs(factor - 1) < 1e-6:
        return source
    read = tensors.quantizers[name]
    zero = read.zero_point if factor > 0 else 255 - read.zero_point  # the same codes, or mirrored
    target = tensors.scratch(
        f"{name} for {step.output.name}",
        stored_shape(tensors.shapes[name], layout),
        ActivationQuantizer(8, read.scale * abs(factor), zero),
    )
    by = tensors.file.tensor(
        f"{name} factor of {step.output.name}", (1,), "INT8", Scales((abs(factor) / 127,)),
        np.array([127 if factor > 0 else -127]),
    )  # fmt: skip
    tensors.file.operator("MUL", 2, [source, by], [target], "MulOptions")
    return target


def _prelu(tensors: Tensors, step: Prelu) -> None:
    (name,) = step.sources
    layout = tensors.layout(name)
    slopes = step.negative.astype(np.float64) / step.positive
    source = tensors.read(name, layout)
    alpha = _constant(tensors, f"{step.output.name} slopes", slopes, len(step.output.shape), layout)
    stored = tensors.file.tensors[alpha].shape
    tensors.file.tensors[alpha].shape = stored[1:]  # PRELU broadcasts it over the batch
    clip = clip_of(step.low, step.high, step.output, tensors.quantizers[step.output.name],
                   fusable=False)  # fmt: skip

    def write(target: int) -> None:
        tensors.file.operator("PRELU", 1, [source, alpha], [target])

    write_clipped(tensors, step.output, layout, clip, write)


WRITERS: Mapping[type[Step], Callable[[Tensors, Any], None]] = {
    Lookup: _lookup,
    Interval: _interval,
    Affine: _affine,
    Multiply: _multiply,
    Prelu: _prelu,
}

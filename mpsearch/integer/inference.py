"""Running an `IntegerGraph` on codes: numpy, integers only.

The integer operations on numpy arrays [N, …], one function per step that computes.

Sums of products may go through floating-point BLAS (`exact_blas`): the operands are integers and
the sum of their magnitudes stays below 2^24 (float32) or 2^53 (float64), so that every partial sum
in every order is an integer that the format holds, and the result is the exact one. numpy's own
integer products have no BLAS: ResNet-20 takes 13 times longer with them.

`IntegerNetwork`: floats in, floats out, integers between; it can stand for the network.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt
import torch

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.integer.fixed_point import Integers, divide_round, rescale, saturate, softmax
from mpsearch.integer.graph import (
    Add,
    ArgMax,
    AveragePool,
    Clamp,
    ComputedStep,
    Concatenate,
    Convolution,
    Embedding,
    IntegerGraph,
    IntegerTensor,
    Linear,
    MaxPool,
    Mean,
    Pad,
    Pair,
    Permute,
    Requantize,
    Reshape,
    Slice,
    Softmax,
    TransposedConvolution,
)
from mpsearch.integer.lowering import lower
from mpsearch.integer.products import MatMul
from mpsearch.quantization.quantized import QuantizedNetwork


def convolution(step: Convolution, codes: Integers, exact_blas: bool) -> Integers:
    """[N, C, (H,) W] -> [N, O, (H',) W'], int64."""
    kind = _arithmetic(step, exact_blas)
    image = codes if codes.ndim == 4 else codes[:, :, None]
    top, left, bottom, right = step.padding
    # The zero point is subtracted before padding: a padded place means zero.
    centred = image.astype(kind) - kind(step.weights.zero_point)
    if any(step.padding):
        centred = np.pad(centred, ((0, 0), (0, 0), (top, bottom), (left, right)))
    outputs, _, kh, kw = step.weights.codes.shape
    size = (
        (centred.shape[2] - step.dilation[0] * (kh - 1) - 1) // step.stride[0] + 1,
        (centred.shape[3] - step.dilation[1] * (kw - 1) - 1) // step.stride[1] + 1,
    )
    sums = (_depthwise if step.weights.codes.shape[1] == 1 else _grouped)(step, centred, size, kind)
    accumulators = _accumulators(step, sums)
    accumulators += step.weights.bias.astype(accumulators.dtype)[:, None, None]
    result = _output(step, accumulators, axis=1)
    return result if codes.ndim == 4 else result.reshape(len(codes), outputs, size[1])


def transposed_convolution(
    step: TransposedConvolution, codes: Integers, exact_blas: bool
) -> Integers:
    """[N, C, (H,) W] -> [N, O, (H',) W'], int64: one matrix product for every place of the kernel,
    added where it lands."""
    kind = _arithmetic(step, exact_blas)
    image = codes if codes.ndim == 4 else codes[:, :, None]
    centred = image.astype(kind) - kind(step.weights.zero_point)
    outputs, inputs, kh, kw = step.weights.codes.shape
    batch, _, height, width = image.shape
    centred = centred.reshape(batch, step.groups, inputs, height * width)
    weight = step.weights.codes.astype(kind).reshape(step.groups, -1, inputs, kh, kw)
    rows, columns = (1, *step.output.shape[1:])[-2:]
    (top, left), strides = step.padding[:2], step.stride
    full = [
        max((n - 1) * s + (k - 1) * d + 1, before + after)
        for n, s, k, d, before, after in zip(
            (height, width), strides, (kh, kw), step.dilation, (top, left), (rows, columns),
            strict=True,
        )
    ]  # fmt: skip
    sums = np.zeros_like(centred, shape=(batch, outputs, *full))
    for i in range(kh):
        for j in range(kw):
            products = (weight[..., i, j] @ centred).reshape(batch, outputs, height, width)
            y, x = i * step.dilation[0], j * step.dilation[1]
            sums[:, :, y :: strides[0], x :: strides[1]][:, :, :height, :width] += products
    accumulators = _accumulators(step, sums[:, :, top : top + rows, left : left + columns])
    accumulators += step.weights.bias.astype(accumulators.dtype)[:, None, None]
    return _output(step, accumulators, axis=1).reshape(batch, *step.output.shape)


def linear(step: Linear, codes: Integers, exact_blas: bool) -> Integers:
    """[N, …, I] -> [N, …, O], int64."""
    kind = _arithmetic(step, exact_blas)
    centred = codes.astype(kind) - kind(step.weights.zero_point)
    accumulators = _accumulators(step, centred @ step.weights.codes.astype(kind).T)
    accumulators += step.weights.bias.astype(accumulators.dtype)
    return _output(step, accumulators, axis=accumulators.ndim - 1)


def embedding(step: Embedding, numbers: Integers) -> Integers:
    """[N, …] -> [N, …, columns], int64."""
    rows = np.clip(numbers, 0, len(step.weights.codes) - 1)
    table = _output(step, step.weights.codes.astype(np.int64), axis=0)
    found: Integers = np.empty_like(rows, dtype=np.int64, shape=(*rows.shape, table.shape[1]))
    found[...] = table[rows]
    return found


def _arithmetic(step: Convolution | Linear, exact_blas: bool) -> type[np.generic]:
    """The type whose sums of products are exact."""
    if exact_blas and step.weights.bound < 2**24:
        return np.float32
    if exact_blas and step.weights.bound < 2**53:
        return np.float64
    return np.int32 if step.weights.accumulator_bits == 32 else np.int64


def _accumulators(step: Convolution | Linear, sums: npt.NDArray[np.generic]) -> Integers:
    return sums.astype(np.int32 if step.weights.accumulator_bits == 32 else np.int64)


def _output(step: Convolution | Linear, accumulators: Integers, axis: int) -> Integers:
    scaled = rescale(accumulators, step.rescale, axis)
    scaled += step.output.zero_point
    return saturate(scaled, step.low, step.high)


def _tap(
    image: npt.NDArray[np.generic], row: int, column: int, size: Pair, step: Convolution
) -> npt.NDArray[np.generic]:
    """What one place of the kernel sees at every output position."""
    return image[
        :,
        :,
        row * step.dilation[0] :: step.stride[0],
        column * step.dilation[1] :: step.stride[1],
    ][:, :, : size[0], : size[1]]


def _depthwise(
    step: Convolution, image: npt.NDArray[np.generic], size: Pair, kind: type[np.generic]
) -> npt.NDArray[np.generic]:
    """One input channel per output channel: a sum over the places of the kernel."""
    outputs, _, kh, kw = step.weights.codes.shape
    weight = step.weights.codes[:, 0].astype(kind)
    image = np.repeat(image, outputs // step.groups, axis=1)
    sums = np.zeros_like(image, shape=(len(image), outputs, *size))
    for row in range(kh):
        for column in range(kw):
            sums += _tap(image, row, column, size, step) * weight[:, row, column, None, None]
    return sums


def _grouped(
    step: Convolution, image: npt.NDArray[np.generic], size: Pair, kind: type[np.generic]
) -> npt.NDArray[np.generic]:
    """Columns of all places that meet in one output, then one matrix product per group."""
    outputs, inputs, kh, kw = step.weights.codes.shape
    columns = np.empty_like(image, shape=(len(image), image.shape[1], kh, kw, *size))
    for row in range(kh):
        for column in range(kw):
            columns[:, :, row, column] = _tap(image, row, column, size, step)
    terms = inputs * kh * kw
    columns = columns.reshape(len(image), step.groups, terms, size[0] * size[1])
    weight = step.weights.codes.astype(kind).reshape(step.groups, outputs // step.groups, terms)
    return (weight @ columns).reshape(len(image), outputs, *size)


def max_pool(step: MaxPool, codes: Integers, lowest: int) -> Integers:
    """Maximum over windows; `lowest` is the smallest code, which stands in what is padded."""
    flat = codes.ndim == 3
    image = codes[:, :, None] if flat else codes
    rows, columns = ((1, *step.output.shape[-1:]) if flat else step.output.shape)[-2:]
    last = [
        (count - 1) * stride + dilation * (kernel - 1) + 1
        for count, stride, dilation, kernel in zip(
            (rows, columns), step.stride, step.dilation, step.kernel, strict=True
        )
    ]
    pads = [
        (before, max(0, end - before - length))
        for before, end, length in zip(step.padding, last, image.shape[2:], strict=True)
    ]
    image = np.pad(image, ((0, 0), (0, 0), *pads), constant_values=lowest)
    best = None
    for row in range(step.kernel[0]):
        for column in range(step.kernel[1]):
            seen = image[
                :,
                :,
                row * step.dilation[0] :: step.stride[0],
                column * step.dilation[1] :: step.stride[1],
            ][:, :, :rows, :columns]
            best = seen if best is None else np.maximum(best, seen)
    assert best is not None
    return best.reshape(len(codes), *step.output.shape)


def average_pool(step: AveragePool, codes: Integers) -> Integers:
    """Sums over windows (int64), divided by the counts."""
    image = codes[..., None, :] if codes.ndim == 3 else codes
    by_row = np.stack([image[..., a:b, :].sum(axis=-2, dtype=np.int64) for a, b in step.rows], -2)
    sums = np.stack([by_row[..., a:b].sum(axis=-1, dtype=np.int64) for a, b in step.columns], -1)
    if step.scaling is None:
        means = divide_round(sums, step.counts)
    else:
        taken = np.array([[(b - a) * (d - c) for c, d in step.columns] for a, b in step.rows])
        means = step.scaling.means(sums, taken, step.output.zero_point)
    return means.reshape(len(codes), *step.output.shape)


def mean(step: Mean, codes: Integers) -> Integers:
    """Sum over whole axes (int64), divided by the number of elements."""
    axes = tuple(axis + 1 for axis in step.axes)
    count = int(np.prod([codes.shape[axis] for axis in axes]))
    sums = codes.sum(axis=axes, dtype=np.int64)
    if step.scaling is None:
        means = divide_round(sums, count)
    else:
        means = step.scaling.means(sums, count, step.output.zero_point)
    return means.reshape(len(codes), *step.output.shape)


Operation = (
    Convolution | Linear | Requantize | Clamp | Add | MaxPool | AveragePool | Mean | Concatenate
    | Reshape | Permute | Slice | Pad | Softmax | ArgMax | ComputedStep
)  # fmt: skip


def run(graph: IntegerGraph, *inputs: Integers, exact_blas: bool = True) -> Integers:
    """The output's codes [N, …] for the codes of `graph.inputs`, in that order.

    With `exact_blas` sums of products go through floating-point BLAS where that is exact; without
    it every intermediate value has an integer dtype, and the codes that come out are the same.
    """
    return run_all(graph, *inputs, exact_blas=exact_blas, keep=False)[graph.output.name]


def run_all(
    graph: IntegerGraph, *inputs: Integers, exact_blas: bool = True, keep: bool = True
) -> dict[str, Integers]:
    """Every tensor's codes by name; with `keep` false only those that are still needed."""
    values = {entry.tensor.name: x for entry, x in zip(graph.inputs, inputs, strict=True)}
    tensors = graph.tensors
    last_use = {name: i for i, step in enumerate(graph.steps) for name in step.sources}
    for i, step in enumerate(graph.steps):
        sources = [values[name] for name in step.sources]
        lowest = tensors[step.sources[0]].low
        result = _apply(step, sources, lowest, exact_blas)  # type: ignore[arg-type]
        values[step.output.name] = result.astype(step.output.dtype, copy=False)
        if not keep:
            for name in set(step.sources):
                if last_use[name] == i and name != graph.output.name:
                    del values[name]
    return values


def _apply(step: Operation, sources: list[Integers], lowest: int, exact_blas: bool) -> Integers:
    x = sources[0]
    match step:
        case TransposedConvolution():
            return transposed_convolution(step, x, exact_blas)
        case Convolution():
            return convolution(step, x, exact_blas)
        case Embedding():
            return embedding(step, x)
        case Linear():
            return linear(step, x, exact_blas)
        case Requantize():
            centred = x.astype(np.int64) - step.source_zero
            scaled = rescale(centred, step.rescale) + step.output.zero_point
            return saturate(scaled, step.low, step.high)
        case Clamp():
            return saturate(x, step.low, step.high)
        case Add():
            return saturate(x.astype(np.int64) + sources[1], step.low, step.high)
        case MaxPool():
            return max_pool(step, x, lowest)
        case AveragePool():
            return average_pool(step, x)
        case Mean():
            return mean(step, x)
        case Concatenate():
            return np.concatenate(sources, axis=step.axis + 1)
        case Reshape():
            return x.reshape(len(x), *step.output.shape)
        case Permute():
            return x.transpose(0, *(axis + 1 for axis in step.axes))
        case Slice():
            before = (slice(None),) * (step.axis + 1)
            return x[(*before, slice(step.start, step.end, step.step))]
        case Pad():
            return _pad(step, x)
        case Softmax():
            return softmax(x, step.axis + 1, step.rescale)
        case ArgMax():
            return _argmax(step, x)
        case MatMul() if exact_blas:
            return step.by_blas(*sources)
        case ComputedStep():
            return step.compute(*sources)
        case _:
            assert_never(step)


def _pad(step: Pad, x: Integers) -> Integers:
    crop = tuple(
        slice(max(0, -before), x.shape[axis + 1] - max(0, -after))
        for axis, (before, after) in enumerate(step.pads)
    )
    pads = [(max(0, before), max(0, after)) for before, after in step.pads]
    return np.pad(x[(slice(None), *crop)], ((0, 0), *pads), constant_values=step.value)


def _argmax(step: ArgMax, x: Integers) -> Integers:
    index = x.argmax(axis=step.axis + 1)
    return np.asanyarray(index.reshape(len(x), *step.output.shape))


@dataclass(frozen=True)
class IntegerNetwork:
    """Calls like the quantized network: inputs [N, …] -> outputs [N, …], float32 logits.

    An output of arg-max is int64. The border is the only place with floating point.
    """

    graph: IntegerGraph
    """The integer steps, their constants and the quantizers of inputs and output."""
    exact_blas: bool = True
    """Whether sums of products go through floating-point BLAS where that is exact; the results are
    the same without, only later."""

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        codes = [quantize_input(inputs[e.index].numpy(), e.tensor) for e in self.graph.inputs]
        output = self.graph.output
        values = run(self.graph, *codes, exact_blas=self.exact_blas)
        if self.graph.gives_classes:
            return torch.from_numpy(values.astype(np.int64))
        real = (values.astype(np.float64) - output.zero_point) * output.scale
        return torch.from_numpy(real.astype(np.float32))


def integer_network(
    quantized: QuantizedNetwork,
    calibration: Data,
    batch_size: int = 64,
    wide_bits: int | None = None,
) -> IntegerNetwork:
    """Lower `quantized`, with ranges of wide tensors from `calibration`. Arguments as of `lower`.

    Integers are computed on the CPU, wherever `quantized` is.
    """
    quantized = quantized.to(torch.device("cpu"))
    return IntegerNetwork(lower(quantized, calibration, batch_size, wide_bits))


def ranges_from(calibration: Data | None) -> Data:
    """`calibration` itself; InputError where a command found none."""
    if calibration is None:
        raise InputError(
            "integers need data for the ranges of sums and outputs; give --calibration, or --fp32 "
            "with a model that carries a sample"
        )
    return calibration


def quantize_input(x: np.ndarray, tensor: IntegerTensor) -> Integers:
    """Codes of real inputs, as torch's fake-quantizer has them.

    round(float32(x) · float32(1/scale)) + zero point for codes, in float64 with the exact scale
    for a signed (wide) tensor; half to even, saturated.
    """
    if tensor.signed:
        rounded = np.rint(x.astype(np.float64) / tensor.scale)
    else:
        inverse = np.float32(1) / np.float32(tensor.scale)
        rounded = np.rint(x.astype(np.float32) * inverse).astype(np.float64)
    codes: Integers = np.clip(rounded + tensor.zero_point, tensor.low, tensor.high)
    return codes.astype(tensor.dtype)


def outputs(network: Callable[..., torch.Tensor], data: Data, batch_size: int = 64) -> torch.Tensor:
    """The outputs of any network over `data`, batch by batch: [N, …]."""
    with torch.no_grad():
        return torch.cat([network(*inputs) for inputs, _ in data.batches(batch_size)])

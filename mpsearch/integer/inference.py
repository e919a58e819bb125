"""Running an `IntegerGraph` on codes: numpy, integers only."""

from typing import assert_never

import numpy as np

from mpsearch.integer.fixed_point import Integers, rescale, saturate
from mpsearch.integer.graph import (
    Add,
    ArgMax,
    AveragePool,
    Clamp,
    Concatenate,
    Convolution,
    IntegerGraph,
    Linear,
    MaxPool,
    Mean,
    Pad,
    Permute,
    Requantize,
    Reshape,
    Slice,
    Softmax,
)
from mpsearch.integer.kernels import average_pool, convolution, linear, max_pool, mean
from mpsearch.integer.softmax import softmax

Operation = (
    Convolution | Linear | Requantize | Clamp | Add | MaxPool | AveragePool | Mean | Concatenate
    | Reshape | Permute | Slice | Pad | Softmax | ArgMax
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
        case Convolution():
            return convolution(step, x, exact_blas)
        case Linear():
            return linear(step, x, exact_blas)
        case Requantize():
            scaled = rescale(x, step.rescale) + step.output.zero_point
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

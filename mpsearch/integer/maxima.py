"""Maxima: pooling, over whole axes, and over windows of unequal size."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from torch import fx

from mpsearch.graph.layers import argument, packet
from mpsearch.integer.gathering import Gather
from mpsearch.integer.graph import IntegerTensor, MaxPool, Permute, Reshape, Shape, Step
from mpsearch.integer.operators import (
    integers,
    operation,
    pair,
    sample_axis,
    sources,
    unsupported,
)


def part_of(output: IntegerTensor, shape: Shape, number: int) -> IntegerTensor:
    """A tensor between two steps of one operator, with the output's scale: `NAME.1`, …"""
    return replace(output, name=f"{output.name}.{number + 1}", shape=shape)


def maximum_steps(node: fx.Node, source: IntegerTensor, output: IntegerTensor) -> tuple[Step, ...]:
    """The steps of an operator that takes maxima. Raises InputError for those over the batch."""
    computing = operation(node)
    name = packet(computing)
    if name.startswith("max_pool"):
        return (_pool(computing, source, output),)
    if name.startswith("adaptive"):
        return _adaptive(source, output)
    parameters = {p.name for p in computing.target._schema.arguments}  # type: ignore[union-attr]
    dims = argument(computing, "dim") if "dim" in parameters else None
    if dims is None or dims == []:
        raise unsupported(computing, "takes the maximum over the batch, or of two tensors")
    dimensions = len(sources(node)[0].meta["shape"])
    return _over_axes(
        source, output, [sample_axis(computing, axis, dimensions) for axis in integers(dims)]
    )


def _pool(node: fx.Node, source: IntegerTensor, output: IntegerTensor) -> Step:
    flat = packet(node) == "max_pool1d"
    kernel = pair(argument(node, "kernel_size"), flat, 1)
    stride = argument(node, "stride")
    return MaxPool(
        (source.name,),
        output,
        kernel,
        pair(stride, flat, 1) if stride else kernel,
        pair(argument(node, "padding"), flat, 0),
        pair(argument(node, "dilation"), flat, 1),
    )


def _over_axes(
    source: IntegerTensor, output: IntegerTensor, axes: Sequence[int]
) -> tuple[Step, ...]:
    """A pooling with one window, over the whole of the last axes."""
    shape, steps, name = source.shape, list[Step](), source.name
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    image = len(shape) == 3 and sorted(axes) == [1, 2]
    window = (shape[1], shape[2]) if image else (1, prod(shape[axis] for axis in axes))
    pooled = (prod(shape[axis] for axis in kept), *(1, 1)[: 2 if image else 1])
    if not image:
        order = (*kept, *sorted(axes))
        if order != tuple(range(len(shape))):
            turned = part_of(output, tuple(shape[axis] for axis in order), len(steps))
            steps.append(Permute((name,), turned, order))
            name = turned.name
        flat = (pooled[0], window[1])
        if flat != tuple(shape[axis] for axis in order):
            line = part_of(output, flat, len(steps))
            steps.append(Reshape((name,), line))
            name = line.name
    result = output if output.shape == pooled else part_of(output, pooled, len(steps))
    steps.append(MaxPool((name,), result, window, window, (0, 0), (1, 1)))
    if result is not output:
        steps.append(Reshape((result.name,), output))
    return tuple(steps)


def _adaptive(source: IntegerTensor, output: IntegerTensor) -> tuple[Step, ...]:
    """Windows floor(i·n/o) to ceil((i + 1)·n/o), as torch has them, brought to the length of the
    longest by repeating their last element, which changes no maximum."""
    first = len(source.shape) - (1 if len(source.shape) == 2 else 2)
    shape, maps, kernel = list(source.shape), [], [1]
    for axis, (n, o) in enumerate(zip(source.shape, output.shape, strict=True)):
        windows = [(i * n // o, -((i + 1) * n // -o)) for i in range(o)]
        longest = max(end - start for start, end in windows)
        if axis < first:
            maps.append(tuple(range(n)))
            continue
        kernel.append(longest)
        maps.append(tuple(min(a + k, b - 1) for a, b in windows for k in range(longest)))
        shape[axis] = o * longest
    window = (kernel[-2], kernel[-1])
    steps, name = list[Step](), source.name
    if any(table != tuple(range(n)) for table, n in zip(maps, source.shape, strict=True)):
        wider = part_of(output, tuple(shape), 0)
        strides = [prod(source.shape[axis + 1 :]) for axis in range(len(source.shape))]
        tables = tuple(
            tuple(i * stride for i in table) for table, stride in zip(maps, strides, strict=True)
        )
        steps.append(Gather((name,), wider, 0, tables))
        name = wider.name
    steps.append(MaxPool((name,), output, window, window, (0, 0), (1, 1)))
    return tuple(steps)

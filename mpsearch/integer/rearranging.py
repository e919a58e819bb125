"""Which step moves the elements of a sample as an operator does, whatever operator says so.

Where each element comes from is found by running the operator on the numbers 0, 1, 2, … in place of
the values. Two samples at once prove that it does not mix samples. The map is then written as one
table per axis of the output, or as a step that says less: Reshape, Permute, Slice.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import fx

from mpsearch.graph.layers import packet
from mpsearch.graph.tensors import get_tensor
from mpsearch.integer.fixed_point import Integers
from mpsearch.integer.gathering import Gather, separated
from mpsearch.integer.graph import IntegerTensor, Permute, Reshape, Shape, Slice, Step
from mpsearch.integer.operators import sample_shape, unsupported


def rearranging_step(
    node: fx.Node, source: fx.Node, names: tuple[str, ...], output: IntegerTensor
) -> Step | None:
    """The step of an operator that only moves elements of `source`; None where nothing moves.

    Raises InputError where it does something else with these arguments, or mixes samples.
    """
    shape = sample_shape(source)
    return simplest(names, output, shape, index_map(node, source), node)


def index_map(node: fx.Node, source: fx.Node) -> Integers:
    """[output shape]: the row-major number of the element of `source` that is found there."""
    shape = sample_shape(source)
    count = prod(shape)
    numbers = torch.arange(2 * count, dtype=torch.float64).reshape(2, *shape)
    known: dict[fx.Node, Any] = {source: numbers}
    if packet(node).endswith("_as"):  # of the other tensor only the shape matters
        other = node.args[1]
        assert isinstance(other, fx.Node)
        known[other] = torch.zeros(2, *sample_shape(other), dtype=torch.float64)
    try:
        found = _evaluate(node, known)
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        raise unsupported(node, "depends on more than its input") from error
    if not isinstance(found, torch.Tensor) or found.shape != (2, *sample_shape(node)):
        raise unsupported(node, "moves the batch dimension")
    first, second = found.to(torch.int64).numpy()
    inside = np.array_equal(found[0].numpy(), first) and bool(
        ((first >= 0) & (first < count)).all()
    )
    if not inside or not np.array_equal(second, first + count):
        raise unsupported(node, "moves the batch dimension")
    return np.asarray(first)


def _evaluate(node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    """The node's value for two samples, given those of `known` and what never changes."""
    if node in known:
        return known[node]
    if node.op == "get_attr":
        assert node.graph.owning_module is not None
        return get_tensor(node.graph.owning_module, str(node.target))
    if packet(node) == "sym_size":
        (source, dim) = node.args
        assert isinstance(source, fx.Node)
        return (2, *sample_shape(source))[dim]  # type: ignore[index]
    if node.op == "placeholder":
        raise ValueError("another input")
    assert callable(node.target)
    arguments, keywords = fx.map_arg(
        (node.args, node.kwargs), lambda argument: _evaluate(argument, known)
    )
    known[node] = node.target(*arguments, **keywords)
    return known[node]


def simplest(
    names: tuple[str, ...], output: IntegerTensor, shape: Shape, indices: Integers, node: fx.Node
) -> Step | None:
    """The step that says least: `indices` are row-major numbers of a source of this shape."""
    if np.array_equal(indices.reshape(-1), np.arange(prod(shape))):
        return None if output.shape == shape else Reshape(names, output)
    found = separated(indices)
    if found is None:
        raise unsupported(node, "gathers elements that no table per axis describes")
    start, offsets = found
    strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    if len(shape) == len(offsets):
        axes = _permuted(shape, strides, offsets)
        if axes is not None and start == 0:
            return Permute(names, output, axes)
        part = _sliced(shape, strides, start, offsets)
        if part is not None:
            return Slice(names, output, *part)
    return Gather(names, output, start, offsets)


def _permuted(
    shape: Shape, strides: Sequence[int], offsets: tuple[tuple[int, ...], ...]
) -> tuple[int, ...] | None:
    """The source's axis of every output axis, where the output has whole axes in another order."""
    left = list(range(len(shape)))
    axes = []
    for table in offsets:
        fits = (a for a in left if table == tuple(i * strides[a] for i in range(shape[a])))
        axis = next(fits, None)
        if axis is None:
            return None
        left.remove(axis)
        axes.append(axis)
    return tuple(axes)


def _sliced(
    shape: Shape, strides: Sequence[int], start: int, offsets: tuple[tuple[int, ...], ...]
) -> tuple[int, int, int, int] | None:
    """(axis, start, end, step) where all axes but one are whole and that one is taken evenly."""
    whole = [table == tuple(i * s for i in range(n))
             for table, n, s in zip(offsets, shape, strides, strict=True)]  # fmt: skip
    cut = [axis for axis, is_whole in enumerate(whole) if not is_whole]
    if len(cut) != 1:
        return None
    (axis,) = cut
    table, stride = offsets[axis], strides[axis]
    step = table[1] // stride if len(table) > 1 else 1
    first, rest = divmod(start, stride)
    even = table == tuple(i * step * stride for i in range(len(table)))
    last = first + (len(table) - 1) * step
    if rest or not even or step < 1 or last >= shape[axis]:
        return None
    return axis, first, last + 1, step

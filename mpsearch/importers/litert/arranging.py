"""Operators that move values without computing: shapes, orders of axes, joining, repeating."""

import math
from collections.abc import Callable

import numpy as np

from mpsearch.errors import InputError
from mpsearch.importers.litert.elementwise import aligned, axis_in, unary
from mpsearch.importers.litert.node import Node
from mpsearch.importers.litert.translation import FIRST, FLAT, LAST, to_first, to_last


def _reshape(node: Node) -> None:
    """To a constant shape; to a computed one where that is more than flattening an image."""
    shape, computed = node.shape(0), node.has(1) and not node.is_constant(1)
    if node.has(1):
        target = node.integers(1)
    else:
        target = [int(size) for size in np.atleast_1d(node.option("newShape", ()))]
    if target.count(-1) == 1:
        known = -math.prod(target)
        target[target.index(-1)] = math.prod(shape) // known if known else 0
    if math.prod(target) != math.prod(shape) or min(target, default=1) < 0:
        raise InputError(f"it makes the shape {target} of {list(shape)}")
    flattens = len(target) == 2 and target[0] == shape[0]
    ones = _only_ones_move(shape, tuple(target))
    if computed and not (node.lies_first(0) and (flattens or ones)):
        node.write("Reshape", [node.plain(0), node.plain(1)])
        return
    _to_shape(node, tuple(target))


def _to_shape(node: Node, target: tuple[int, ...]) -> None:
    shape = node.shape(0)
    if not node.lies_first(0) or len(shape) < 3:
        node.reshape(node.plain(0), target)
    elif _only_ones_move(shape, target):
        node.reshape(node.first(0), target, FIRST)
    elif _in_one_order(shape):
        node.reshape(node.first(0), target)
    elif target == (shape[0], math.prod(shape[1:])):
        node.translation.images[node.output] = node.input(0)
        node.reshape(node.first(0), target, FLAT)
    else:
        node.reshape(node.plain(0), target)


def _only_ones_move(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Places of size one come or go between batch and channels: [1, 1, W, C] -> [1, W, C]."""
    places = [size for size in shape[1:-1] if size != 1]
    return (
        len(target) >= 3
        and (target[0], target[-1]) == (shape[0], shape[-1])
        and [size for size in target[1:-1] if size != 1] == places
    )


def _in_one_order(shape: tuple[int, ...]) -> bool:
    """One place or one channel: both layouts have the same order of numbers."""
    return math.prod(shape[1:-1]) == 1 or shape[-1] == 1


def _squeeze(node: Node) -> None:
    shape = node.shape(0)
    given = {int(axis) for axis in np.atleast_1d(node.option("squeezeDims", ()))}
    axes = {axis % len(shape) for axis in given if -len(shape) <= axis < len(shape)}
    axes = axes or {axis for axis, size in enumerate(shape) if size == 1}
    if any(shape[axis] != 1 for axis in axes):
        raise InputError(f"it takes the axes {sorted(axes)} from the shape {list(shape)}")
    if 0 not in axes and not node.lies_first(0):
        node.write("Squeeze", [node.plain(0), node.sizes("axes", sorted(axes))])
    else:
        _to_shape(node, tuple(size for axis, size in enumerate(shape) if axis not in axes))


def _expand_dims(node: Node) -> None:
    (axis,) = node.integers(1, 1)
    rank = len(node.shape(0)) + 1
    if not -rank <= axis < rank:
        raise InputError(f"got axis {axis} for {rank} axes")
    if node.lies_first(0) and 0 < axis % rank < rank - 1:
        shape = node.shape(0)
        node.reshape(node.first(0), (*shape[: axis % rank], 1, *shape[axis % rank :]), FIRST)
    else:
        node.write("Unsqueeze", [node.plain(0), node.sizes("axes", [axis % rank])])


def _transpose(node: Node) -> None:
    """A transpose between the two layouts is no step: the other layout has that name then."""
    order = node.integers(1, len(node.shape(0)))
    rank = len(order)
    if sorted(order) != list(range(rank)):
        raise InputError(f"got the order of axes {order}")
    translation, forms = node.translation, node.translation.forms.setdefault(node.output, {})
    if rank >= 3 and not node.is_constant(0):
        if tuple(order) == to_first(rank) and (rank > 3 or node.lies_first(0)):
            forms[LAST] = node.first(0)
            return
        if tuple(order) == to_last(rank):
            forms[FIRST] = node.plain(0)
            return
    del translation.forms[node.output]
    node.write("Transpose", [node.plain(0)], perm=order)


def _concatenation(node: Node) -> None:
    names, layout = aligned(node, range(len(node.operator.inputs)))
    axis = axis_in(node, int(node.option("axis")), layout)
    node.write("Concat", names, layout, axis=axis)


def _pack(node: Node) -> None:
    rank = len(node.shape(0)) + 1
    axis = int(node.option("axis")) % rank
    parts = [
        node.emit("Unsqueeze", node.plain(index), node.sizes("axis", [axis]))
        for index in range(len(node.operator.inputs))
    ]
    node.write("Concat", parts, axis=axis)


def _unpack(node: Node) -> None:
    axis = axis_in(node, int(node.option("axis")), LAST)
    outputs = node.operator.outputs
    if len(outputs) != node.shape(0)[axis]:
        raise InputError(f"it gives {len(outputs)} parts of {node.shape(0)[axis]}")
    if len(outputs) == 1:
        shape = node.shape(0)
        node.reshape(node.plain(0), (*shape[:axis], *shape[axis + 1 :]))
        return
    name = node.plain(0)
    for place in range(len(outputs)):
        where = node.constant("place", np.array(place, dtype=np.int64))
        node.write("Gather", [name, where], output=place, axis=axis)


def _tile(node: Node) -> None:
    node.write("Tile", [node.plain(0), node.sizes("times", node.integers(1))])


def _broadcast_args(node: Node) -> None:
    """The common shape of two: the larger size on each axis."""
    names, count = [], max(math.prod(node.shape(index)) for index in (0, 1))
    for index in (0, 1):
        ones = count - math.prod(node.shape(index))
        name = node.plain(index)
        if ones:
            name = node.emit("Concat", node.sizes("ones", [1] * ones), name, axis=0)
        names.append(name)
    node.write("Max", names)


def _broadcast_to(node: Node) -> None:
    node.write("Expand", [node.plain(0), node.plain(1)])


def _shape(node: Node) -> None:
    name, layout = unary(node)
    rank = len(node.shape(0))
    if layout == LAST:
        node.write("Shape", [name])
        return
    order = node.sizes("order", to_last(rank))
    node.write("Gather", [node.emit("Shape", name), order], axis=0)


def _rank(node: Node) -> None:
    number = node.constant("rank", np.array(len(node.shape(0)), dtype=np.int64))
    node.write("Identity", [number])


def _fill(node: Node) -> None:
    value = node.array(1).reshape(-1)[:1]
    node.write("ConstantOfShape", [node.plain(0)], value=value)


def _zeros_like(node: Node) -> None:
    name, layout = unary(node)
    node.write("Mul", [name, node.constant("zero", np.float32(0))], layout)


def _range(node: Node) -> None:
    node.write("Range", [node.plain(index) for index in range(3)])


ARRANGING: dict[str, Callable[[Node], None]] = {
    "RESHAPE": _reshape,
    "SQUEEZE": _squeeze,
    "EXPAND_DIMS": _expand_dims,
    "TRANSPOSE": _transpose,
    "CONCATENATION": _concatenation,
    "PACK": _pack,
    "UNPACK": _unpack,
    "TILE": _tile,
    "BROADCAST_ARGS": _broadcast_args,
    "BROADCAST_TO": _broadcast_to,
    "SHAPE": _shape,
    "RANK": _rank,
    "FILL": _fill,
    "ZEROS_LIKE": _zeros_like,
    "RANGE": _range,
}

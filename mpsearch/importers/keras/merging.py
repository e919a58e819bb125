"""Layers with several inputs, and the arithmetic of `x + y` and `2 * x` on Keras tensors."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch

from mpsearch.importers.keras.settings import Building, Convert, Emitter, Order, Shape, Value, place

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": torch.add,
    "Subtract": torch.sub,
    "Multiply": torch.mul,
    "Average": torch.add,
    "Maximum": torch.maximum,
    "Minimum": torch.minimum,
}


def _aligned(emit: Emitter, values: Sequence[Value]) -> list[Value]:
    """All in one order; fewer dimensions get ones behind the batch, as in Keras."""
    dimensions = max(len(value.shape) for value in values)
    orders = {(value.order, value.image) for value in values}
    alike = all(len(value.shape) == dimensions for value in values)
    if alike and len(orders) == 1:
        return list(values)
    if alike and any(value.order is Order.CHANNELS_FIRST for value in values):
        return [emit.channels_first(value) for value in values]
    result = []
    for value in map(emit.plain, values):
        shape = (1,) * (dimensions - len(value.shape)) + value.shape
        same = shape == value.shape
        node = value.node if same else emit.call(torch.reshape, value.node, (-1, *shape))
        result.append(Value(node, shape))
    return result


def _broadcast(layer: Building, shapes: Sequence[Shape]) -> Shape:
    try:
        return tuple(torch.broadcast_shapes(*shapes))
    except RuntimeError:
        text = ", ".join(map(str, shapes))
        raise layer.settings.error(f"merges tensors of shapes {text}") from None


def _merge(layer: Building, values: Sequence[Value]) -> Value:
    if len(values) < 2 or (layer.class_name == "Subtract" and len(values) != 2):
        raise layer.settings.error(f"takes {len(values)} inputs; expected two or more")
    aligned = _aligned(layer.emit, values)
    function = _FUNCTIONS[layer.class_name]
    node = reduce(lambda a, b: layer.emit.call(function, a, b), (v.node for v in aligned))
    if layer.class_name == "Average":
        node = layer.emit.call(torch.mul, node, 1 / len(values))
    first = aligned[0]
    return Value(node, _broadcast(layer, [v.shape for v in aligned]), first.order, first.image)


def _concatenate(layer: Building, values: Sequence[Value]) -> Value:
    if not values:
        raise layer.settings.error("takes no inputs; expected one or more")
    dimensions = len(values[0].shape)
    if any(len(value.shape) != dimensions for value in values):
        text = ", ".join(str(value.shape) for value in values)
        raise layer.settings.error(f"joins tensors of shapes {text}")
    if any(value.order is Order.CHANNELS_FIRST for value in values):
        aligned = [layer.emit.channels_first(value) for value in values]
    else:
        aligned = [layer.emit.plain(value) for value in values]
    axis = layer.settings.axis("axis", dimensions)
    rest = {tuple(s for i, s in enumerate(v.shape) if i != axis) for v in aligned}
    if len(rest) > 1:
        text = ", ".join(str(value.shape) for value in values)
        raise layer.settings.error(f"joins tensors of shapes {text} along axis {axis + 1}")
    shape = list(aligned[0].shape)
    shape[axis] = sum(value.shape[axis] for value in aligned)
    nodes = [value.node for value in aligned]
    node = layer.emit.call(torch.cat, nodes, place(aligned[0], axis))
    return Value(node, tuple(shape), aligned[0].order)


MERGING: dict[str, Convert] = {
    **dict.fromkeys(_FUNCTIONS, _merge),
    "Concatenate": _concatenate,
}

OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": torch.add,
    "Subtract": torch.sub,
    "Multiply": torch.mul,
    "TrueDivide": torch.div,
}


def arithmetic(layer: Building, operands: Sequence[object]) -> Value:
    """`x + y`, `x - 2.0`, `0.5 * x`, `x / y`: two operands, tensors or numbers.

    Tensors of different numbers of dimensions meet as in numpy: ones ahead, batch included, are
    not read.
    """
    function = OPERATIONS[layer.class_name]
    values = [operand for operand in operands if isinstance(operand, Value)]
    numbers = [o for o in operands if isinstance(o, int | float) and not isinstance(o, bool)]
    if len(operands) != 2 or len(values) + len(numbers) != 2 or not values:
        raise layer.settings.error("is arithmetic on other things than tensors and numbers")
    if len({len(value.shape) for value in values}) > 1:
        raise layer.settings.error("is arithmetic on tensors of different dimensions")
    aligned = iter(_aligned(layer.emit, values))
    first = None
    nodes: list[Any] = []
    for operand in operands:
        if isinstance(operand, Value):
            value = next(aligned)
            first = first or value
            nodes.append(value.node)
        else:
            nodes.append(operand)
    assert first is not None
    if not isinstance(operands[0], Value):  # torch's functions want the tensor first
        made = _number_first(layer, nodes[0], nodes[1])
    else:
        made = layer.emit.call(function, *nodes)
    shape = _broadcast(layer, [value.shape for value in values])
    return Value(made, shape, first.order, first.image)


def _number_first(layer: Building, number: float, node: Any) -> Any:
    if layer.class_name in ("Add", "Multiply"):
        return layer.emit.call(OPERATIONS[layer.class_name], node, number)
    if layer.class_name == "Subtract":
        return layer.emit.call(torch.rsub, node, number)
    return layer.emit.call(torch.mul, layer.emit.call(torch.reciprocal, node), number)

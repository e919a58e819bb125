"""Layers that move numbers: flatten, reshape, permute, pad, crop, repeat, and those that do
nothing when a network is used.

Layers with several inputs, and the arithmetic of `x + y` and `2 * x` on Keras tensors.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch.nn import functional as F

from mpsearch.importers.keras.pooling import torch_pads
from mpsearch.importers.keras.settings import (
    CHANNELS_FIRST,
    Building,
    Convert,
    Emitter,
    Image,
    Order,
    Shape,
    Value,
    only,
    place,
)

# Only training sees them.
IDENTITIES = (
    "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise",
    "RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast",
    "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue",
    "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation",
    "RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom",
    "SpatialDropout1D", "SpatialDropout2D", "StochasticDepth",
)  # fmt: skip


def _identity(layer: Building, values: Sequence[Value]) -> Value:
    return only(layer, values)


def _flatten(layer: Building, values: Sequence[Value]) -> Value:
    emit, value = layer.emit, only(layer, values)
    elements = math.prod(value.shape)
    if layer.settings.data_format == CHANNELS_FIRST and len(value.shape) > 1:
        # Keras puts the channels last before it flattens
        moved = emit.call(torch.movedim, emit.plain(value).node, 1, -1)
        return Value(emit.call(torch.flatten, moved, 1), (elements,))
    if value.order is Order.CHANNELS_FIRST:
        node = emit.call(torch.flatten, value.node, 1)
        if elements in (
            value.shape[-1],
            elements // value.shape[-1] if value.shape[-1] == 1 else 0,
        ):
            return Value(node, (elements,))  # one place or one channel: one order
        return Value(node, (elements,), Order.FLATTENED, value.shape)
    if len(value.shape) < 2:
        return value if value.shape else Value(emit.call(torch.unsqueeze, value.node, 1), (1,))
    return Value(emit.call(torch.flatten, value.node, 1), (elements,))


def _reshape(layer: Building, values: Sequence[Value]) -> Value:
    settings, value = layer.settings, layer.emit.plain(only(layer, values))
    target = settings.get("target_shape")
    if isinstance(target, int):
        target = [target]
    if not isinstance(target, list) or not all(type(n) is int and n >= -1 for n in target):
        raise settings.wrong("target_shape", "sizes")
    elements, known = math.prod(value.shape), math.prod(n for n in target if n != -1)
    shape = tuple(elements // known if n == -1 and known else n for n in target)
    if target.count(-1) > 1 or math.prod(shape) != elements:
        raise settings.error(f"target_shape {target} does not fit {value.shape}")
    return Value(layer.emit.call(torch.reshape, value.node, (-1, *shape)), shape)


def _permute(layer: Building, values: Sequence[Value]) -> Value:
    settings, value = layer.settings, layer.emit.plain(only(layer, values))
    dims = settings.get("dims")
    count = len(value.shape)
    if not isinstance(dims, list | tuple) or sorted(dims) != list(range(1, count + 1)):
        raise settings.wrong("dims", f"the axes 1 to {count} in some order")
    node = layer.emit.call(torch.permute, value.node, (0, *dims))
    return Value(node, tuple(value.shape[axis - 1] for axis in dims))


def _repeat_vector(layer: Building, values: Sequence[Value]) -> Value:
    """[features] -> [n, features]."""
    value, count = layer.emit.plain(only(layer, values)), layer.settings.integer("n")
    node = layer.emit.call(torch.unsqueeze, value.node, 1)
    copies = layer.emit.call(torch.cat, [node] * min(count, 4096), 1)
    if count > 4096 or len(value.shape) != 1:
        raise layer.settings.error(f"repeats {value.shape} {count} times, which is not read")
    return Value(copies, (count, *value.shape))


def _masking(layer: Building, values: Sequence[Value]) -> Value:
    """Steps whose features all have the mask's value become zero."""
    settings, emit, value = layer.settings, layer.emit, layer.emit.plain(only(layer, values))
    apart = emit.call(torch.sub, value.node, settings.number("mask_value", 0.0))
    largest = emit.call(torch.amax, emit.call(torch.abs, apart), -1, True)
    node = emit.call(torch.where, emit.call(torch.gt, largest, 0), value.node, 0.0)
    return replace(value.same(node), masked=settings.layer)


def _zero_padding(layer: Building, values: Sequence[Value]) -> Value:
    axes = 1 if "1D" in layer.class_name else 2
    form = layer.settings.data_format
    image = layer.emit.image(only(layer, values), form, axes)
    pads = layer.settings.margins("padding", axes)
    node = layer.emit.call(F.pad, image.node, torch_pads(pads))
    sizes = tuple(size + sum(pad) for size, pad in zip(image.sizes, pads, strict=True))
    return layer.emit.value(Image(node, image.channels, sizes), form)


def _cropping(layer: Building, values: Sequence[Value]) -> Value:
    axes = 1 if "1D" in layer.class_name else 2
    form = layer.settings.data_format
    image = layer.emit.image(only(layer, values), form, axes)
    cuts = layer.settings.margins("cropping", axes)
    sizes = tuple(size - sum(cut) for size, cut in zip(image.sizes, cuts, strict=True))
    if min(sizes) < 1:
        raise layer.settings.error(f"cuts {cuts} from {image.sizes}, which leaves nothing")
    node = image.node
    for axis, (before, _) in enumerate(cuts):
        if sizes[axis] < image.sizes[axis]:
            node = layer.emit.call(torch.narrow, node, axis + 2, before, sizes[axis])
    return layer.emit.value(Image(node, image.channels, sizes), form)


def _up_sampling(layer: Building, values: Sequence[Value]) -> Value:
    settings, axes = layer.settings, 1 if "1D" in layer.class_name else 2
    settings.choice("interpolation", ("nearest",), "nearest")
    form = settings.data_format
    image = layer.emit.image(only(layer, values), form, axes)
    factors = settings.integers("size", axes, 2)
    sizes = tuple(size * factor for size, factor in zip(image.sizes, factors, strict=True))
    node = layer.emit.call(F.interpolate, image.node, sizes)
    return layer.emit.value(Image(node, image.channels, sizes), form)


LAYERS: dict[str, Convert] = {
    **dict.fromkeys(IDENTITIES, _identity),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "RepeatVector": _repeat_vector,
    "Masking": _masking,
    **dict.fromkeys(("ZeroPadding1D", "ZeroPadding2D"), _zero_padding),
    **dict.fromkeys(("Cropping1D", "Cropping2D"), _cropping),
    **dict.fromkeys(("UpSampling1D", "UpSampling2D"), _up_sampling),
}


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

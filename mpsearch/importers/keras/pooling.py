"""Pools. 'same' padding counts for nothing: not for the maximum, not in the average's divisor.

Padding 'same' as TensorFlow has it: ceil(size/stride) outputs, the odd zero behind.

https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2

A rescaling ahead of a layer goes into the layer's weights, so that integers can compute it.

W·(s·x + o) + b = (s·W)·x + (b + o·ΣW). A padding of zeros behind the rescaling becomes one of −o/s
ahead of it. That is exact for one scale and one offset, as in `Rescaling(1/127.5, offset=-1)`;
numbers per channel stay where they are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.nn import functional as F

from mpsearch.graph.tensors import get_tensor, set_tensor
from mpsearch.importers.keras.reading import Array
from mpsearch.importers.keras.settings import Building, Convert, Image, Order, Shape, Value, only

Pair = tuple[int, int]


def same_padding(size: int, reach: int, stride: int) -> Pair:
    """(before, after) on one axis; `reach` = dilation·(kernel − 1) + 1: (32, 3, 2) -> (0, 1)."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def output_size(size: int, reach: int, stride: int, pads: Pair) -> int:
    """Places of a window on a padded axis; below 1 where it does not fit."""
    return (size + sum(pads) - reach) // stride + 1


def torch_pads(pads: tuple[Pair, ...]) -> tuple[int, ...]:
    """The list of torch's `pad`, last axis first."""
    return tuple(number for pair in reversed(pads) for number in pair)


_MAX = {1: F.max_pool1d, 2: F.max_pool2d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d}


def _pool(layer: Building, values: Sequence[Value]) -> Value:
    """Max or average pooling.

    torch pads both sides alike; what 'same' needs more behind comes from `ceil_mode`, whose last
    window may reach over the end. With stride 1 and an even window that does not help, and the
    padding is an operator of its own.
    """
    settings, axes = layer.settings, 1 if "1D" in layer.class_name else 2
    form = settings.data_format
    image = layer.emit.image(only(layer, values), form, axes)
    window = settings.integers("pool_size", axes, 2)
    strides = window if settings.get("strides") is None else settings.integers("strides", axes)
    same = settings.choice("padding", ("valid", "same"), "valid") == "same"
    pads: tuple[Pair, ...] = tuple(
        same_padding(n, k, s) if same else (0, 0)
        for n, k, s in zip(image.sizes, window, strides, strict=True)
    )
    sizes = tuple(
        output_size(n, k, s, pad)
        for n, k, s, pad in zip(image.sizes, window, strides, pads, strict=True)
    )
    if layer.class_name.startswith("Max"):
        node = _maximum(layer, image.node, window, strides, pads)
    else:
        node = _average(layer, image, window, strides, pads)
    return layer.emit.value(Image(node, image.channels, sizes), form)


def _fits_torch(strides: Shape, pads: tuple[Pair, ...]) -> bool:
    return all(a == b or s > 1 for (a, b), s in zip(pads, strides, strict=True))


def _maximum(
    layer: Building, node: fx.Node, window: Shape, strides: Shape, pads: tuple[Pair, ...]
) -> fx.Node:
    emit, pool = layer.emit, _MAX[len(window)]
    if not _fits_torch(strides, pads):
        node = emit.call(F.pad, node, torch_pads(pads), "constant", -math.inf)
        return emit.call(pool, node, window, strides)
    before = tuple(a for a, _ in pads)
    over = any(a != b for a, b in pads)
    return emit.call(pool, node, window, strides, before, 1, over)


def _average(
    layer: Building, image: Image, window: Shape, strides: Shape, pads: tuple[Pair, ...]
) -> fx.Node:
    emit, pool = layer.emit, _AVERAGE[len(window)]
    if not _fits_torch(strides, pads):
        node = emit.call(F.pad, image.node, torch_pads(pads))
        sums = emit.call(pool, node, window, strides)
        factors = _window_over_count(image.sizes, window, strides, pads)
        return emit.call(torch.mul, sums, layer.tensor("factors", lambda: factors))
    before = tuple(a for a, _ in pads)
    over = any(a != b for a, b in pads)
    return emit.call(pool, image.node, window, strides, before, over, False)


def _window_over_count(
    sizes: Shape, window: Shape, strides: Shape, pads: tuple[Pair, ...]
) -> Array:
    """Elements of a window over those of them that are not padding, [1, 1, *places]."""
    factors: Any = np.ones((1, 1) + (1,) * len(sizes), dtype=np.float32)
    for axis, (n, k, s, pad) in enumerate(zip(sizes, window, strides, pads, strict=True)):
        starts = np.arange(output_size(n, k, s, pad)) * s - pad[0]
        counts = np.minimum(starts + k, n) - np.maximum(starts, 0)
        shape = [1] * factors.ndim
        shape[axis + 2] = len(counts)
        factors = factors * (k / counts).reshape(shape)
    return np.asarray(factors, dtype=np.float32)


def _global(layer: Building, values: Sequence[Value]) -> Value:
    """Mean or maximum over all places; no axes are moved for it."""
    settings, emit, value = layer.settings, layer.emit, only(layer, values)
    axes = 1 if "1D" in layer.class_name else 2
    keep = settings.flag("keepdims", False)
    last = settings.data_format == "channels_last"
    if "Max" in layer.class_name:
        image = emit.image(value, settings.data_format, axes)
        node = emit.call(_MAX[axes], image.node, image.sizes)
        if keep:
            return emit.value(Image(node, image.channels, (1,) * axes), settings.data_format)
        return Value(emit.call(torch.flatten, node, 1), (image.channels,))
    if len(value.shape) != axes + 1:
        raise settings.error(f"its input has shape {value.shape}; expected {axes + 1} dimensions")
    channels = value.shape[-1] if last else value.shape[0]
    first = value.order is Order.CHANNELS_FIRST if last else value.order is Order.KERAS
    dims = tuple(range(2, axes + 2)) if first else tuple(range(1, axes + 1))
    node = emit.call(torch.mean, value.node, dims, keep)
    if not keep:
        return Value(node, (channels,))
    ones = (1,) * axes
    return Value(node, (*ones, channels) if last else (channels, *ones), value.order)


LAYERS: dict[str, Convert] = {
    **dict.fromkeys(
        ("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D"), _pool
    ),
    **dict.fromkeys(
        (
            "GlobalAveragePooling1D", "GlobalAveragePooling2D",
            "GlobalMaxPooling1D", "GlobalMaxPooling2D",
        ),
        _global,
    ),
}  # fmt: skip


_CONVOLUTIONS = (F.conv1d, F.conv2d)
_MOVES = (torch.permute, torch.reshape, torch.flatten)


@dataclass
class _Chain:
    """What lies between a tensor and a layer: layer's input = scale·tensor + offset, moved."""

    scale: float
    offset: float
    arithmetic: list[fx.Node]
    pads: list[fx.Node]


def fold_rescaling(module: fx.GraphModule) -> None:
    """Fold every rescaling that only one layer reads; `module` is changed in place."""
    for node in list(module.graph.nodes):
        if node.target not in (*_CONVOLUTIONS, F.linear) or not _own_weights(module, node):
            continue
        chain = _chain(node)
        if chain.arithmetic and chain.scale != 0:
            _fold(module, node, chain)
    module.graph.eliminate_dead_code()
    module.recompile()


def _own_weights(module: fx.GraphModule, layer: fx.Node) -> bool:
    tensors = [arg for arg in layer.args[1:3] if isinstance(arg, fx.Node)]
    return all(node.op == "get_attr" and len(node.users) == 1 for node in tensors)


def _chain(layer: fx.Node) -> _Chain:
    chain = _Chain(1.0, 0.0, [], [])
    node = layer.args[0]
    while isinstance(node, fx.Node) and len(node.users) == 1:
        number = node.args[1] if len(node.args) > 1 else None
        if node.target in (torch.mul, torch.add) and isinstance(number, float):
            chain.arithmetic.append(node)
            if node.target is torch.mul:
                chain.scale *= number
            else:
                chain.offset += chain.scale * number
        elif node.target is F.pad and len(node.args) == 2 and not chain.arithmetic:
            chain.pads.append(node)
        elif node.target not in _MOVES:
            break
        node = node.args[0]
    return chain


def _fold(module: fx.GraphModule, layer: fx.Node, chain: _Chain) -> None:
    source, weight_node = layer.args[:2]
    assert isinstance(source, fx.Node)
    assert isinstance(weight_node, fx.Node)
    name = str(weight_node.target)
    weight = get_tensor(module, name).double()
    set_tensor(module, name, (weight * chain.scale).float())
    if chain.offset:
        border = -chain.offset / chain.scale
        for pad in chain.pads:
            pad.args = (*pad.args, "constant", border)
        if layer.target in _CONVOLUTIONS and len(layer.args) > 4:
            _pad_ahead(module.graph, layer, source, border)
        _add_to_bias(module, layer, name, chain.offset * weight.flatten(1).sum(1))
    for node in chain.arithmetic:
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]


def _pad_ahead(graph: fx.Graph, layer: fx.Node, source: fx.Node, border: float) -> None:
    """The convolution's own zeros as an operator that pads with `border`."""
    padding = layer.args[4]
    assert isinstance(padding, tuple)
    if not any(padding):
        return
    around = tuple(number for size in reversed(padding) for number in (size, size))
    with graph.inserting_before(layer):
        padded = graph.call_function(F.pad, (source, around, "constant", border))
    layer.args = (padded, *layer.args[1:4], (0,) * len(padding), *layer.args[5:])


def _add_to_bias(module: fx.GraphModule, layer: fx.Node, name: str, shift: torch.Tensor) -> None:
    bias = layer.args[2]
    if isinstance(bias, fx.Node):
        old = get_tensor(module, str(bias.target))
        set_tensor(module, str(bias.target), (old.double() + shift).float())
        return
    new = f"{name.removesuffix('weight')}bias"
    set_tensor(module, new, shift.float())
    with module.graph.inserting_before(layer):
        node = module.graph.get_attr(new)
    layer.args = (*layer.args[:2], node, *layer.args[3:])

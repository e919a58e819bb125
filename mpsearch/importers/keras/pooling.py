"""Pools. 'same' padding counts for nothing: not for the maximum, not in the average's divisor."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.nn import functional as F

from mpsearch.importers.keras.building import Building, Convert, only
from mpsearch.importers.keras.reading import Array
from mpsearch.importers.keras.values import Image, Order, Shape, Value
from mpsearch.importers.keras.windows import Pair, output_size, same_padding, torch_pads

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

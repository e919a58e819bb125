"""Convolutions and dense layers: Keras's kernels in torch's order, under the layer's own name."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import fx
from torch.nn import functional as F

from mpsearch.importers.keras.activations import activate
from mpsearch.importers.keras.pooling import Pair, output_size, same_padding, torch_pads
from mpsearch.importers.keras.reading import Array
from mpsearch.importers.keras.settings import (
    Building,
    Convert,
    Emitter,
    Image,
    Order,
    Shape,
    Value,
    only,
)

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d}


def _axes(layer: Building) -> int:
    return 1 if "1D" in layer.class_name else 2


def _input(layer: Building, values: Sequence[Value]) -> Image:
    return layer.emit.image(only(layer, values), layer.settings.data_format, _axes(layer))


def _output(layer: Building, image: Image) -> Value:
    value = layer.emit.value(image, layer.settings.data_format)
    return activate(layer, value, layer.settings.get("activation"))


def _pads(layer: Building, image: Image, kernel: Shape, stride: Shape) -> tuple[Pair, ...]:
    padding = layer.settings.choice("padding", ("valid", "same", "causal"), "valid")
    dilation = layer.settings.integers("dilation_rate", len(kernel), 1)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if padding == "causal" and len(kernel) == 1:
        return ((reach[0] - 1, 0),)
    if padding != "same":
        return ((0, 0),) * len(kernel)
    return tuple(same_padding(*axis) for axis in zip(image.sizes, reach, stride, strict=True))


def _convolve(
    layer: Building,
    image: Image,
    weight: fx.Node,
    bias: fx.Node | None,
    channels: int,
    kernel: Shape,
    stride: Shape,
    groups: int,
) -> Image:
    """The convolution; padding that differs before and behind becomes a `pad` ahead of it."""
    emit = layer.emit
    dilation = layer.settings.integers("dilation_rate", len(kernel), 1)
    pads = _pads(layer, image, kernel, stride)
    node, padding = image.node, tuple(before for before, _ in pads)
    if any(before != after for before, after in pads):
        node, padding = emit.call(F.pad, node, torch_pads(pads)), (0,) * len(pads)
    sizes = tuple(
        output_size(size, d * (k - 1) + 1, s, pad)
        for size, k, s, d, pad in zip(image.sizes, kernel, stride, dilation, pads, strict=True)
    )
    made = emit.call(
        _CONVOLUTIONS[len(kernel)], node, weight, bias, stride, padding, dilation, groups
    )
    return Image(made, channels, sizes)


def _convolution(layer: Building, values: Sequence[Value]) -> Value:
    """Kernel [*size, channels/groups, filters] -> torch's [filters, channels/groups, *size]."""
    settings, image, axes = layer.settings, _input(layer, values), _axes(layer)
    kernel = settings.integers("kernel_size", axes)
    filters, groups = settings.integer("filters"), settings.integer("groups", 1)
    if image.channels % groups or filters % groups:
        raise settings.error(f"{groups} groups divide neither {image.channels} nor {filters}")
    shape = (*kernel, image.channels // groups, filters)
    weight = layer.tensor("weight", lambda: _last_axes_first(layer.array("kernel", shape)))
    stride = settings.integers("strides", axes, 1)
    bias = layer.bias(filters)
    made = _convolve(layer, image, weight, bias, filters, kernel, stride, groups)
    return _output(layer, made)


def _last_axes_first(kernel: Array) -> Array:
    """[*size, a, b] -> [b, a, *size]."""
    axes = kernel.ndim - 2
    return np.transpose(kernel, (axes + 1, axes, *range(axes)))


def _depthwise_rows(kernel: Array) -> Array:
    """[*size, channels, multiplier] -> [channels·multiplier, 1, *size], channel by channel."""
    axes = kernel.ndim - 2
    rows = np.transpose(kernel, (axes, axes + 1, *range(axes)))
    return rows.reshape(-1, 1, *kernel.shape[:axes])


def _depthwise(layer: Building, values: Sequence[Value]) -> Value:
    settings, image, axes = layer.settings, _input(layer, values), _axes(layer)
    kernel = settings.integers("kernel_size", axes)
    multiplier = settings.integer("depth_multiplier", 1)
    channels = image.channels * multiplier
    shape = (*kernel, image.channels, multiplier)
    weight = layer.tensor("weight", lambda: _depthwise_rows(layer.array("depthwise_kernel", shape)))
    stride = settings.integers("strides", axes, 1)
    bias = layer.bias(channels)
    made = _convolve(layer, image, weight, bias, channels, kernel, stride, image.channels)
    return _output(layer, made)


def _separable(layer: Building, values: Sequence[Value]) -> Value:
    """Two layers of the table: `name.depthwise` without bias, `name.pointwise`."""
    settings, image, axes = layer.settings, _input(layer, values), _axes(layer)
    kernel = settings.integers("kernel_size", axes)
    multiplier, filters = settings.integer("depth_multiplier", 1), settings.integer("filters")
    between = image.channels * multiplier
    shape = (*kernel, image.channels, multiplier)
    depthwise = layer.tensor(
        "depthwise.weight", lambda: _depthwise_rows(layer.array("depthwise_kernel", shape))
    )
    ones = (1,) * axes
    pointwise = layer.tensor(
        "pointwise.weight",
        lambda: _last_axes_first(layer.array("pointwise_kernel", (*ones, between, filters))),
    )
    stride = settings.integers("strides", axes, 1)
    made = _convolve(layer, image, depthwise, None, between, kernel, stride, image.channels)
    bias = layer.bias(filters, "pointwise.bias")
    node = layer.emit.call(_CONVOLUTIONS[axes], made.node, pointwise, bias)
    return _output(layer, Image(node, filters, made.sizes))


def _transposed(layer: Building, values: Sequence[Value]) -> Value:
    """Kernel [*size, filters, channels]: the gradient of a convolution with this padding.

    'valid' gives (n − 1)·s + max(k, s) places and 'same' n·s, cut (k − s)//2 before.
    """
    settings, image, axes = layer.settings, _input(layer, values), _axes(layer)
    kernel, stride = settings.integers("kernel_size", axes), settings.integers("strides", axes, 1)
    filters = settings.integer("filters")
    if set(settings.integers("dilation_rate", axes, 1)) != {1} or settings.get("output_padding"):
        raise settings.error("has a dilation or an output_padding, which is not read")
    shape = (*kernel, filters, image.channels)
    weight = layer.tensor("weight", lambda: _last_axes_first(layer.array("kernel", shape)))
    same = settings.choice("padding", ("valid", "same"), "valid") == "same"
    cut = [max(k - s, 0) if same else 0 for k, s in zip(kernel, stride, strict=True)]
    more = tuple(max(s - k, 0) for k, s in zip(kernel, stride, strict=True))
    before = tuple(total // 2 for total in cut)
    node = layer.emit.call(
        _TRANSPOSED[axes], image.node, weight, layer.bias(filters), stride, before, more
    )
    sizes = tuple(
        (n - 1) * s + max(k, s) - total
        for n, s, k, total in zip(image.sizes, stride, kernel, cut, strict=True)
    )
    for axis, total in enumerate(cut):
        if total % 2:
            node = layer.emit.call(torch.narrow, node, axis + 2, 0, sizes[axis])
    return _output(layer, Image(node, filters, sizes))


def _dense(layer: Building, values: Sequence[Value]) -> Value:
    """Kernel [features, units] -> [units, features], over the last axis.

    Behind a flattened image the columns go into torch's order of the image, so that nothing is
    moved at run time; a layer that is used more than once keeps Keras's order.
    """
    settings, value = layer.settings, only(layer, values)
    units, emit = settings.integer("units"), layer.emit
    reorder = value.order is Order.FLATTENED and layer.calls == 1
    if not reorder:
        value = emit.plain(value)
    shape = (value.shape[-1], units)

    def columns() -> Array:
        kernel = layer.array("kernel", shape)
        if reorder:
            kernel = np.moveaxis(kernel.reshape(*value.image, units), -2, 0).reshape(-1, units)
        return kernel.T

    weight = layer.tensor("weight", columns)
    node = emit.call(F.linear, value.node, weight, layer.bias(units))
    made = Value(node, (*value.shape[:-1], units))
    return activate(layer, made, settings.get("activation"))


def _embedding(layer: Building, values: Sequence[Value]) -> Value:
    settings, value = layer.settings, layer.emit.plain(only(layer, values))
    rows, size = settings.integer("input_dim"), settings.integer("output_dim")
    weight = layer.tensor("weight", lambda: layer.array("embeddings", (rows, size)))
    numbers = _whole(layer.emit, value.node)
    masked = settings.layer if settings.flag("mask_zero", False) else ""
    node = layer.emit.call(F.embedding, numbers, weight)
    return Value(node, (*value.shape, size), masked=masked)


def _whole(emit: Emitter, node: fx.Node) -> fx.Node:
    return emit.graph.call_method("to", (node, torch.int64))


LAYERS: dict[str, Convert] = {
    **dict.fromkeys(("Conv1D", "Conv2D"), _convolution),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose"), _transposed),
    "Dense": _dense,
    "Embedding": _embedding,
}

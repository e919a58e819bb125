"""Activation functions: names in a layer's `activation`, and layers of their own.

Names and defaults are Keras's (keras.io/api/layers/activations); `hard_sigmoid` is
max(0, min(1, 0.2·x + 0.5)) in Keras 2 and relu6(x + 3)/6 in Keras 3.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F

from mpsearch.importers.keras.settings import (
    Building,
    Convert,
    Emitter,
    Order,
    Settings,
    Value,
    only,
    place,
)

# name -> (function of torch, its settings)
_ELEMENTWISE: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "relu": (torch.relu, {}),
    "relu6": (F.relu6, {}),
    "sigmoid": (torch.sigmoid, {}),
    "tanh": (torch.tanh, {}),
    "elu": (F.elu, {}),
    "selu": (F.selu, {}),
    "gelu": (F.gelu, {}),
    "silu": (F.silu, {}),
    "swish": (F.silu, {}),
    "hard_silu": (F.hardswish, {}),
    "hard_swish": (F.hardswish, {}),
    "softplus": (F.softplus, {}),
    "softsign": (F.softsign, {}),
    "mish": (F.mish, {}),
    "exponential": (torch.exp, {}),
    "leaky_relu": (F.leaky_relu, {"negative_slope": 0.2}),
}
_IDENTITIES = ("linear",)


def activate(layer: Building, value: Value, function: object) -> Value:
    """The value behind a layer's `activation`: a name, a layer, or nothing."""
    if isinstance(function, Mapping):
        inner = function.get("config")
        if isinstance(inner, str):  # {"class_name": "function", "config": "relu6"}
            return _named(layer, value, inner)
        name = function.get("class_name")
        module = str(function.get("module") or "keras")
        if isinstance(inner, Mapping) and name in LAYERS and name != "PReLU" and "keras" in module:
            settings = Settings(layer.settings.layer, inner)
            activation = Building(settings, {}, layer.scope, str(name), 1, layer.emit)
            return LAYERS[str(name)](activation, [value])
        raise layer.settings.error(f"activation {str(name)[:60]!r} is not one of Keras's own")
    if function is None:
        return value
    if not isinstance(function, str):
        raise layer.settings.wrong("activation", "a name")
    return _named(layer, value, function)


def _named(layer: Building, value: Value, name: str) -> Value:
    emit = layer.emit
    if name in _IDENTITIES:
        return value
    if name in ("softmax", "log_softmax"):
        return _softmax(layer, value, -1, name)
    if name == "hard_sigmoid":
        return value.same(_hard_sigmoid(emit, value.node))
    if name not in _ELEMENTWISE:
        raise layer.settings.error(
            f"activation {name!r:.60} is not one of Keras's own; a function of your own cannot be "
            "read from a file"
        )
    function, settings = _ELEMENTWISE[name]
    return value.same(emit.call(function, value.node, **settings))


def _hard_sigmoid(emit: Emitter, node: fx.Node) -> fx.Node:
    if emit.major >= 3:
        return emit.call(F.hardsigmoid, node)
    line = emit.call(torch.add, emit.call(torch.mul, node, 0.2), 0.5)
    return emit.call(torch.clamp, line, 0.0, 1.0)


def _softmax(layer: Building, value: Value, axis: int, name: str = "softmax") -> Value:
    if value.order is Order.FLATTENED:
        value = layer.emit.plain(value)
    dimension = place(value, axis % len(value.shape))
    function = torch.softmax if name == "softmax" else torch.log_softmax
    return value.same(layer.emit.call(function, value.node, dimension))


def _activation(layer: Building, values: Sequence[Value]) -> Value:
    return activate(layer, only(layer, values), layer.settings.get("activation", "linear"))


def _softmax_layer(layer: Building, values: Sequence[Value]) -> Value:
    value = only(layer, values)
    return _softmax(layer, value, layer.settings.axis("axis", len(value.shape)))


def _relu(layer: Building, values: Sequence[Value]) -> Value:
    """max_value from there on; x from the threshold on; negative_slope·(x − threshold) below."""
    settings, emit, value = layer.settings, layer.emit, only(layer, values)
    slope = settings.number("negative_slope", settings.number("alpha", 0.0))
    threshold = settings.number("threshold", 0.0)
    top = None if settings.get("max_value") is None else settings.number("max_value", 0.0)
    node = value.node
    if slope == 0 and threshold == 0:
        if top is None:
            return value.same(emit.call(torch.relu, node))
        if top == 6:
            return value.same(emit.call(F.relu6, node))
        return value.same(emit.call(torch.clamp, node, 0.0, top))
    if threshold == 0:
        node = emit.call(F.leaky_relu, node, slope)
    else:
        below = emit.call(torch.mul, emit.call(torch.sub, node, threshold), slope)
        node = emit.call(torch.where, emit.call(torch.ge, node, threshold), node, below)
    return value.same(node if top is None else emit.call(torch.clamp, node, max=top))


def _leaky_relu(layer: Building, values: Sequence[Value]) -> Value:
    settings, value = layer.settings, only(layer, values)
    slope = settings.number("negative_slope", settings.number("alpha", 0.3))
    return value.same(layer.emit.call(F.leaky_relu, value.node, slope))


def _elu(layer: Building, values: Sequence[Value]) -> Value:
    value = only(layer, values)
    return value.same(layer.emit.call(F.elu, value.node, layer.settings.number("alpha", 1.0)))


def _prelu(layer: Building, values: Sequence[Value]) -> Value:
    """alpha per channel, or of any shape that shared_axes leaves."""
    emit, value = layer.emit, only(layer, values)
    shape = value.shape
    shared = [
        Settings(layer.settings.layer, {"shared_axes": axis}).axis("shared_axes", len(shape))
        for axis in layer.settings.get("shared_axes", [])
    ]
    sizes = tuple(1 if axis in shared else size for axis, size in enumerate(shape))
    if len(shape) > 1 and all(size == 1 for size in sizes[:-1]):
        value = emit.channels_first(value)
        alpha = layer.tensor("alpha", lambda: layer.array("alpha", sizes).reshape(-1))
        return value.same(emit.call(F.prelu, value.node, alpha))
    value = emit.plain(value)
    alpha = layer.tensor("alpha", lambda: layer.array("alpha", sizes))
    scaled = emit.call(torch.mul, value.node, alpha)
    positive = emit.call(torch.gt, value.node, 0)
    return value.same(emit.call(torch.where, positive, value.node, scaled))


LAYERS: dict[str, Convert] = {
    "Activation": _activation,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ELU": _elu,
    "PReLU": _prelu,
    "Softmax": _softmax_layer,
}

"""Normalisations: batch norms stay batch norms, so that they fold into the layer ahead of them."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from mpsearch.importers.keras.reading import Array
from mpsearch.importers.keras.settings import Building, Convert, Order, Value, only


def _batch_norm(layer: Building, values: Sequence[Value]) -> Value:
    """Over one axis, which goes directly behind the batch; the moving statistics are used."""
    settings, emit, value = layer.settings, layer.emit, only(layer, values)
    axis = settings.axis("axis", len(value.shape))
    size = value.shape[axis]
    if axis == len(value.shape) - 1:
        value = emit.channels_first(value)
        moved = value.node
    else:
        value = emit.plain(value)
        moved = emit.call(torch.movedim, value.node, axis + 1, 1) if axis else value.node

    def of(name: str, key: str) -> object:
        return layer.tensor(key, lambda: layer.array(name, (size,)))

    gamma = of("gamma", "weight") if settings.flag("scale", True) else None
    beta = of("beta", "bias") if settings.flag("center", True) else None
    mean, variance = of("moving_mean", "running_mean"), of("moving_variance", "running_var")
    epsilon = settings.number("epsilon", 1e-3)
    node = emit.call(F.batch_norm, moved, mean, variance, gamma, beta, False, 0.0, epsilon)
    if value.order is Order.KERAS and axis:
        node = emit.call(torch.movedim, node, 1, axis + 1)
    return value.same(node)


def _layer_norm(layer: Building, values: Sequence[Value]) -> Value:
    """Over the last axis or the last few."""
    settings, emit, value = layer.settings, layer.emit, layer.emit.plain(only(layer, values))
    dimensions = len(value.shape)
    given = settings.get("axis", -1)
    single = [given] if isinstance(given, int) else given
    if not isinstance(single, list | tuple):
        raise settings.wrong("axis", "an axis or a list of axes")
    axes = sorted(
        type(settings)(settings.layer, {"axis": a}).axis("axis", dimensions) for a in single
    )
    if axes != list(range(dimensions - len(axes), dimensions)) or settings.get("rms_scaling"):
        raise settings.wrong("axis", "the last axes, and no rms_scaling")
    shape = tuple(value.shape[axis] for axis in axes)
    weight = bias = None
    if settings.flag("scale", True):
        weight = layer.tensor("weight", lambda: layer.array("gamma", shape))
    if settings.flag("center", True):
        bias = layer.tensor("bias", lambda: layer.array("beta", shape))
    epsilon = settings.number("epsilon", 1e-3)
    return value.same(emit.call(F.layer_norm, value.node, shape, weight, bias, epsilon))


def _rms_norm(layer: Building, values: Sequence[Value]) -> Value:
    """x/√(mean(x²) + ε)·scale over the last axis."""
    settings, value = layer.settings, layer.emit.plain(only(layer, values))
    if settings.axis("axis", len(value.shape)) != len(value.shape) - 1:
        raise settings.wrong("axis", "the last axis")
    shape = value.shape[-1:]
    weight = layer.tensor("weight", lambda: layer.array("scale", shape))
    epsilon = settings.number("epsilon", 1e-6)
    return value.same(layer.emit.call(F.rms_norm, value.node, shape, weight, epsilon))


def _rescaling(layer: Building, values: Sequence[Value]) -> Value:
    """scale·x + offset; a list has one number per channel."""
    value = layer.emit.plain(only(layer, values))
    scale, offset = (
        _numbers(layer, key, default) for key, default in (("scale", 1.0), ("offset", 0.0))
    )
    return _affine(layer, value, scale, offset)


def _normalization(layer: Building, values: Sequence[Value]) -> Value:
    """(x − mean)/max(√variance, 1e-7), per entry of the kept axes."""
    settings, value = layer.settings, layer.emit.plain(only(layer, values))
    if settings.flag("invert", False):
        raise settings.error("has invert=True, which is not read")
    if layer.weights:
        axis = settings.get("axis", -1)
        kept = [axis] if isinstance(axis, int) else axis
        axes = [
            type(settings)(settings.layer, {"axis": a}).axis("axis", len(value.shape)) for a in kept
        ]
        shape = tuple(size if i in axes else 1 for i, size in enumerate(value.shape))
        mean, variance = (layer.weights[name].reshape(-1) for name in ("mean", "variance"))
        if mean.size != math.prod(shape) or variance.size != math.prod(shape):
            raise settings.error(f"mean has {mean.size} numbers; expected {math.prod(shape)}")
        mean, variance = mean.reshape(shape), variance.reshape(shape)
    else:
        key = "mean" if settings.get("mean") is not None else "input_mean"
        mean = _numbers(layer, key, 0.0)
        variance = _numbers(layer, key.replace("mean", "variance"), 1.0)
    scale = 1 / np.maximum(np.sqrt(np.maximum(variance, 0)), 1e-7)
    return _affine(layer, value, scale, -mean * scale)


def _affine(layer: Building, value: Value, scale: Array, offset: Array) -> Value:
    node, emit = value.node, layer.emit
    for name, function, numbers, nothing in (
        ("scale", torch.mul, scale, 1.0),
        ("offset", torch.add, offset, 0.0),
    ):
        if (numbers == nothing).all():
            continue
        try:
            fits = np.broadcast_shapes(numbers.shape, value.shape) == value.shape
        except ValueError:
            fits = False
        if not fits:
            raise layer.settings.error(f"{name} of shape {numbers.shape} on {value.shape}")
        if numbers.size == 1:
            node = emit.call(function, node, float(numbers.reshape(-1)[0]))
        else:
            constant = layer.tensor(name, partial(np.asarray, numbers))
            node = emit.call(function, node, constant)
    return value.same(node)


def _numbers(layer: Building, key: str, default: float) -> Array:
    value = layer.settings.get(key, default)
    try:
        numbers = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise layer.settings.wrong(key, "numbers") from None
    if not np.isfinite(numbers).all():
        raise layer.settings.wrong(key, "finite numbers")
    return numbers


def _layer_scale(layer: Building, values: Sequence[Value]) -> Value:
    """ConvNeXt's factor per channel."""
    value = layer.emit.plain(only(layer, values))
    gamma = layer.tensor("gamma", lambda: layer.array("gamma", (value.shape[-1],)))
    return value.same(layer.emit.call(torch.mul, value.node, gamma))


LAYERS: dict[str, Convert] = {
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "LayerScale": _layer_scale,
    "Normalization": _normalization,
    "RMSNormalization": _rms_norm,
    "Rescaling": _rescaling,
}

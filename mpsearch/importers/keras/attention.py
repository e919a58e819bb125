"""Attention layers: projections are layers of the table, what lies between is torch's attention.

Keras's kernels are [features, heads, size], and [heads, size, features] at the output.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.nn import functional as F

from mpsearch.importers.keras.reading import Array
from mpsearch.importers.keras.settings import Building, Convert, Settings, Shape, Value


def _projected(
    layer: Building, value: Value, name: str, part: str, heads: int, size: int
) -> fx.Node:
    """[N, T, features] -> [N, heads, T, size]"""
    features, emit = value.shape[-1], layer.emit
    weight = layer.tensor(
        f"{name}.weight",
        lambda: layer.array(f"{part}/kernel", (features, heads, size)).reshape(features, -1).T,
    )
    bias = None
    if layer.settings.flag("use_bias", True):
        bias = layer.tensor(
            f"{name}.bias", lambda: layer.array(f"{part}/bias", (heads, size)).reshape(-1)
        )
    node = emit.call(F.linear, value.node, weight, bias)
    apart = emit.call(torch.reshape, node, (-1, value.shape[0], heads, size))
    return emit.call(torch.transpose, apart, 1, 2)


def _joined(
    layer: Building, node: fx.Node, steps: int, heads: int, size: int, part: str, wanted: Shape
) -> Value:
    """[N, heads, T, size] -> [N, T, *wanted]"""
    emit, outputs = layer.emit, math.prod(wanted)
    node = emit.call(torch.transpose, node, 1, 2)
    node = emit.call(torch.reshape, node, (-1, steps, heads * size))
    weight = layer.tensor(
        "attention_output.weight",
        lambda: layer.array(f"{part}/kernel", (heads, size, *wanted)).reshape(-1, outputs).T,
    )
    bias = None
    if layer.settings.flag("use_bias", True):
        bias = layer.tensor(
            "attention_output.bias", lambda: layer.array(f"{part}/bias", wanted).reshape(-1)
        )
    return Value(emit.call(F.linear, node, weight, bias), (steps, outputs))


def _tensors(layer: Building, values: Sequence[Value]) -> tuple[Value, Value, Value]:
    """Query, value and key in Keras's order; the value is the key, too, where that is not given."""
    if len(values) not in (2, 3):
        raise layer.settings.error(f"takes {len(values)} inputs; expected query, value and key")
    plain = [layer.emit.plain(value) for value in values]
    return plain[0], plain[1], plain[-1]


def _multi_head(layer: Building, values: Sequence[Value]) -> Value:
    """softmax(QKᵀ/√size)·V over `attention_axes`; every other axis is one more of samples."""
    settings, (query, value, key) = layer.settings, _tensors(layer, values)
    heads, size = settings.integer("num_heads"), settings.integer("key_dim")
    inner = settings.integer("value_dim", size)
    _refuse(layer)
    places = len(query.shape) - 1
    axes = _axes(layer, places)
    if layer.causal and len(axes) > 1:
        raise settings.error("has a causal mask over several axes, which is not read")
    if any(len(v.shape) != places + 1 for v in (value, key)):
        raise settings.error(f"has inputs of shapes {[v.shape for v in (query, value, key)]}")
    given = settings.get("output_shape")
    listed = [given] if isinstance(given, int) else given
    if listed is not None and not all(isinstance(n, int) and n > 0 for n in listed):
        raise settings.wrong("output_shape", "sizes from 1 on")
    wanted = (query.shape[-1],) if listed is None else tuple(listed)
    rows = [_as_rows(layer, v, axes) for v in (query, value, key)]
    q = _projected(layer, rows[0], "query", "query_dense", heads, size)
    v = _projected(layer, rows[1], "value", "value_dense", heads, inner)
    k = _projected(layer, rows[2], "key", "key_dense", heads, size)
    mask = None
    if layer.mask is not None:
        if len(axes) > 1:
            raise settings.error("has an attention_mask over several axes, which is not read")
        mask = _mask(layer, layer.mask, rows[0].shape[0], rows[1].shape[0])
    causal = layer.causal and mask is None
    node = layer.emit.call(F.scaled_dot_product_attention, q, k, v, mask, 0.0, causal)
    made = _joined(layer, node, rows[0].shape[0], heads, inner, "output_dense", wanted)
    return _as_places(layer, made, query.shape[:-1], axes, wanted)


def called_mask(settings: Settings, given: Any) -> Array:
    """The constant of `attention_mask=`, as Keras writes arrays: True where a step is seen."""
    config = given.get("config") if isinstance(given, dict) else None
    kind = given.get("class_name") if isinstance(given, dict) else None
    values = config.get("value") if isinstance(config, dict) else None
    try:
        if kind in ("__numpy__", "__tensor__") and isinstance(values, list):
            return np.array(values, dtype=np.float64).astype(bool)
    except (TypeError, ValueError, OverflowError):
        pass
    raise settings.error("is called with an attention_mask that is no constant; it is not read")


def _mask(layer: Building, given: Array, steps: int, seen: int) -> fx.Node:
    """[steps, seen], with the causal mask where that is asked for, too."""
    if given.shape not in ((steps, seen), (1, steps, seen)):
        raise layer.settings.error(
            f"has an attention_mask of shape {list(given.shape)}; expected {[1, steps, seen]}"
        )
    mask = given.reshape(steps, seen)
    if layer.causal:
        mask = mask & np.tri(steps, seen, dtype=bool)
    if not mask.any(axis=1).all():
        raise layer.settings.error("has an attention_mask with a step that sees none")
    name = f"{layer.scope}.mask{layer.call or ''}"
    return layer.emit.tensor(name, lambda: torch.from_numpy(mask))


def _refuse(layer: Building) -> None:
    for key in ("use_gate", "sliding_window", "flash_attention"):
        if layer.settings.get(key, False):
            raise layer.settings.wrong(key, "none: it is not read")


def _axes(layer: Building, places: int) -> list[int]:
    """`attention_axes` as axes of one sample; all but the last where none are given."""
    given = layer.settings.get("attention_axes")
    if given is None:
        return list(range(places))
    listed = given if isinstance(given, list | tuple) else [given]
    settings = type(layer.settings)
    axes = [settings(layer.settings.layer, {"attention_axes": a}) for a in listed]
    found = sorted({a.axis("attention_axes", places + 1) for a in axes})
    if not found or found[-1] >= places:
        raise layer.settings.wrong("attention_axes", "axes between batch and features")
    return found


def _order(count: int, axes: list[int]) -> list[int]:
    """Axes of a sample with those of the attention behind the others."""
    return [axis for axis in range(count) if axis not in axes] + axes


def _as_rows(layer: Building, value: Value, axes: list[int]) -> Value:
    """[N, …, features] -> [N·others, T, features]"""
    *sizes, features = value.shape
    if len(sizes) == 1:
        return value
    order, node = _order(len(sizes), axes), value.node
    if order != sorted(order):
        moved = (0, *(axis + 1 for axis in order), len(sizes) + 1)
        node = layer.emit.call(torch.permute, node, moved)
    steps = math.prod(sizes[axis] for axis in axes)
    node = layer.emit.call(torch.reshape, node, (-1, steps, features))
    return Value(node, (steps, features))


def _as_places(
    layer: Building, value: Value, sizes: Shape, axes: list[int], wanted: Shape
) -> Value:
    """The rows as places of the query again."""
    node, order = value.node, _order(len(sizes), axes)
    if len(sizes) == len(wanted) == 1:
        return value
    moved = tuple(sizes[axis] for axis in order)
    node = layer.emit.call(torch.reshape, node, (-1, *moved, *wanted))
    if order != sorted(order):
        back = [order.index(axis) + 1 for axis in range(len(sizes))]
        rest = range(len(sizes) + 1, len(sizes) + len(wanted) + 1)
        node = layer.emit.call(torch.permute, node, (0, *back, *rest))
    return Value(node, (*sizes, *wanted))


def _grouped(layer: Building, values: Sequence[Value]) -> Value:
    """Several heads of queries share one of keys and values."""
    settings, (query, value, key) = layer.settings, _tensors(layer, values)
    heads, shared = settings.integer("num_query_heads"), settings.integer("num_key_value_heads")
    size = settings.integer("head_dim")
    _refuse(layer)
    if heads % shared or any(len(v.shape) != 2 for v in (query, value, key)):
        raise settings.error(f"has {heads} heads for {shared}, or inputs that are no sequences")
    q = _projected(layer, query, "query", "_query_dense", heads, size)
    k = _projected(layer, key, "key", "_key_dense", shared, size)
    v = _projected(layer, value, "value", "_value_dense", shared, size)
    if heads > shared:
        k, v = (
            layer.emit.call(torch.repeat_interleave, node, heads // shared, 1) for node in (k, v)
        )
    node = layer.emit.call(F.scaled_dot_product_attention, q, k, v, None, 0.0, layer.causal)
    wanted = (query.shape[-1],)
    return _joined(layer, node, query.shape[0], heads, size, "_output_dense", wanted)


def _dot(layer: Building, values: Sequence[Value]) -> Value:
    """Keras's `Attention`: softmax(scale·QKᵀ)·V, without projections."""
    settings, (query, value, key) = layer.settings, _tensors(layer, values)
    settings.choice("score_mode", ("dot",), "dot")
    if any(len(v.shape) != 2 for v in (query, value, key)):
        raise settings.error("has inputs that are no sequences")
    scale = float(layer.array("scale", ())) if settings.flag("use_scale", False) else 1.0
    nodes = (query.node, key.node, value.node)
    node = layer.emit.call(
        F.scaled_dot_product_attention, *nodes, None, 0.0, layer.causal, scale=scale
    )
    return Value(node, (query.shape[0], value.shape[-1]))


def _additive(layer: Building, values: Sequence[Value]) -> Value:
    """softmax(Σ scale·tanh(q + k))·V"""
    settings, emit = layer.settings, layer.emit
    query, value, key = _tensors(layer, values)
    if layer.causal or any(len(v.shape) != 2 for v in (query, value, key)):
        raise settings.error("has a causal mask, or inputs that are no sequences")
    rows, columns = (emit.call(torch.unsqueeze, v.node, axis) for v, axis in ((query, 2), (key, 1)))
    pairs = emit.call(torch.add, rows, columns)
    scores = emit.call(torch.tanh, pairs)
    if settings.flag("use_scale", True):
        size = query.shape[-1]
        scores = emit.call(
            torch.mul, scores, layer.tensor("scale", lambda: layer.array("scale", (size,)))
        )
    shares = emit.call(torch.softmax, emit.call(torch.sum, scores, -1), -1)
    return Value(emit.call(torch.matmul, shares, value.node), (query.shape[0], value.shape[-1]))


LAYERS: dict[str, Convert] = {
    "MultiHeadAttention": _multi_head,
    **dict.fromkeys(("GroupQueryAttention", "GroupedQueryAttention"), _grouped),
    "Attention": _dot,
    "AdditiveAttention": _additive,
}

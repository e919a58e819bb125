"""Nodes that are affine in one tensor, y = a·x + c with stored a and c: arithmetic, batch norms."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from mpsearch.graph.layers import packet
from mpsearch.graph.tensors import get_tensor

_NAMES = {
    "add": "add", "sub": "sub", "subtract": "sub", "rsub": "rsub", "mul": "mul", "multiply": "mul",
    "div": "div", "divide": "div", "true_divide": "div",
}  # fmt: skip
_EPSILON = {"batch_norm": 7, "_native_batch_norm_legit_no_training": 6, "cudnn_batch_norm": 7}


@dataclass(frozen=True)
class Step:
    """`last` = scale · `source` + shift; both broadcast against the source, in float64."""

    source: fx.Node
    last: fx.Node
    scale: torch.Tensor
    shift: torch.Tensor


def find_step(graph: fx.GraphModule, node: fx.Node) -> Step | None:
    """The step that ends at `node`; None for other nodes."""
    if packet(node) == "getitem":
        source = node.args[0]
        only = isinstance(source, fx.Node) and len(source.users) == 1 and node.args[1] == 0
        return _of_norm(graph, source, node) if only else None  # type: ignore[arg-type]
    if packet(node) == "batch_norm":
        return _of_norm(graph, node, node)
    return _of_arithmetic(graph, node)


def _of_norm(graph: fx.GraphModule, norm: fx.Node, last: fx.Node) -> Step | None:
    name, source = packet(norm), norm.args[0] if norm.args else None
    if name not in _EPSILON or not isinstance(source, fx.Node) or norm.kwargs:
        return None
    if (last is norm) != (name == "batch_norm"):
        return None
    if name != "_native_batch_norm_legit_no_training" and norm.args[5] is not False:
        return None  # in training
    gamma, beta, mean, variance = (stored(graph, norm.args[index]) for index in (1, 2, 3, 4))
    if mean is None or variance is None:
        return None
    epsilon = norm.args[_EPSILON[name]]
    assert isinstance(epsilon, float)
    scale = (variance.double() + epsilon).rsqrt()
    scale = scale if gamma is None else scale * gamma.double()
    shift = -mean.double() * scale
    shift = shift if beta is None else shift + beta.double()
    places = (-1, *[1] * (len(shape_of(source)) - 2))
    return Step(source, last, scale.reshape(places), shift.reshape(places))


def _of_arithmetic(graph: fx.GraphModule, node: fx.Node) -> Step | None:
    kind = _NAMES.get(packet(node))
    if kind is None or len(node.args) < 2 or set(node.kwargs) - {"alpha"}:
        return None
    first, second = node.args[:2]
    turned = not _is_computed(first)
    source, other = (second, first) if turned else (first, second)
    if not isinstance(source, fx.Node) or not _is_computed(source) or not is_float(source):
        return None
    value = _number(graph, other)
    if value is None or not is_float(node) or shape_of(node) != shape_of(source):
        return None
    alpha = torch.tensor(float(str(node.kwargs.get("alpha", 1))), dtype=torch.float64)
    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    if kind == "add":
        scale, shift = (alpha, value) if turned else (one, value * alpha)
    elif kind == "sub":
        scale, shift = (-alpha, value) if turned else (one, -value * alpha)
    elif kind == "rsub":
        scale, shift = (-alpha, value)
    elif kind == "mul":
        scale, shift = value, zero
    else:
        scale, shift = 1 / value, zero
    unusable = turned and kind in ("div", "rsub")
    finite = scale.isfinite().all() and shift.isfinite().all()
    return None if unusable or not finite else Step(source, node, scale, shift)


def _is_computed(value: object) -> bool:
    return isinstance(value, fx.Node) and value.op != "get_attr"


def _number(graph: fx.GraphModule, value: object) -> torch.Tensor | None:
    """A number or a stored tensor of floats, in float64; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return torch.tensor(float(value), dtype=torch.float64)
    if isinstance(value, fx.Node) and value.op == "get_attr":
        tensor = get_tensor(graph, str(value.target))
        return tensor.double() if tensor.is_floating_point() else None
    return None


def per_channel(step: Step, place: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(scale, shift) as vectors along dimension `place`; None where they differ along others.

    None, too, for a tensor without that dimension: one number for each sample.
    """
    shape = shape_of(step.source)
    if place >= len(shape):
        return None
    vectors = []
    for value in (step.scale, step.shift):
        sizes = (*[1] * (len(shape) - value.dim()), *value.shape)
        if any(size != 1 for dim, size in enumerate(sizes) if dim != place):
            return None
        vectors.append(value.reshape(-1).expand(shape[place]))
    return vectors[0], vectors[1]


def stored(graph: fx.GraphModule, value: Any) -> torch.Tensor | None:
    return get_tensor(graph, str(value.target)) if isinstance(value, fx.Node) else None


def shape_of(node: fx.Node) -> tuple[int, ...]:
    shape: tuple[int, ...] = tuple(node.meta.get("shape", ()))
    return shape


def is_float(node: fx.Node) -> bool:
    return node.meta.get("dtype") == torch.float32

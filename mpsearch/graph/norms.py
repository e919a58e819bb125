"""Norms that are spelled out become one operator: layer_norm or rms_norm.

Files of old ONNX opsets, and models that count in float32 inside, have a norm as five to eight
operators: (x - mean)/sqrt(mean((x - mean)^2) + eps)·weight + bias, and without the mean
x·rsqrt(mean(x^2) + eps)·weight. x/max(|x|, eps), as in functional.normalize, is an RMS norm of
weight 1/sqrt(n). Results differ by rounding only.
"""

from dataclasses import dataclass

import torch
from torch import fx

from mpsearch.graph.layers import argument, packet
from mpsearch.graph.tensors import fresh_name, get_tensor, set_tensor

_SAME = {"to", "_to_copy", "contiguous", "clone", "alias", "detach", "expand", "expand_as"}
_TINY = 1e-30  # of a mean square that is only kept from being zero


@dataclass(frozen=True)
class _Found:
    """`source` is normalized over `dims`; every number is multiplied by `weight` afterwards."""

    source: fx.Node
    dims: tuple[int, ...]
    eps: float
    centred: bool
    weight: float = 1.0


def norms_in_one(graph: fx.GraphModule) -> None:
    """Rewrite them in place; shapes must have been recorded."""
    for node in list(graph.graph.nodes):
        if packet(node) in ("mul", "div"):
            found = _norm(node)
            if found is not None:
                _replace(graph, node, found)
    graph.graph.eliminate_dead_code()


def _norm(node: fx.Node) -> _Found | None:
    """What `node` computes, if it is the last product or quotient of a norm."""
    if len(node.args) != 2 or node.kwargs:
        return None
    pairs = [node.args, node.args[::-1]] if packet(node) == "mul" else [node.args]
    for x, factor in pairs:
        if isinstance(x, fx.Node) and isinstance(factor, fx.Node):
            root = _reciprocal_root(factor) if packet(node) == "mul" else _root(factor)
            if root is not None:
                return _normalized(x, *root)
            if packet(node) == "div":
                return _unit(x, factor)
    return None


def _reciprocal_root(node: fx.Node) -> tuple[fx.Node, float] | None:
    """(v, eps) of 1/sqrt(v + eps)."""
    node = _behind(node)
    if packet(node) == "rsqrt" or (packet(node) == "pow" and _number(node.args[1]) == -0.5):
        return _sum(node.args[0])
    if packet(node) == "reciprocal" and isinstance(node.args[0], fx.Node):
        return _root(node.args[0])
    if packet(node) == "div" and _number(node.args[0]) == 1 and isinstance(node.args[1], fx.Node):
        return _root(node.args[1])
    return None


def _root(node: fx.Node) -> tuple[fx.Node, float] | None:
    """(v, eps) of sqrt(v + eps)."""
    node = _behind(node)
    if packet(node) == "sqrt" or (packet(node) == "pow" and _number(node.args[1]) == 0.5):
        return _sum(node.args[0])
    return None


def _sum(node: object) -> tuple[fx.Node, float] | None:
    if not isinstance(node, fx.Node) or packet(node) != "add" or node.kwargs:
        return None
    for mean, eps in (node.args, node.args[::-1]):
        value = _number(eps)
        if isinstance(mean, fx.Node) and value is not None:
            return _behind(mean), value
    return None


def _number(given: object) -> float | None:
    """A Python number, or a stored tensor of one element."""
    if isinstance(given, int | float):
        return float(given)
    if isinstance(given, fx.Node) and given.op == "get_attr":
        module = given.graph.owning_module
        assert module is not None
        tensor = get_tensor(module, str(given.target))
        return float(tensor) if tensor.numel() == 1 else None
    return None


def _normalized(x: fx.Node, mean: fx.Node, eps: float) -> _Found | None:
    """x divided by the root of a mean square, of itself or of its distance to its mean."""
    x = _behind(x)
    if packet(mean) == "var":
        source, dims = mean.args[0], _reduced(mean)
        biased = mean.kwargs.get("correction") == 0 or mean.args[2:3] == (False,)
        own = _distance(x)
        assert isinstance(source, fx.Node)
        if not biased or dims is None or own != (_behind(source), dims):
            return None
        return _Found(own[0], dims, eps, True)
    dims = _reduced(mean) if packet(mean) == "mean" else None
    squared = _square(mean.args[0]) if dims is not None else None
    if dims is None or squared is None:
        return None
    own = _distance(x)
    if squared is not x and (own is None or own != _distance(squared)):
        return None
    if own is not None and own[1] == dims:
        return _Found(own[0], dims, eps, True)
    return _Found(x, dims, eps, False) if squared is x else None


def _square(node: object) -> fx.Node | None:
    if not isinstance(node, fx.Node):
        return None
    node = _behind(node)
    twice = packet(node) == "mul" and node.args[0] is node.args[1]
    if twice or packet(node) == "square" or (packet(node) == "pow" and _number(node.args[1]) == 2):
        assert isinstance(node.args[0], fx.Node)
        return _behind(node.args[0])
    return None


def _distance(node: fx.Node) -> tuple[fx.Node, tuple[int, ...]] | None:
    """(x, dims) of x - mean(x, dims)."""
    if packet(node) != "sub" or node.kwargs or not isinstance(node.args[1], fx.Node):
        return None
    x, mean = node.args[0], _behind(node.args[1])
    if not isinstance(x, fx.Node) or packet(mean) != "mean":
        return None
    dims, averaged = _reduced(mean), mean.args[0]
    assert isinstance(averaged, fx.Node)
    return (_behind(x), dims) if dims is not None and _behind(averaged) is _behind(x) else None


def _unit(x: fx.Node, norm: fx.Node) -> _Found | None:
    """x / max(|x|, eps)."""
    norm, least = _behind(norm), _TINY
    if packet(norm) in ("clamp_min", "clamp", "maximum") and len(norm.args) == 2:
        given = _number(norm.args[1])
        if given is None or given <= 0 or not isinstance(norm.args[0], fx.Node):
            return None
        norm, least = _behind(norm.args[0]), given**2
    if packet(norm) != "linalg_vector_norm" or argument(norm, "ord") not in (2, 2.0):
        return None
    dims, of = _reduced(norm), norm.args[0]
    if dims is None or not isinstance(of, fx.Node) or _behind(of) is not _behind(x):
        return None
    length = _length(of, dims)
    return _Found(_behind(x), dims, least / length, False, length**-0.5)


def _behind(node: fx.Node) -> fx.Node:
    """What a cast between floats, a copy or an expansion shows."""
    while packet(node) in _SAME and isinstance(node.args[0], fx.Node):
        source = node.args[0]
        if not _is_float(source) or not _is_float(node):
            break
        node = source
    return node


def _is_float(node: fx.Node) -> bool:
    dtype = node.meta.get("dtype")
    return isinstance(dtype, torch.dtype) and dtype.is_floating_point


def _reduced(node: fx.Node) -> tuple[int, ...] | None:
    """The dimensions that a mean keeps with length 1, but not the first, that of the samples."""
    known = {parameter.name for parameter in node.target._schema.arguments}  # type: ignore[union-attr]
    if not {"dim", "keepdim"} <= known or not argument(node, "keepdim"):
        return None
    dims, rank = argument(node, "dim"), len(node.meta["shape"])
    if isinstance(dims, int):
        dims = [dims]
    if not isinstance(dims, list | tuple) or not dims:
        return None
    found = tuple(sorted(int(str(dim)) % rank for dim in dims))
    return None if 0 in found else found


def _length(node: fx.Node, dims: tuple[int, ...]) -> int:
    return torch.Size(node.meta["shape"][dim] for dim in dims).numel()


def _replace(graph: fx.GraphModule, node: fx.Node, found: _Found) -> None:
    shape = tuple(found.source.meta["shape"])
    if shape != tuple(node.meta["shape"]):
        return
    last, weight, bias = _following(graph, node, found, len(shape))
    sizes = [shape[dim] for dim in found.dims]
    if found.weight != 1.0:
        weight = (torch.ones(sizes) if weight is None else weight) * found.weight
    order = [dim for dim in range(len(shape)) if dim not in found.dims] + list(found.dims)
    aten = torch.ops.aten
    owner = str(node.meta.get("module", ""))
    with graph.graph.inserting_before(last):
        x = found.source
        if order != sorted(order):
            x = graph.graph.call_function(aten.permute.default, (x, order))
        stored = [
            _stored(graph, owner, name, t) for name, t in (("weight", weight), ("bias", bias))
        ]
        if found.centred:
            made = graph.graph.call_function(
                aten.layer_norm.default, (x, sizes, *stored, found.eps, False)
            )
        else:
            made = graph.graph.call_function(
                aten.rms_norm.default, (x, sizes, stored[0], found.eps)
            )
        if order != sorted(order):
            back = [order.index(dim) for dim in range(len(shape))]
            made = graph.graph.call_function(aten.permute.default, (made, back))
    made.meta = dict(last.meta)
    last.replace_all_uses_with(made)


def _following(
    graph: fx.GraphModule, node: fx.Node, found: _Found, rank: int
) -> tuple[fx.Node, torch.Tensor | None, torch.Tensor | None]:
    """(the last node, weight, bias): a product with constants of the norm's own dimensions, and a
    sum with such ones, where nobody else reads what is between."""
    last, weight, bias = node, None, None
    user = _only_user(last)
    if user is not None and packet(user) == "mul":
        weight = _own_constant(graph, user, last, found, rank)
        last = last if weight is None else user
    user = _only_user(last)
    if user is not None and packet(user) == "add" and found.centred and not user.kwargs:
        bias = _own_constant(graph, user, last, found, rank)
        last = last if bias is None else user
    return last, weight, bias


def _only_user(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    while len(users) == 1 and packet(users[0]) in _SAME and _behind(users[0]) is _behind(node):
        users = list(users[0].users)
    return users[0] if len(users) == 1 else None


def _own_constant(
    graph: fx.GraphModule, user: fx.Node, node: fx.Node, found: _Found, rank: int
) -> torch.Tensor | None:
    """The constant operand beside `node`, as long as the dimensions of the norm."""
    others = [a for a in user.args if isinstance(a, fx.Node) and _behind(a) is not _behind(node)]
    if len(user.args) != 2 or len(others) != 1 or others[0].op != "get_attr":
        return None
    value = get_tensor(graph, str(others[0].target))
    if value.dim() > rank:
        return None
    full = value.reshape([1] * (rank - value.dim()) + list(value.shape))
    sizes = [found.source.meta["shape"][dim] for dim in found.dims]
    if full.numel() != torch.Size(full.shape[dim] for dim in found.dims).numel():
        return None
    return full.reshape([full.shape[dim] for dim in found.dims]).expand(sizes)


def _stored(
    graph: fx.GraphModule, owner: str, name: str, tensor: torch.Tensor | None
) -> fx.Node | None:
    if tensor is None:
        return None
    stored = fresh_name(graph, f"{owner}.norm_{name}" if owner else f"norm_{name}")
    set_tensor(graph, stored, tensor.contiguous().clone())
    return graph.graph.get_attr(stored)

"""Steps that are affine per channel, y = a·x + c, become part of the layer behind or before them.

A batch norm in evaluation mode is one, with a = γ/sqrt(σ² + ε) and c = β − a·μ; so are additions
and products of stored vectors, (x − mean)/std and x/255. Behind a convolution or linear layer
W' = a·W and b' = a·b + c give the same outputs. Before a layer W' = W·a and b' = b + W·c do, as far
as what the layer reads is the step's result: a convolution's zeros around it are not, so there only
a scale (c = 0) goes in. On the way there may be what keeps the step as it is: means over positions,
flattening and padding with the tensor's own numbers; for a positive scale also ReLU, pooling and
zeros. What is left of a chain of steps over dimension 1 becomes one `batch_norm`.

Computed in float64, so that folding costs no accuracy before the one rounding at the end.
"""

import math
from collections.abc import Iterator

import torch
from torch import fx

from mpsearch.graph.affine_steps import Step, find_step, is_float, per_channel, shape_of, stored
from mpsearch.graph.layers import (
    LINEAR_OPERATORS,
    argument,
    groups,
    is_transposed,
    output_channels_view,
    packet,
)
from mpsearch.graph.tensors import fresh_name, get_tensor, set_tensor

_FLATTENING = {"flatten", "view", "reshape", "_unsafe_view"}
_OWN_PADDING = {
    f"{kind}_pad{dims}d" for kind in ("reflection", "replication") for dims in (1, 2, 3)
}
_FOR_SCALES = {
    "relu", "leaky_relu", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d",
}  # fmt: skip


def fold_affine(graph: fx.GraphModule) -> None:
    """Fold all steps that a layer can take; what is left becomes batch norms. In place.

    Only where nothing else reads what is folded, and weights that no other layer has. Shapes must
    have been recorded.
    """
    for node in list(graph.graph.nodes):
        step = find_step(graph, node)
        if step is None or _erases(step):
            continue
        if _foldable(graph, step.source) and len(step.source.users) == 1:
            rows = per_channel(step, _channels_of(step.source))
            if rows is not None:
                _fold_behind(graph, step.source, *rows)
                _take_out(step, step.source)
    for node in reversed(list(graph.graph.nodes)):
        step = find_step(graph, node)
        if step is not None and not _erases(step) and _fold_before(graph, step):
            _take_out(step, step.source)
    _join(graph)


def _erases(step: Step) -> bool:
    """A product with 0, which would leave a layer without its weights."""
    return packet(step.last) == "mul" and not bool(step.scale.any())


def _take_out(step: Step, instead: fx.Node) -> None:
    step.last.replace_all_uses_with(instead)
    before = step.last.args[0]
    instead.graph.erase_node(step.last)
    if isinstance(before, fx.Node) and before.op == "call_function" and not before.users:
        instead.graph.erase_node(before)  # the norm whose results were picked


def _channels_of(layer: fx.Node) -> int:
    return len(shape_of(layer)) - 1 if packet(layer) == "linear" else 1


def _foldable(graph: fx.GraphModule, layer: fx.Node) -> bool:
    """A layer whose weight and bias nobody else uses."""
    if packet(layer) not in LINEAR_OPERATORS:
        return False
    tensors = [arg for arg in layer.args[1:3] if isinstance(arg, fx.Node)]
    return all(_owned(graph, tensor) for tensor in tensors)


def _owned(graph: fx.GraphModule, tensor: fx.Node) -> bool:
    uses = sum(
        len(node.users)
        for node in graph.graph.nodes
        if node.op == "get_attr" and node.target == tensor.target
    )
    return tensor.op == "get_attr" and uses == 1


def _fold_behind(
    graph: fx.GraphModule, layer: fx.Node, scale: torch.Tensor, shift: torch.Tensor
) -> None:
    name = _weight_name(layer)
    weight = get_tensor(graph, name)
    bias = stored(graph, layer.args[2] if len(layer.args) > 2 else None)
    if bias is not None:
        shift = shift + bias.double() * scale
    rows, restore = output_channels_view(layer, weight.double())
    set_tensor(graph, name, restore(rows * scale[:, None]).to(weight.dtype))
    if bias is not None or shift.any():
        _set_bias(graph, layer, shift.to(weight.dtype))


def _fold_before(graph: fx.GraphModule, step: Step) -> bool:
    """Fold a step into the layer that alone reads it, if there is one that can take it."""
    if step.source.op == "placeholder" and not is_float(step.source):
        return False
    shape = shape_of(step.source)
    scale, shift = (value.expand(shape) for value in (step.scale, step.shift))
    only_scale = not shift.any() and bool((scale > 0).all())
    node = step.last
    while len(node.users) == 1:
        (user,) = node.users
        if packet(user) in LINEAR_OPERATORS:
            takes = user.args[0] is node and _foldable(graph, user)
            return takes and _multiply_in(graph, user, scale, shift)
        passed = None
        if user.args and user.args[0] is node and not user.kwargs:
            passed = _through(user, scale, shift, only_scale)
        if passed is None:
            return False
        (scale, shift), node = passed, user
    return False


def _through(
    node: fx.Node, scale: torch.Tensor, shift: torch.Tensor, only_scale: bool
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The step behind `node` where it can be taken after it as well; None where it cannot."""
    name, shape = packet(node), tuple(node.meta.get("shape", ()))
    if name in _FLATTENING:
        if shape != (1, math.prod(scale.shape)):
            return None
        return scale.reshape(shape), shift.reshape(shape)
    constant = _along_channels(scale), _along_channels(shift)
    if constant[0] is None or constant[1] is None or len(shape) < 2 or shape[1] != len(constant[0]):
        return None  # what follows mixes positions, which must have one step
    mean = name == "mean" and len(node.args) > 1 and _positions_only(node.args[1], scale.dim())
    padding = name in _OWN_PADDING or (name == "pad" and argument(node, "mode") != "constant")
    zeros = name in ("constant_pad_nd", "pad") and argument(node, "value") in (None, 0, 0.0)
    if mean or padding or (only_scale and (zeros or name in _FOR_SCALES)):
        places = (1, -1, *[1] * (len(shape) - 2))
        return constant[0].reshape(places).expand(shape), constant[1].reshape(places).expand(shape)
    return None


def _along_channels(value: torch.Tensor) -> torch.Tensor | None:
    """The vector along dimension 1 of what is equal along all the others; None otherwise."""
    if value.dim() < 2:
        return None
    vector = value.movedim(1, 0).reshape(value.shape[1], -1)[:, 0]
    same = value == vector.reshape(1, -1, *[1] * (value.dim() - 2))
    return vector if bool(same.all()) else None


def _positions_only(dims: object, count: int) -> bool:
    places = dims if isinstance(dims, list | tuple) else [dims]
    return all(isinstance(place, int) and place % count > 1 for place in places)


def _multiply_in(
    graph: fx.GraphModule, layer: fx.Node, scale: torch.Tensor, shift: torch.Tensor
) -> bool:
    if packet(layer) == "linear":
        rows = [value.reshape(-1, value.shape[-1]) for value in (scale, shift)]
        if any(bool((value != value[0]).any()) for value in rows):
            return False
        vectors = [value[0] for value in rows]
    else:
        found = [_along_channels(value) for value in (scale, shift)]
        vectors = [value for value in found if value is not None]
    if len(vectors) < 2 or (vectors[1].any() and not _reads_all(graph, layer)):
        return False
    name = _weight_name(layer)
    weight = get_tensor(graph, name)
    count = groups(layer)
    outputs = weight.shape[0]
    inner = math.prod(weight.shape[2:])
    if is_transposed(layer):
        places = (-1, *[1] * (weight.dim() - 1))
        set_tensor(graph, name, (weight.double() * vectors[0].reshape(places)).to(weight.dtype))
        return True
    split = weight.double().reshape(count, outputs // count, -1, inner)
    scaled = split * vectors[0].reshape(count, 1, -1, 1)
    set_tensor(graph, name, scaled.reshape(weight.shape).to(weight.dtype))
    if vectors[1].any():
        more = (split * vectors[1].reshape(count, 1, -1, 1)).sum((2, 3)).reshape(outputs)
        bias = stored(graph, layer.args[2] if len(layer.args) > 2 else None)
        more = more if bias is None else more + bias.double()
        _set_bias(graph, layer, more.to(weight.dtype))
    return True


def _reads_all(graph: fx.GraphModule, layer: fx.Node) -> bool:
    """Whether every product of the layer is with the tensor that it is given, not with zeros."""
    if packet(layer) == "linear":
        return True
    if is_transposed(layer):
        return False
    padding = argument(layer, "padding")
    one = math.prod(get_tensor(graph, _weight_name(layer)).shape[2:]) == 1
    if isinstance(padding, str):
        return padding == "valid" or one
    return not any(padding if isinstance(padding, list | tuple) else [padding])


def _join(graph: fx.GraphModule) -> None:
    """One `batch_norm` for each chain of steps over dimension 1 that is left.

    Chains of single numbers stay as they are (the scale of an attention), except for what is done
    to an input, which is its normalization.
    """
    for node in reversed(list(graph.graph.nodes)):
        steps = list(_chain(graph, node))
        if not steps:
            continue
        first, last = steps[-1], steps[0]
        vector = any(max(step.scale.numel(), step.shift.numel()) > 1 for step in steps)
        given = first.source.op == "placeholder" and len(steps) > 1
        plain = len(steps) == 1 and packet(last.last) == "batch_norm"
        if plain or not (vector or given) or not is_float(first.source):
            continue
        scale, shift = (torch.ones(shape_of(first.source)[1]).double(), torch.zeros(()).double())
        for step in reversed(steps):
            rows = per_channel(step, 1)
            assert rows is not None
            scale, shift = scale * rows[0], shift * rows[0] + rows[1]
        _replace_by_norm(graph, first.source, last.last, scale, shift.expand(len(scale)))


def _chain(graph: fx.GraphModule, node: fx.Node) -> Iterator[Step]:
    """The steps over dimension 1 that end at `node`, last first; none within a longer chain."""
    users = list(node.users)
    if len(users) == 1:
        after = find_step(graph, users[0])
        if after is not None and after.source is node and per_channel(after, 1) is not None:
            return
    step = find_step(graph, node)
    while step is not None and len(shape_of(step.source)) > 1:
        if per_channel(step, 1) is None:
            return
        yield step
        if len(step.source.users) > 1:
            return
        step = find_step(graph, step.source)


def _replace_by_norm(
    graph: fx.GraphModule, source: fx.Node, last: fx.Node, scale: torch.Tensor, shift: torch.Tensor
) -> None:
    module = str(last.meta.get("module", ""))
    owner = fresh_name(graph, f"{module}.{last.name}" if module else last.name)
    values = {
        "weight": scale, "bias": shift,
        "running_mean": torch.zeros(len(scale)), "running_var": torch.ones(len(scale)),
    }  # fmt: skip
    with graph.graph.inserting_before(last):
        tensors = []
        for leaf, value in values.items():
            set_tensor(graph, f"{owner}.{leaf}", value.float().contiguous())
            tensors.append(graph.graph.get_attr(f"{owner}.{leaf}"))
        norm = graph.graph.call_function(
            torch.ops.aten.batch_norm.default, (source, *tensors, False, 0.0, 0.0, False)
        )
    norm.meta = dict(last.meta)
    last.replace_all_uses_with(norm)


def _set_bias(graph: fx.GraphModule, layer: fx.Node, bias: torch.Tensor) -> None:
    old = layer.args[2] if len(layer.args) > 2 else None
    if isinstance(old, fx.Node):
        set_tensor(graph, str(old.target), bias)
        return
    owner = _weight_name(layer).rpartition(".")[0]
    name = fresh_name(graph, f"{owner}.bias" if owner else "bias")
    set_tensor(graph, name, bias)
    with graph.graph.inserting_before(layer):
        node = graph.graph.get_attr(name)
    layer.args = (*layer.args[:2], node, *layer.args[3:])


def _weight_name(layer: fx.Node) -> str:
    weight = layer.args[1]
    assert isinstance(weight, fx.Node)
    return str(weight.target)

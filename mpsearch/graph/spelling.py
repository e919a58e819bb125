"""Operators that are others put together: sums of means, minima of maxima, gated linear units.

What is the same for every sample of a batch is a stored tensor of one sample, expanded.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import fx

from mpsearch.graph.layers import argument, packet
from mpsearch.graph.tensors import fresh_name, set_tensor

Stored = Mapping[str, torch.Tensor]  # what does not depend on the inputs, by node
_aten = torch.ops.aten


def _sum(graph: fx.GraphModule, node: fx.Node, stored: Stored) -> fx.Node | None:
    """The mean times the number of elements; None for a sum over all, the samples too."""
    source, dims = node.args[0], _dims(node)
    assert isinstance(source, fx.Node)
    if not dims or not source.meta["dtype"].is_floating_point or argument(node, "dtype"):
        return None
    count = prod(source.meta["shape"][dim] for dim in dims)
    call: Any = graph.graph.call_function
    mean = call(_aten.mean.dim, (source, dims, bool(argument(node, "keepdim"))))
    result: fx.Node = call(_aten.mul.Tensor, (mean, count))
    return result


def _amin(graph: fx.GraphModule, node: fx.Node, stored: Stored) -> fx.Node | None:
    """-max(-x)."""
    dims = _dims(node)
    if not dims:
        return None
    call: Any = graph.graph.call_function
    turned = call(_aten.neg.default, (node.args[0],))
    largest = call(_aten.amax.default, (turned, dims, bool(argument(node, "keepdim"))))
    result: fx.Node = call(_aten.neg.default, (largest,))
    return result


def _dims(node: fx.Node) -> list[int]:
    if not any(parameter.name == "dim" for parameter in node.target._schema.arguments):  # type: ignore[union-attr]
        return []
    dims: Any = argument(node, "dim")
    return [dims] if isinstance(dims, int) else list(dims or ())


def _of_two(graph: fx.GraphModule, node: fx.Node, stored: Stored) -> fx.Node | None:
    """max(a, b) = b + relu(a - b), min(a, b) = a - relu(a - b); None beside a single number, where
    it is a function of one."""
    left, right = node.args[0], node.args[1] if len(node.args) > 1 else None
    for operand in (left, right):
        if not isinstance(operand, fx.Node):
            return None
        if operand.name in stored and stored[operand.name].numel() == 1:
            return None
    call: Any = graph.graph.call_function
    above = call(_aten.relu.default, (call(_aten.sub.Tensor, (left, right)),))
    least = packet(node) in ("minimum", "min")
    function, first = (_aten.sub.Tensor, left) if least else (_aten.add.Tensor, right)
    result: fx.Node = call(function, (first, above))
    return result


def _glu(graph: fx.GraphModule, node: fx.Node, stored: Stored) -> fx.Node | None:
    """The first half times the sigmoid of the second."""
    source, dim = node.args[0], argument(node, "dim")
    assert isinstance(source, fx.Node)
    assert isinstance(dim, int)
    half = source.meta["shape"][dim] // 2
    call: Any = graph.graph.call_function
    value = call(_aten.slice.Tensor, (source, dim, 0, half))
    gate = call(_aten.slice.Tensor, (source, dim, half, 2 * half))
    result: fx.Node = call(_aten.mul.Tensor, (value, call(_aten.sigmoid.default, (gate,))))
    return result


def _filled(graph: fx.GraphModule, node: fx.Node, stored: Stored) -> fx.Node | None:
    """zeros, ones or a number for every sample of a batch of any size."""
    shape, kind = node.meta["shape"], packet(node).removeprefix("new_")
    sizes: Any = node.args[1 if packet(node).startswith("new_") else 0]
    value: Any = argument(node, "fill_value") if kind == "full" else float(kind == "ones")
    is_number = isinstance(value, int | float) and node.meta["dtype"].is_floating_point
    if not sizes or not isinstance(sizes[0], fx.Node) or not is_number:
        return None
    return repeated(graph, node, torch.full((1, *shape[1:]), float(value)), sizes[0])


def repeated(graph: fx.GraphModule, node: fx.Node, values: torch.Tensor, count: fx.Node) -> fx.Node:
    """`values` [1, …], stored, `count` times."""
    name = fresh_name(graph, f"{node.name}_stored")
    set_tensor(graph, name, values.contiguous())
    shape = [count, *values.shape[1:]]
    result: fx.Node = graph.graph.call_function(
        _aten.expand.default, (graph.graph.get_attr(name), shape)
    )
    result.meta.update(shape=tuple(values.shape), dtype=values.dtype)
    return result


def _matmul(graph: fx.GraphModule, node: fx.Node, stored: Stored) -> fx.Node | None:
    """A stored matrix on the left, once for every matrix on the right."""
    left, right = node.args[:2]
    assert isinstance(left, fx.Node)
    assert isinstance(right, fx.Node)
    if left.name not in stored or right.name in stored or stored[left.name].dim() < 2:
        return None
    over = right.meta["shape"][:-2]
    if not over or len(over) < stored[left.name].dim() - 2:
        return None
    shape = (1, *over[1:], *stored[left.name].shape[-2:])
    call: Any = graph.graph.call_function
    count = call(_aten.sym_size.int, (right, 0))
    matrices = repeated(graph, node, stored[left.name].expand(shape), count)
    result: fx.Node = call(_aten.matmul.default, (matrices, right))
    return result


SPELLED = {
    **dict.fromkeys("zeros ones full new_zeros new_ones new_full".split(), _filled),
    "matmul": _matmul,
    "amin": _amin,
    "glu": _glu,
    "sum": _sum,
    **dict.fromkeys(("max", "maximum", "min", "minimum"), _of_two),
}

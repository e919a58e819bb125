"""Operators that are others put together: sums of means, minima of maxima, gated linear units."""

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import fx

from mpsearch.graph.layers import argument, packet

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


SPELLED = {
    "amin": _amin,
    "glu": _glu,
    "sum": _sum,
    **dict.fromkeys(("max", "maximum", "min", "minimum"), _of_two),
}

"""Attention and other products of two activations spelled out: matmul, a factor, a mask, softmax.

scaled_dot_product_attention, baddbmm and einsum of two operands are one operator each to torch. In
integers every product has a result of its own, and a mask is a number that is added.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from mpsearch.graph.layers import argument, packet
from mpsearch.graph.network import copy_graph, record_shapes
from mpsearch.graph.partial_forward import PartialForward
from mpsearch.graph.spelling import SPELLED, Stored, repeated
from mpsearch.graph.tensors import fresh_name, set_tensor

_NOWHERE = -1e9  # added to a score: its probability is 0 in float32, too
_MASKS = {"masked_fill", "where"}
_SOFTMAXES = {"softmax", "_softmax"}
_aten = torch.ops.aten


def products_apart(graph: fx.GraphModule, inputs: Sequence[torch.Tensor]) -> fx.GraphModule:
    """A graph with the same outputs up to rounding; `graph` itself where there is nothing to do.

    What cannot be spelled out (dropout, heads that share keys, an einsum that is no product of
    matrices) stays.
    """
    if not any(packet(node) in _WAYS for node in graph.graph.nodes):
        return graph
    copy = copy_graph(graph)
    forward = PartialForward(graph, inputs)
    values = forward.run([x[:1] for x in inputs])
    stored = {
        node.name: value
        for node, value in values.items()
        if node not in forward.varying and isinstance(value, torch.Tensor)
    }
    for node in list(copy.graph.nodes):
        if packet(node) in _WAYS:
            with copy.graph.inserting_before(node):
                made = _WAYS[packet(node)](copy, node, stored)
            if made is not None:
                made.meta.update(node.meta)
                node.replace_all_uses_with(made)
                copy.graph.erase_node(node)  # torch counts attention as random
    copy.graph.eliminate_dead_code()
    copy.recompile()
    record_shapes(copy, inputs)
    return copy


def _attention(graph: fx.GraphModule, node: fx.Node, stored: Stored) -> fx.Node | None:
    query, key, value = node.args[:3]
    mask, causal, scale = (argument(node, name) for name in ("attn_mask", "is_causal", "scale"))
    if argument(node, "dropout_p") or argument(node, "enable_gqa"):
        return None
    assert isinstance(query, fx.Node)
    assert isinstance(key, fx.Node)
    factor = float(scale) if isinstance(scale, int | float) else None
    factor = 1 / math.sqrt(query.meta["shape"][-1]) if factor is None else factor
    call: Any = graph.graph.call_function
    turned = call(_aten.transpose.int, (key, -2, -1))
    scores = call(_aten.matmul.default, (query, turned))
    scores = call(_aten.mul.Tensor, (scores, factor))
    if causal:
        rows, columns = query.meta["shape"][-2], key.meta["shape"][-2]
        allowed = torch.ones(rows, columns, dtype=torch.bool).tril()
        scores = call(_aten.add.Tensor, (scores, _added(graph, node, ~allowed)))
    if isinstance(mask, fx.Node):
        if mask.meta.get("dtype") == torch.bool:
            if mask.name not in stored:
                return None
            mask = _added(graph, node, ~stored[mask.name])
        scores = call(_aten.add.Tensor, (scores, mask))
    weights = call(_aten.softmax.int, (scores, -1))
    result: fx.Node = call(_aten.matmul.default, (weights, value))
    return result


def _added(graph: fx.GraphModule, node: fx.Node, hidden: torch.Tensor) -> fx.Node:
    """What hides scores where it is added."""
    name = fresh_name(graph, f"{node.name}_mask")
    set_tensor(graph, name, torch.zeros(hidden.shape).masked_fill(hidden, _NOWHERE))
    return graph.graph.get_attr(name)


def _mask(graph: fx.GraphModule, node: fx.Node, stored: Stored) -> fx.Node | None:
    """Scores that a stored mask replaces by a very low number, where only a softmax reads them."""
    if not all(packet(user) in _SOFTMAXES for user in node.users):
        return None
    if packet(node) == "where":
        mask, *given = node.args
        turned = _is_low(given[1], stored)
        scores, low = given if turned else reversed(given)
    else:
        scores, mask, low = node.args
        turned = False
    if not isinstance(mask, fx.Node) or not isinstance(scores, fx.Node):
        return None
    if mask.name not in stored or scores.name in stored or not _is_low(low, stored):
        return None
    hidden = stored[mask.name].bool()
    added = _added(graph, node, ~hidden if turned else hidden)
    result: fx.Node = graph.graph.call_function(_aten.add.Tensor, (scores, added))
    return result


def _is_low(given: object, stored: Stored) -> bool:
    if isinstance(given, fx.Node) and given.name in stored:
        given = float(stored[given.name].max())
    return isinstance(given, int | float) and given <= -1e4


def _sum_and_product(graph: fx.GraphModule, node: fx.Node, stored: Stored) -> fx.Node:
    added, left, right = node.args[:3]
    call: Any = graph.graph.call_function
    product: fx.Node = call(_aten.matmul.default, (left, right))
    if argument(node, "alpha") != 1:
        product = call(_aten.mul.Tensor, (product, argument(node, "alpha")))
    beta = argument(node, "beta")
    if beta == 0:
        return product
    if beta != 1:
        added = call(_aten.mul.Tensor, (added, beta))
    result: fx.Node = call(_aten.add.Tensor, (product, added))
    return result


def _einsum(graph: fx.GraphModule, node: fx.Node, stored: Stored) -> fx.Node | None:
    """Two operands without repeated or summed-up letters: permute, matmul, permute."""
    equation, operands = str(node.args[0]).replace(" ", ""), node.args[1]
    assert isinstance(operands, list | tuple)
    terms, arrow, result = equation.partition("->")
    letters = terms.split(",")
    if len(operands) != 2 or not arrow or "." in equation:
        return None
    x, y = operands
    assert isinstance(x, fx.Node)
    assert isinstance(y, fx.Node)
    left, right = letters
    if x.name in stored and y.name not in stored and right[0] not in left:
        x, left = _for_each(graph, node, stored[x.name], left, y, right)
    elif y.name in stored and x.name not in stored and left[0] not in right:
        y, right = _for_each(graph, node, stored[y.name], right, x, left)
    both = [c for c in left if c in right]
    rows = [c for c in left if c not in right]
    columns = [c for c in right if c not in left]
    shared = [c for c in both if c in result]
    summed = [c for c in both if c not in result]
    if any(len(set(term)) != len(term) for term in (left, right, result)):
        return None
    if set(result) != {*rows, *columns, *shared} or not shared or len(summed) != 1:
        return None
    if max(len(rows), len(columns)) > 1:
        return None
    call: Any = graph.graph.call_function

    def ordered(operand: fx.Node, given: str, wanted: Sequence[str], room: int | None) -> fx.Node:
        order = [given.index(c) for c in wanted]
        made = operand
        if order != sorted(order):
            made = call(_aten.permute.default, (operand, order))
        return made if room is None else call(_aten.unsqueeze.default, (made, room))

    a = ordered(x, left, [*shared, *rows, *summed], None if rows else -2)
    b = ordered(y, right, [*shared, *summed, *columns], None if columns else -1)
    product: fx.Node = call(_aten.matmul.default, (a, b))
    if not columns:
        product = call(_aten.squeeze.dim, (product, -1))
    if not rows:
        product = call(_aten.squeeze.dim, (product, -1 if not columns else -2))
    return ordered(product, "".join([*shared, *rows, *columns]), list(result), None)


def _for_each(
    graph: fx.GraphModule, node: fx.Node, values: torch.Tensor, letters: str, beside: fx.Node,
    others: str,
) -> tuple[fx.Node, str]:  # fmt: skip
    """A stored operand once for every index that only the other has, up to its last one."""
    own = [c for c in others if c not in letters]
    more = own[: max(1, len(own) - 1)]
    sizes = [1, *(beside.meta["shape"][others.index(c)] for c in more[1:])]
    count: Any = graph.graph.call_function(_aten.sym_size.int, (beside, 0))
    made = repeated(graph, node, values.expand(*sizes, *values.shape), count)
    return made, "".join(more) + letters


_WAYS = {
    "scaled_dot_product_attention": _attention,
    "baddbmm": _sum_and_product,
    "einsum": _einsum,
    **SPELLED,
    **dict.fromkeys(_MASKS, _mask),
}

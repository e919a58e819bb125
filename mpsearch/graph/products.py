"""Products with a stored matrix become linear layers: x @ W, torch.mm, torch.addmm (as in GPT-2).

The layer's weight is the matrix, transposed where the product had it the other way around.
"""

import torch
from torch import fx

from mpsearch.graph.operators import packet
from mpsearch.graph.tensors import get_tensor, set_tensor

_TRANSPOSING = {"t", "transpose", "permute", "numpy_T", "swapaxes"}


def products_to_linear(graph: fx.GraphModule) -> None:
    """Rewrite them in place; an addition of a stored vector right behind becomes the bias.

    A matrix that others read too is used as it is or not at all, because its layout would change
    for them. Products of two matrices of numbers stay.
    """
    for node in list(graph.graph.nodes):
        operands = _operands(node)
        if operands is None:
            continue
        x, matrix, bias = operands
        weight = _weight(graph, matrix)
        if weight is None or x.op == "get_attr" or len(_shape(x)) < 2:
            continue
        last = node
        if bias is None:
            last, bias = _bias_behind(graph, node, int(get_tensor(graph, _name(weight)).shape[0]))
        arguments = (x, weight) if bias is None else (x, weight, bias)
        with graph.graph.inserting_before(last):
            linear = graph.graph.call_function(torch.ops.aten.linear.default, arguments)
        linear.meta = {**last.meta, "module": node.meta.get("module", "")}
        last.replace_all_uses_with(linear)
        graph.graph.erase_node(last)
        if last is not node:
            graph.graph.erase_node(node)


def _operands(node: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node | None] | None:
    """(x, matrix, bias) of a product; None for other nodes."""
    name, args = packet(node), list(node.args)
    bias: fx.Node | None = None
    if name == "addmm" and not node.kwargs:
        first, *args = args
        if not isinstance(first, fx.Node) or first.op != "get_attr" or len(_shape(first)) != 1:
            return None
        bias = first
    elif name not in ("mm", "matmul"):
        return None
    x, matrix = args
    assert isinstance(x, fx.Node)
    assert isinstance(matrix, fx.Node)
    return x, matrix, bias


def _weight(graph: fx.GraphModule, matrix: fx.Node) -> fx.Node | None:
    """The node of the matrix as [outputs, inputs]; None where it is not a stored one."""
    if packet(matrix) in _TRANSPOSING and len(_shape(matrix)) == 2:
        (source,) = matrix.all_input_nodes
        return source if source.op == "get_attr" and _turns(matrix) else None
    if matrix.op != "get_attr" or len(_shape(matrix)) != 2:
        return None
    same = [n for n in graph.graph.nodes if n.op == "get_attr" and n.target == matrix.target]
    if sum(len(n.users) for n in same) != 1:
        return None
    set_tensor(graph, _name(matrix), get_tensor(graph, _name(matrix)).T.contiguous())
    matrix.meta["shape"] = tuple(reversed(_shape(matrix)))
    return matrix


def _turns(node: fx.Node) -> bool:
    """True where the two dimensions change places, and do not stay."""
    order = node.args[1:]
    if order and isinstance(order[0], list | tuple):
        return [int(str(d)) % 2 for d in order[0]] == [1, 0]
    return {int(str(d)) % 2 for d in order} in (set(), {0, 1})


def _bias_behind(
    graph: fx.GraphModule, node: fx.Node, outputs: int
) -> tuple[fx.Node, fx.Node | None]:
    """(the addition of a stored vector that alone reads `node`, the vector), or (node, None)."""
    if len(node.users) == 1:
        (user,) = node.users
        if packet(user) == "add" and not user.kwargs:
            (other,) = [arg for arg in user.args if arg is not node] or [None]
            if (
                isinstance(other, fx.Node)
                and other.op == "get_attr"
                and _shape(other) == (outputs,)
            ):
                return user, other
    return node, None


def _shape(node: fx.Node) -> tuple[int, ...]:
    shape: tuple[int, ...] = tuple(node.meta.get("shape", ()))
    return shape


def _name(node: fx.Node) -> str:
    return str(node.target)

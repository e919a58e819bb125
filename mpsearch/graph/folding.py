"""What inference does not need is folded away: dropout, casts, constants, steps per channel.

Products with a stored matrix become linear layers: x @ W, torch.mm, torch.addmm (as in GPT-2).

The layer's weight is the matrix, transposed where the product had it the other way around.
"""

from collections.abc import Sequence

import torch
from torch import fx

from mpsearch.graph.affine import fold_affine
from mpsearch.graph.constants import fold_constants
from mpsearch.graph.layers import (
    EMBEDDING,
    argument,
    packet,
)
from mpsearch.graph.norms import norms_in_one
from mpsearch.graph.recurrent import unroll
from mpsearch.graph.tensors import get_tensor, remove_unused, set_tensor

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
        if x.op == "get_attr" or len(_shape(x)) < 2:
            continue
        weight = _weight(graph, matrix)
        if weight is None:
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


_IDENTITIES = {"dropout", "feature_dropout", "alpha_dropout", "alias", "detach", "lift_fresh_copy"}
_CASTS = {"to", "_to_copy", "type_as"}


def simplify(graph: fx.GraphModule, example_inputs: Sequence[torch.Tensor]) -> fx.GraphModule:
    """Drop identities, unroll recurrent layers, turn products into linear layers, evaluate
    constant nodes, write norms as one operator and fold what is affine per channel into the layers.

    `graph` is changed in place; its shapes and types must have been recorded.
    """
    _drop_identities(graph)
    _plain_embeddings(graph)
    unroll(graph, example_inputs)
    products_to_linear(graph)  # while a matrix is known by its own name
    fold_constants(graph)
    products_to_linear(graph)  # with computed matrices
    norms_in_one(graph)
    fold_affine(graph)
    remove_unused(graph)
    return graph


def _drop_identities(graph: fx.GraphModule) -> None:
    for node in list(graph.graph.nodes):
        name = packet(node)
        cast = name in _CASTS and node.meta["dtype"] == node.args[0].meta.get("dtype")
        if cast or (
            name in _IDENTITIES and (not name.endswith("dropout") or node.args[2] is False)
        ):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)


def _plain_embeddings(graph: fx.GraphModule) -> None:
    """Without `scale_grad_by_freq` and `sparse`, which are about training and falsify gradients."""
    for node in graph.graph.nodes:
        if packet(node) == EMBEDDING:
            padding = argument(node, "padding_idx")
            node.args, node.kwargs = (*node.args[:2], padding), {}

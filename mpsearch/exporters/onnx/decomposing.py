"""Operators without a writer of their own as what torch itself says that they consist of.

torch has its operators in terms of a core of some 180 (and synonyms in terms of each other).
Tracing the operator alone, with free sizes, gives these; where the trace does not give the same
values with another number of samples, the operator stays and is refused under its own name.
"""

import operator
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from mpsearch.graph.layers import packet
from mpsearch.graph.network import copy_graph
from mpsearch.graph.partial_forward import PartialForward
from mpsearch.graph.tensors import get_tensor, set_tensor

_SIZES = {"sym_size", "sym_numel"}


def decomposed(
    graph: fx.GraphModule, examples: Sequence[torch.Tensor], known: Collection[str]
) -> tuple[fx.GraphModule, Mapping[str, fx.Node]]:
    """(the graph in which only what is known is left, as far as torch can say it; the node of
    `graph` that each of its new nodes comes from, by the new node's name)."""
    unknown = [node for node in graph.graph.nodes if _is_unknown(node, known)]
    if not unknown:
        return graph, {}
    forward = PartialForward(graph, examples)
    runs = [forward.run([torch.cat([x[:1]] * count) for x in examples]) for count in (2, 3)]
    copy, origins = copy_graph(graph), {}
    nodes = dict(zip(graph.graph.nodes, copy.graph.nodes, strict=True))
    for node in unknown:
        part = _traced(node, runs)
        if part is None:
            continue
        before = {each.name for each in copy.graph.nodes}
        with copy.graph.inserting_before(nodes[node]):
            _put_in(copy, nodes[node], part)
        new = [each for each in copy.graph.nodes if each.name not in before]
        origins.update({each.name: node for each in new})
    copy.graph.eliminate_dead_code()
    copy.recompile()
    return copy, origins


def _is_unknown(node: fx.Node, known: Collection[str]) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    return packet(node) not in known and packet(node) not in _SIZES


def _traced(node: fx.Node, runs: Sequence[Mapping[fx.Node, Any]]) -> fx.GraphModule | None:
    """The operator as a graph of the tensors and sizes that it reads; None where torch fails."""
    read = node.all_input_nodes
    function = _of_inputs(node, read)
    table: Any = core_aten_decompositions()
    values = [[run[each] for each in read] for run in runs]
    for way in ("symbolic", "real"):
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                part = make_fx(function, decomposition_table=table, tracing_mode=way)(*values[0])
                _without_writing(part.graph)
                part.graph.eliminate_dead_code()
                part.recompile()
                if all(
                    _same(part(*given), run[node]) for given, run in zip(values, runs, strict=True)
                ) and not _is_itself(part, node):
                    return part
        except Exception:  # torch raises whatever its own decompositions do
            continue
    return None


def _of_inputs(node: fx.Node, read: Sequence[fx.Node]) -> Callable[..., Any]:
    def function(*values: Any) -> Any:
        given = dict(zip(read, values, strict=True))
        arguments = fx.map_arg((node.args, node.kwargs), given.__getitem__)
        return node.target(*arguments[0], **arguments[1])  # type: ignore[operator]

    return function


def _without_writing(graph: fx.Graph) -> None:
    """`clamp_min_` as `clamp_min`, whose result later nodes read in place of what it changed."""
    for node in list(graph.nodes):
        target = node.target
        if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
            continue
        name = target._schema.name.partition("::")[2].removesuffix("_")
        node.target = getattr(getattr(torch.ops.aten, name), target._overloadname)
        (changed, *_) = node.args
        changed.replace_all_uses_with(node, lambda user, node=node: user > node)


def _is_itself(part: fx.GraphModule, node: fx.Node) -> bool:
    return any(each.target == node.target for each in part.graph.nodes)


def _same(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, torch.Tensor):
        if got.shape != wanted.shape or got.dtype != wanted.dtype:
            return False
        return torch.allclose(got, wanted, rtol=1e-4, atol=1e-5, equal_nan=True)
    if isinstance(wanted, list | tuple):
        pairs = zip(got, wanted, strict=True)
        return all(_same(a, b) for a, b in pairs if b is not None)
    return bool(got == wanted)


def _put_in(graph: fx.GraphModule, node: fx.Node, part: fx.GraphModule) -> None:
    """The part's nodes in front of `node`, and their results in its place."""
    given = iter(node.all_input_nodes)
    made: dict[fx.Node, Any] = {}
    for each in part.graph.nodes:
        if each.op == "placeholder":
            made[each] = next(given)
        elif each.op == "get_attr":
            name = f"{node.name}_{str(each.target).replace('.', '_')}"
            set_tensor(graph, name, get_tensor(part, str(each.target)))
            made[each] = graph.graph.get_attr(name)
        elif each.op == "output":
            (result,) = each.args
            _replace(node, fx.map_arg(result, made.__getitem__))
        else:
            made[each] = graph.graph.node_copy(each, made.__getitem__)


def _replace(node: fx.Node, result: Any) -> None:
    if isinstance(result, fx.Node):
        result.meta = result.meta if "shape" in result.meta else dict(node.meta)
        node.replace_all_uses_with(result)
        return
    for user in list(node.users):
        if user.target is operator.getitem:
            picked = result[user.args[1]]
            picked.meta = picked.meta if "shape" in picked.meta else dict(user.meta)
            user.replace_all_uses_with(picked)

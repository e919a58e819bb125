"""What does not depend on the inputs becomes a tensor: computed weights, positions, masks, windows.

Weights that follow from parameters (spectral norm, weight standardization, products with a mask)
are weights like any other, and what is made from nothing (arange, eye, a window) is a table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from mpsearch.graph.layers import EMBEDDING, LINEAR_OPERATORS, packet, weight_position
from mpsearch.graph.tensors import drop_unread, fresh_name, get_tensor, remove_unused, set_tensor

_PRODUCTS = {"mm", "matmul", "addmm"}


@dataclass
class _Known:
    """What is known of a node before there are inputs."""

    value: Any
    made_of: tuple[str, ...]  # the graph's tensors, by name
    chosen: bool  # to be replaced


def fold_constants(
    graph: fx.GraphModule, storable: Callable[[fx.Node], bool] | None = None
) -> None:
    """Replace what follows from the graph's tensors alone by tensors, in place.

    With `storable` only what is made from nothing and what an operator that it refuses has part in;
    other computed weights stay as the model has them. A table of an embedding is a layer, however
    constant its indices are. Names of tensors that nothing reads any more are free for the new.
    """
    known = _known(graph, storable)
    found: list[tuple[fx.Node, str]] = []
    for node, entry in known.items():
        read = any(user not in known or not known[user].chosen for user in node.users)
        if entry.chosen and read and isinstance(entry.value, torch.Tensor):
            wanted = _wanted_name(graph, node, entry.made_of)
            value = entry.value.resolve_conj().resolve_neg().contiguous()
            place = f"constant_{len(found)}_of_{wanted.replace('.', '_')}"
            set_tensor(graph, place, value)  # until it is known which names are free
            with graph.graph.inserting_before(node):
                constant = graph.graph.create_node("get_attr", place, name=wanted.replace(".", "_"))
            constant.meta.update(shape=tuple(value.shape), dtype=value.dtype)
            node.replace_all_uses_with(constant)
            found.append((constant, wanted))
    remove_unused(graph)
    drop_unread(graph)
    for constant, wanted in found:
        value = get_tensor(graph, str(constant.target))
        constant.target = fresh_name(graph, wanted)
        set_tensor(graph, constant.target, value)
    drop_unread(graph)
    graph.recompile()


def _known(
    graph: fx.GraphModule, storable: Callable[[fx.Node], bool] | None
) -> dict[fx.Node, _Known]:
    known: dict[fx.Node, _Known] = {}
    for node in graph.graph.nodes:
        sources = node.all_input_nodes
        if node.op == "get_attr":
            name = str(node.target)
            known[node] = _Known(get_tensor(graph, name), (name,), False)
        elif _is_function(node) and all(source in known for source in sources):
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: known[n].value)
            with torch.no_grad():
                value = node.target(*args, **kwargs)
            names = tuple(dict.fromkeys(name for s in sources for name in known[s].made_of))
            chosen = storable is None or not names or not storable(node)
            refused = any(known[s].chosen and known[s].made_of for s in sources)
            known[node] = _Known(value, names, chosen or refused)
            _forget(sources, known)
    return known


def _is_function(node: fx.Node) -> bool:
    """Whether equal arguments give equal results, and the node is no layer."""
    if node.op != "call_function" or packet(node) == EMBEDDING:
        return False
    if isinstance(node.target, torch._ops.OpOverload):
        return torch.Tag.nondeterministic_seeded not in node.target.tags
    return True


def _forget(nodes: list[fx.Node], known: dict[fx.Node, _Known]) -> None:
    """Values that nothing reads any more make room."""
    for node in nodes:
        done = all(user in known and known[user].chosen for user in node.users)
        if done and node.op != "get_attr":
            known[node].value = None


def _wanted_name(graph: fx.GraphModule, node: fx.Node, made_of: tuple[str, ...]) -> str:
    """The name of the parameter that a weight is made of; otherwise the node's in its module.

    The module is the one whose code reads the value, or the one below it whose parameter it is:
    `block.conv.weight` where `block` calls conv2d with what it makes of its `conv.weight`.
    """
    modules = {str(user.meta.get("module", "")) for user in node.users if packet(user)}
    module = modules.pop() if len(modules) == 1 else ""
    if not any(_reads_as_weight(user, node) for user in node.users):
        owners = {_owner(name) for name in made_of}
        owner = module or (owners.pop() if len(owners) == 1 else "")
        return f"{owner}.{node.name}" if owner else node.name
    largest = max(made_of, key=lambda name: get_tensor(graph, name).numel(), default="")
    owner = _owner(largest)
    if module and not owner.startswith(f"{module}."):
        owner = module
    return f"{owner}.weight" if owner else largest or node.name


def _reads_as_weight(user: fx.Node, node: fx.Node) -> bool:
    operator = packet(user)
    if operator in LINEAR_OPERATORS or operator == EMBEDDING:
        return len(user.args) > 1 and user.args[weight_position(user)] is node
    return operator in _PRODUCTS and node in user.args


def _owner(name: str) -> str:
    """`first` for `first.weight` and for torch's `first.parametrizations.weight.original`."""
    path = name.split(".")
    place = path.index("parametrizations") if "parametrizations" in path else len(path) - 1
    return ".".join(path[:place])

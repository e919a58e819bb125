"""The tensors of a graph by qualified name, such as `image.conv1.weight`."""

from collections.abc import Iterator

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate


def get_tensor(module: nn.Module, name: str) -> torch.Tensor:
    """The tensor called `name`. Raises AttributeError when there is none."""
    *path, leaf = name.split(".")
    for part in path:
        module = getattr(module, part)
    tensor = getattr(module, leaf)
    assert isinstance(tensor, torch.Tensor)
    return tensor


def set_tensor(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Put `tensor` under `name`, detached; modules on the way are made when they are missing."""
    *path, leaf = name.split(".")
    for part in path:
        if not hasattr(module, part):
            module.add_module(part, nn.Module())
        module = getattr(module, part)
    if leaf in module._buffers:
        module._buffers[leaf] = tensor.detach()
    else:
        module.register_buffer(leaf, tensor.detach())


def tensor_nodes(graph: fx.GraphModule) -> Iterator[tuple[fx.Node, str, torch.Tensor]]:
    """Every `get_attr` node with its qualified name and tensor, in graph order."""
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            yield node, str(node.target), get_tensor(graph, str(node.target))


def device_of(graph: fx.GraphModule) -> torch.device:
    """Where the graph's tensors are; the CPU for a graph without any."""
    return next((tensor.device for _, _, tensor in tensor_nodes(graph)), torch.device("cpu"))


def move(graph: fx.GraphModule, device: torch.device) -> None:
    """Put the tensors that the graph reads, and those that its operators make, on `device`."""
    for _, name, tensor in list(tensor_nodes(graph)):
        set_tensor(graph, name, tensor.to(device))
    for node in graph.graph.nodes:
        node.args, node.kwargs = map_aggregate(
            (node.args, node.kwargs), lambda a: device if isinstance(a, torch.device) else a
        )
    graph.recompile()


def fresh_name(graph: fx.GraphModule, wanted: str) -> str:
    """`wanted`, or `wanted_1`, … when a tensor or module of that name exists."""
    name, count = wanted, 0
    while _exists(graph, name):
        count += 1
        name = f"{wanted}_{count}"
    return name


def _exists(module: nn.Module, name: str) -> bool:
    for part in name.split("."):
        if not hasattr(module, part):
            return False
        module = getattr(module, part)
    return True

"""The tensors of a graph by qualified name, such as `image.conv1.weight`.

Floating point of any width becomes float32: weights, inputs, samples, and casts in a graph.

What is quantized, measured and exported is float32. A network in half precision keeps its numbers
(every float16 and bfloat16 is a float32); of float64 the nearest float32 is taken. A cast inside
of a graph would bring the other width back, so its target is changed as well.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate

from mpsearch.errors import InputError


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


def remove_unused(graph: fx.GraphModule) -> None:
    """Drop nodes that nothing reads, checks without a result among them; inputs stay."""
    graph.graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))
    graph.recompile()


def drop_unread(graph: fx.GraphModule) -> None:
    """Drop tensors that no node reads."""
    read = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for path, module in graph.named_modules():
        for leaf in list(module._buffers):
            if f"{path}.{leaf}".lstrip(".") not in read:
                del module._buffers[leaf]


def tensor_nodes(graph: fx.GraphModule) -> Iterator[tuple[fx.Node, str, torch.Tensor]]:
    """Every `get_attr` node with its qualified name and tensor, in graph order."""
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            yield node, str(node.target), get_tensor(graph, str(node.target))


def floats_in(tensor: torch.Tensor) -> int:
    """How many floating-point numbers it holds: two for a complex one, none for an index."""
    if tensor.is_complex():
        return 2 * tensor.numel()
    return tensor.numel() if tensor.is_floating_point() else 0


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


_WIDTHS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_COMPLEX = {torch.complex32, torch.complex64, torch.complex128}


def as_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Half, bfloat16 and double as float32, complex numbers likewise; other tensors as they are."""
    return tensor.to(_in_width(tensor.dtype, torch.float32))


def _in_width(dtype: torch.dtype, width: torch.dtype) -> torch.dtype:
    """The type of the same kind of number whose floats have `width`."""
    if dtype in _COMPLEX:
        return width.to_complex()
    return width if dtype in _WIDTHS else dtype


def set_float_width(graph: fx.GraphModule, width: torch.dtype = torch.float32) -> None:
    """Give a graph's tensors and casts the floating-point `width`, in place.

    Raises InputError for an operator that looks at the bits of a number, which have a width.
    """
    for _, name, tensor in list(tensor_nodes(graph)):
        set_tensor(graph, name, tensor.to(_in_width(tensor.dtype, width)))

    largest = torch.finfo(width).max

    def changed(argument: Any) -> Any:
        if isinstance(argument, torch.dtype):
            return _in_width(argument, width)
        if isinstance(argument, float) and math.isfinite(argument):
            return min(max(argument, -largest), largest)  # masks are filled with double's lowest
        return argument

    for node in graph.graph.nodes:
        if node.op != "call_function":
            continue
        if node.target is torch.ops.aten.view.dtype:
            raise InputError(f"{node.name} reinterprets the bits of numbers; expected arithmetic")
        node.args = fx.node.map_aggregate(node.args, changed)
        node.kwargs = fx.node.map_aggregate(node.kwargs, changed)
    graph.recompile()


class FloatWidthCheck(fx.Interpreter):
    """Runs a graph and raises InputError where a value is in floating point other than float32."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and value.dtype != _in_width(value.dtype, torch.float32):
            width = str(value.dtype).removeprefix("torch.")
            raise InputError(f"the model computes {n.name} in {width}; expected float32 throughout")
        return value

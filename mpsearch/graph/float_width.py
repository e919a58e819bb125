"""Floating point of any width becomes float32: weights, inputs, samples, and casts in a graph.

What is quantized, measured and exported is float32. A network in half precision keeps its numbers
(every float16 and bfloat16 is a float32); of float64 the nearest float32 is taken. A cast inside
of a graph would bring the other width back, so its target is changed as well.
"""

import math
from typing import Any

import torch
from torch import fx

from mpsearch.errors import InputError
from mpsearch.graph.tensors import set_tensor, tensor_nodes

_WIDTHS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def as_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Half, bfloat16 and double as float32; any other tensor as it is."""
    return tensor.float() if tensor.dtype in _WIDTHS else tensor


def set_float_width(graph: fx.GraphModule, width: torch.dtype = torch.float32) -> None:
    """Give a graph's tensors and casts the floating-point `width`, in place.

    Raises InputError for an operator that looks at the bits of a number, which have a width.
    """
    for _, name, tensor in list(tensor_nodes(graph)):
        if tensor.dtype in _WIDTHS:
            set_tensor(graph, name, tensor.to(width))

    largest = torch.finfo(width).max

    def changed(argument: Any) -> Any:
        if isinstance(argument, torch.dtype):
            return width if argument in _WIDTHS else argument
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
        floats = isinstance(value, torch.Tensor) and value.is_floating_point()
        if floats and value.dtype != torch.float32:
            width = str(value.dtype).removeprefix("torch.")
            raise InputError(f"the model computes {n.name} in {width}; expected float32 throughout")
        return value

"""Which nodes are functions of one number: operators whose operands come from one tensor alone.

x·sigmoid(x), spelled out or as one operator, is one function of x: one table, read once. So is
every chain of operators that work number by number and start from one tensor, such as
relu6(x + 3)/6. What only clamps is left to the codes, and what is a·x + b needs no table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx
from torch.nn import functional

from mpsearch.graph.layers import packet
from mpsearch.graph.tensors import get_tensor
from mpsearch.integer.operators import (
    CLAMPS,
    IDENTITIES,
    LINEAR,
    POINTWISE,
    sample_shape,
    sources,
)

# What other programs may know by name, and where it is looked at.
_NAMED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "hardswish": functional.hardswish,
    "gelu": functional.gelu,
    "elu": functional.elu,
}
_GRID = np.arange(-9, 9.25, 0.25)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PointFunction:
    """`nodes`, in order, compute a function of the numbers of `root`; the last one is the result.

    `line`: (a, b) where that is a·x + b.
    """

    root: fx.Node
    nodes: tuple[fx.Node, ...]
    line: tuple[float, float] | None

    @property
    def name(self) -> str:
        """`silu`, however it is spelled, `leaky_relu 0.1`; else the operators, `abs add sqrt`."""
        with np.errstate(all="ignore"):
            found = self(_GRID)
        for name, known in _NAMED.items():
            if np.allclose(found, known(torch.from_numpy(_GRID)).numpy(), 1e-9, 1e-9):
                return name
        slope = -float(found[_GRID == -1.0][0])
        if np.allclose(found, np.where(_GRID < 0, slope, 1) * _GRID, 1e-9, 1e-9):
            return f"leaky_relu {slope}"
        return " ".join(map(packet, self.nodes))

    @property
    def unit(self) -> int:
        """The range of what a table reads is this times a power of two, so that ends of straight
        parts lie on a knot, and equal functions in equal ranges are one table."""
        if self.line is not None:
            return 0
        hard = {"hardsigmoid", "hardswish", "hardtanh", "relu6", "clamp"}
        return 3 if hard.intersection(map(packet, self.nodes)) else 1

    def __call__(self, x: Floats) -> Floats:
        """The function in float64; not finite where it is not defined."""
        graph = self.nodes[0].graph.owning_module
        known: dict[fx.Node, Any] = {self.root: torch.from_numpy(x)}

        def value(given: fx.Node) -> Any:
            if given.op != "get_attr":
                return known[given]
            assert graph is not None
            return get_tensor(graph, str(given.target)).double().reshape(())

        for node in self.nodes:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), value)
            assert callable(node.target)
            known[node] = node.target(*args, **kwargs)
        result = known[self.nodes[-1]]
        assert isinstance(result, torch.Tensor)
        return result.double().numpy()


def point_functions(order: Sequence[fx.Node]) -> dict[str, PointFunction]:
    """By name, the nodes whose result is a function of the numbers of one tensor."""
    root: dict[fx.Node, fx.Node] = {}
    found: dict[str, PointFunction] = {}
    for node in order:
        root[node] = _root(node, root)
        if root[node] is node:
            continue
        nodes = tuple(_members(node, root))
        kinds = {packet(member) for member in nodes}
        if not kinds - IDENTITIES - CLAMPS:
            continue
        function = PointFunction(root[node], nodes, None)
        if kinds <= LINEAR | IDENTITIES and not any(map(_bends, nodes)):
            zero, one = function(np.array([0.0, 1.0]))
            function = PointFunction(root[node], nodes, (float(one - zero), float(zero)))
        found[node.name] = function
    return found


def _root(node: fx.Node, root: Mapping[fx.Node, fx.Node]) -> fx.Node:
    if packet(node) not in POINTWISE or not all(map(_is_number, node.all_input_nodes)):
        return node
    found = {root.get(source, source) for source in sources(node)}
    if len(found) != 1:
        return node
    (origin,) = found
    return origin if sample_shape(origin) == sample_shape(node) else node


def _is_number(given: fx.Node) -> bool:
    """True but for a constant of several numbers."""
    if given.op != "get_attr":
        return True
    graph = given.graph.owning_module
    assert graph is not None
    return get_tensor(graph, str(given.target)).numel() == 1


def _bends(node: fx.Node) -> bool:
    """True where a LINEAR operator is not linear: a product of two tensors, a rounded quotient."""
    products = packet(node) in {"mul", "div"} and sum(map(_is_tensor, node.args)) > 1
    return products or node.kwargs.get("rounding_mode") is not None


def _is_tensor(operand: object) -> bool:
    return isinstance(operand, fx.Node) and operand.op != "get_attr"


def _members(node: fx.Node, root: Mapping[fx.Node, fx.Node]) -> list[fx.Node]:
    """The nodes between the root of `node` and `node`, in order."""
    reached, pending = {root[node]}, [node]
    while pending:
        member = pending.pop()
        if member not in reached:
            reached.add(member)
            pending += sources(member)
    return [member for member in root if member in reached and member is not root[node]]


def needed(
    order: Sequence[fx.Node], functions: Mapping[str, PointFunction], result: fx.Node
) -> list[fx.Node]:
    """`order` without the nodes that are only steps on the way of a function."""
    read = {result}
    for node in reversed(order):
        if node in read:
            read.update(sources_of(node, functions))
    return [node for node in order if node in read]


def sources_of(node: fx.Node, functions: Mapping[str, PointFunction]) -> tuple[fx.Node, ...]:
    """What a node's step reads: for a function its root."""
    function = functions.get(node.name)
    return sources(node) if function is None else (function.root,)

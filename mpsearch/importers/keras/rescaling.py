"""A rescaling ahead of a layer goes into the layer's weights, so that integers can compute it.

W·(s·x + o) + b = (s·W)·x + (b + o·ΣW). A padding of zeros behind the rescaling becomes one of −o/s
ahead of it. That is exact for one scale and one offset, as in `Rescaling(1/127.5, offset=-1)`;
numbers per channel stay where they are.
"""

from dataclasses import dataclass

import torch
from torch import fx
from torch.nn import functional as F

from mpsearch.graph.tensors import get_tensor, set_tensor

_CONVOLUTIONS = (F.conv1d, F.conv2d)
_MOVES = (torch.permute, torch.reshape, torch.flatten)


@dataclass
class _Chain:
    """What lies between a tensor and a layer: layer's input = scale·tensor + offset, moved."""

    scale: float
    offset: float
    arithmetic: list[fx.Node]
    pads: list[fx.Node]


def fold_rescaling(module: fx.GraphModule) -> None:
    """Fold every rescaling that only one layer reads; `module` is changed in place."""
    for node in list(module.graph.nodes):
        if node.target not in (*_CONVOLUTIONS, F.linear) or not _own_weights(module, node):
            continue
        chain = _chain(node)
        if chain.arithmetic and chain.scale != 0:
            _fold(module, node, chain)
    module.graph.eliminate_dead_code()
    module.recompile()


def _own_weights(module: fx.GraphModule, layer: fx.Node) -> bool:
    tensors = [arg for arg in layer.args[1:3] if isinstance(arg, fx.Node)]
    return all(node.op == "get_attr" and len(node.users) == 1 for node in tensors)


def _chain(layer: fx.Node) -> _Chain:
    chain = _Chain(1.0, 0.0, [], [])
    node = layer.args[0]
    while isinstance(node, fx.Node) and len(node.users) == 1:
        number = node.args[1] if len(node.args) > 1 else None
        if node.target in (torch.mul, torch.add) and isinstance(number, float):
            chain.arithmetic.append(node)
            if node.target is torch.mul:
                chain.scale *= number
            else:
                chain.offset += chain.scale * number
        elif node.target is F.pad and len(node.args) == 2 and not chain.arithmetic:
            chain.pads.append(node)
        elif node.target not in _MOVES:
            break
        node = node.args[0]
    return chain


def _fold(module: fx.GraphModule, layer: fx.Node, chain: _Chain) -> None:
    source, weight_node = layer.args[:2]
    assert isinstance(source, fx.Node)
    assert isinstance(weight_node, fx.Node)
    name = str(weight_node.target)
    weight = get_tensor(module, name).double()
    set_tensor(module, name, (weight * chain.scale).float())
    if chain.offset:
        border = -chain.offset / chain.scale
        for pad in chain.pads:
            pad.args = (*pad.args, "constant", border)
        if layer.target in _CONVOLUTIONS and len(layer.args) > 4:
            _pad_ahead(module.graph, layer, source, border)
        _add_to_bias(module, layer, name, chain.offset * weight.flatten(1).sum(1))
    for node in chain.arithmetic:
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]


def _pad_ahead(graph: fx.Graph, layer: fx.Node, source: fx.Node, border: float) -> None:
    """The convolution's own zeros as an operator that pads with `border`."""
    padding = layer.args[4]
    assert isinstance(padding, tuple)
    if not any(padding):
        return
    around = tuple(number for size in reversed(padding) for number in (size, size))
    with graph.inserting_before(layer):
        padded = graph.call_function(F.pad, (source, around, "constant", border))
    layer.args = (padded, *layer.args[1:4], (0,) * len(padding), *layer.args[5:])


def _add_to_bias(module: fx.GraphModule, layer: fx.Node, name: str, shift: torch.Tensor) -> None:
    bias = layer.args[2]
    if isinstance(bias, fx.Node):
        old = get_tensor(module, str(bias.target))
        set_tensor(module, str(bias.target), (old.double() + shift).float())
        return
    new = f"{name.removesuffix('weight')}bias"
    set_tensor(module, new, shift.float())
    with module.graph.inserting_before(layer):
        node = module.graph.get_attr(new)
    layer.args = (*layer.args[:2], node, *layer.args[3:])

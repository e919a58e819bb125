"""Everything that a format refuses of a network, not only what stops it first.

An export collects what it can in one walk. What it would refuse behind that is found by going on
without it: the nodes that were refused become inputs of the network, and the export is tried again,
until it passes or refuses nothing new.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import fx

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.layers import packet
from mpsearch.graph.network import copy_graph
from mpsearch.graph.outputs import lay_out
from mpsearch.graph.partial_forward import PartialForward
from mpsearch.graph.refusals import Refusal, Refused
from mpsearch.graph.tensors import set_tensor
from mpsearch.quantization.quantized import QuantizedNetwork, assemble

Attempt = Callable[[QuantizedNetwork, Data], object]
_ROUNDS = 12  # each finds at least one further operator or argument


def all_refusals(attempt: Attempt, quantized: QuantizedNetwork, data: Data) -> list[Refusal]:
    """What `attempt` refuses, each node once; none where it passes. `attempt` raises InputError."""
    found: dict[tuple[str, str], Refusal] = {}
    names: set[str] = set()
    for number in range(_ROUNDS):
        try:
            if number:
                quantized, data = _without(quantized, data, names)
            attempt(quantized, data)
            break
        except Refused as error:
            new = [each for each in error.refusals if (each.node, each.why) not in found]
            if number:  # what is about no node speaks of the network as it was changed
                new = [each for each in new if each.node]
        except InputError as error:
            new = [] if number else [Refusal("", "", " ".join(error.lines))]
        except RuntimeError:  # a node that became an input has its samples in another dimension
            if not number:
                raise
            break
        names = {each.node for each in new if each.node}
        parts = _parts_of(quantized, names)
        found.update({(each.node, each.why): each for each in new if each.node not in parts})
        if not names:
            break
    return list(found.values())


def _without(
    quantized: QuantizedNetwork, data: Data, names: set[str]
) -> tuple[QuantizedNetwork, Data]:
    """The network with these nodes as inputs, and their numbers.

    What only they read is put beside the output, so that it is still looked at; divided by its
    largest number, for outputs share a scale, which the others need as it was.
    """
    source = quantized.source
    graph = copy_graph(source.graph)
    forward = PartialForward(source.graph, data.inputs)
    fixed = forward.run([x[:1] for x in data.inputs])
    varying = {node.name for node in forward.varying}
    values = {node.name: value for node, value in fixed.items()}
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    entered: list[torch.Tensor] = []
    numbers = {node.name: value for node, value in forward.run(data.inputs).items()}
    ends: list[fx.Node] = []
    for node in _with_parts(graph, names):
        if "shape" in node.meta and node.users:
            with graph.graph.inserting_after(last):
                if node.name in varying:
                    last = made = graph.graph.placeholder(f"{node.name}_refused")
                    entered.append(_rows(numbers.get(node.name), node.meta["shape"], len(data)))
                else:
                    set_tensor(graph, f"{node.name}_refused", values[node.name])
                    made = graph.graph.get_attr(f"{node.name}_refused")
            made.meta = dict(node.meta)
            node.replace_all_uses_with(made)
    for node in reversed(_with_parts(graph, names)):
        if not node.users:
            read = node.all_input_nodes
            graph.graph.erase_node(node)
            ends += [each for each in read if _is_end(each) and each.name not in names]
    _beside_output(graph, [end for end in ends if not end.users], numbers)
    graph.recompile()
    count = len(entered)
    changed = replace(
        source,
        graph=graph,
        input_names=(*source.input_names, *_input_names(graph)[len(source.input_names) :]),
        input_shapes=(*source.input_shapes, *(tuple(x.shape[1:]) for x in entered)),
        input_dtypes=(*source.input_dtypes, *[torch.float32] * count),
        outputs=source.outputs if not ends else lay_out(["output"], [_width(graph)]),
    )
    layers = {layer.name: quantized.layers[layer.name] for layer in changed.layers}
    return assemble(changed, layers, quantized.stored), replace(
        data, inputs=(*data.inputs, *entered)
    )


def _rows(value: object, shape: Sequence[int], count: int) -> torch.Tensor:
    """What a node has computed, finite; random numbers where that is no row per sample."""
    if isinstance(value, torch.Tensor) and value.shape == (count, *shape[1:]):
        return value.to(torch.float32).nan_to_num(0.0, 1.0, -1.0)
    return torch.randn(count, *shape[1:], generator=torch.Generator().manual_seed(0))


def _parts_of(quantized: QuantizedNetwork, names: set[str]) -> set[str]:
    """Nodes that only pick one of the results of those that are refused."""
    return {
        node.name
        for node in quantized.source.graph.graph.nodes
        if packet(node) == "getitem" and {x.name for x in node.all_input_nodes} & names
    }


def _with_parts(graph: fx.GraphModule, names: set[str]) -> list[fx.Node]:
    return [
        node
        for node in graph.graph.nodes
        if node.name in names
        or (packet(node) == "getitem" and {x.name for x in node.all_input_nodes} & names)
    ]


def _is_end(node: fx.Node) -> bool:
    """A tensor of real numbers, with a row per sample, that an operator made."""
    dtype, shape = node.meta.get("dtype"), node.meta.get("shape", ())
    floating = isinstance(dtype, torch.dtype) and dtype.is_floating_point
    return node.op == "call_function" and floating and len(shape) > 1 and shape[0] == 1


def _beside_output(
    graph: fx.GraphModule, ends: Sequence[fx.Node], numbers: Mapping[str, Any]
) -> None:
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    (result,) = output.args
    assert isinstance(result, fx.Node)
    if not ends or not _is_end(result):
        return
    aten, rows = torch.ops.aten, []
    with graph.graph.inserting_before(output):
        for node in (result, *ends):
            width = prod(node.meta["shape"][1:])
            rows.append(graph.graph.call_function(aten.flatten.using_ints, (node, 1)))
            rows[-1].meta = {"shape": (1, width), "dtype": torch.float32}
            if node is not result:
                largest = float(numbers[node.name].nan_to_num().abs().max())
                rows.append(
                    graph.graph.call_function(aten.mul.Tensor, (rows.pop(), 1 / max(1.0, largest)))
                )
                rows[-1].meta = {"shape": (1, width), "dtype": torch.float32}
        joined = graph.graph.call_function(aten.cat.default, (rows, 1))
    width = sum(row.meta["shape"][1] for row in rows)
    joined.meta = {"shape": (1, width), "dtype": torch.float32}
    output.args = (joined,)


def _width(graph: fx.GraphModule) -> tuple[int, ...]:
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    shape: tuple[int, ...] = output.args[0].meta["shape"]
    return shape[1:]


def _input_names(graph: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "placeholder"]

"""Quantize the layers in network order, each one seeing what the quantized ones before it give.

The float network and the quantized one run side by side over the calibration sample, one node at a
time, so that a whole network costs two forward passes and keeps only the values still needed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from mpsearch.data import Data
from mpsearch.graph_tensors import get_tensor, set_tensor, tensor_nodes
from mpsearch.layers import Layer
from mpsearch.network import Network, copy_graph
from mpsearch.operators import EMBEDDING, layer_input, packet
from mpsearch.partial_forward import PartialForward
from mpsearch.quantized import QuantizedLayer, QuantizedNetwork, assemble

Values = list[Any]  # one per batch


@dataclass(frozen=True)
class Use:
    """One place where a layer is used: `inputs` that reach it and the FP32 `targets`, by batch.

    The inputs come from the network whose earlier layers are quantized. Only the later uses of a
    layer that occurs several times have the float network's inputs: theirs depend on the layer.
    """

    node: fx.Node
    inputs: list[torch.Tensor]
    targets: list[torch.Tensor]


# What to make of a layer: its integers, and the float bias that they were made from.
Decision = tuple[QuantizedLayer, torch.Tensor | None]
Decide = Callable[[Layer, Sequence[Use]], Decision]


def quantize_in_order(
    network: Network, data: Data, decide: Decide, batch_size: int = 64
) -> QuantizedNetwork:
    """Ask `decide` for every layer in the order of first use and assemble the answers."""
    device = next((tensor.device for _, _, tensor in tensor_nodes(network.graph)), None)
    batches = [tuple(x.to(device) for x in inputs) for inputs, _ in data.batches(batch_size)]
    layer_of = {name: layer for layer in network.layers for name in layer.nodes}
    later = _later_inputs(network, batches)
    decisions: dict[str, Decision] = {}
    exact: dict[fx.Node, Values] = {}  # the float network
    rough: dict[fx.Node, Values] = {}  # the quantized one; the same list where nothing differs
    nodes = [node for node in network.graph.graph.nodes if node.op != "output"]
    last_use = {source: node for node in nodes for source in node.all_input_nodes}
    position = 0
    with torch.no_grad():
        for node in nodes:
            if node.op == "placeholder":
                exact[node] = rough[node] = [inputs[position] for inputs in batches]
                position += 1
            elif node.op == "get_attr":
                tensor = get_tensor(network.graph, str(node.target))
                exact[node] = rough[node] = [tensor] * len(batches)
            else:
                exact[node] = _call(node, exact, len(batches))
                layer = layer_of.get(node.name)
                if layer is not None:
                    source = layer_input(node)
                    if layer.name not in decisions:
                        uses = [Use(node, rough[source], exact[node]), *later.get(layer.name, ())]
                        decisions[layer.name] = decide(layer, uses)
                    decision = decisions[layer.name]
                    rough[node] = [
                        layer_output(network, layer, node, x, *decision) for x in rough[source]
                    ]
                elif any(rough[source] is not exact[source] for source in node.all_input_nodes):
                    rough[node] = _call(node, rough, len(batches))
                else:
                    rough[node] = exact[node]
            for source in node.all_input_nodes:
                if last_use[source] is node:
                    exact.pop(source, None)
                    rough.pop(source, None)
    graph = copy_graph(network.graph)
    for layer in network.layers:
        bias = decisions[layer.name][1]
        if bias is not None:
            set_tensor(graph, layer.bias_name, bias)
    layers = {name: quantized for name, (quantized, _) in decisions.items()}
    return assemble(replace(network, graph=graph), layers)


def layer_output(
    network: Network,
    layer: Layer,
    node: fx.Node,
    x: torch.Tensor,
    quantized: QuantizedLayer,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """What the quantized layer gives for `x` at `node`; `bias` is used where it stays in float."""
    weight = network.weight(layer)
    if quantized.weight is not None:
        weight = network.weight_rows(layer)[1](quantized.weight.dequantize())
    if packet(node) == EMBEDDING:
        rows = node.target(weight, x, *node.args[2:], **node.kwargs)  # type: ignore[operator]
        assert isinstance(rows, torch.Tensor)
        return rows
    from_codes = quantized.bias()
    arguments = [quantized.activation.fake_quantize(x), weight, *node.args[2:]]
    if bias is not None:
        arguments[2] = bias if from_codes is None else from_codes
    output = node.target(*arguments, **node.kwargs)  # type: ignore[operator]
    assert isinstance(output, torch.Tensor)
    return output


def _later_inputs(
    network: Network, batches: Sequence[tuple[torch.Tensor, ...]]
) -> dict[str, list[Use]]:
    """Float inputs and outputs of every use but the first, for layers with several."""
    repeated = [layer for layer in network.layers if len(layer.nodes) > 1]
    if not repeated:
        return {}
    nodes = {node.name: node for node in network.graph.graph.nodes}
    uses = {
        layer.name: [Use(nodes[name], [], []) for name in layer.nodes[1:]] for layer in repeated
    }
    forward = PartialForward(network.graph, batches[0])
    for inputs in batches:
        values = forward.run(inputs)
        for use in (use for found in uses.values() for use in found):
            source = layer_input(use.node)
            use.inputs.append(values[source])
            use.targets.append(values[use.node])
    return uses


def _call(node: fx.Node, values: dict[fx.Node, Values], batches: int) -> Values:
    outputs = []
    for batch in range(batches):
        here = {source: values[source][batch] for source in node.all_input_nodes}
        args, kwargs = fx.map_arg((node.args, node.kwargs), here.__getitem__)
        outputs.append(node.target(*args, **kwargs))  # type: ignore[operator]
    return outputs

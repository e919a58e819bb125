"""What trains in a quantized network, by name, and its graph with all of that as arguments.

A tensor keeps its name. A step is named beside what it quantizes: `conv1.weight_scale`,
`conv1.input_scale`, and of what is stored between layers `add_stored_scale`, which is that of
layers that read its codes, too.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import fx

from mpsearch.graph.layers import EMBEDDING, packet
from mpsearch.graph.network import Network, copy_graph
from mpsearch.graph.tensors import tensor_nodes
from mpsearch.integer.stored import stored_tensors
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantizer import FLOAT_BITS, ActivationQuantizer, quantize_input

_OF_A_STEP = "scale", "scale_change", "bits", "zero_point"  # `conv1.input_` and these
_TRAINED_ARGUMENTS = ("weight", "bias")  # of any operator: layers, norms, embeddings, PReLU


@dataclass(frozen=True)
class Steps:
    """The names of all steps."""

    weights: Mapping[str, str]
    """Layer with quantized weights -> its step."""
    inputs: Mapping[str, str]
    """Layer with integer inputs -> the step of these: its own or a stored tensor's."""
    stored: Mapping[str, str]
    """Node that is stored between layers -> its step."""
    quantizers: Mapping[str, ActivationQuantizer]
    """Step of an input or a stored tensor -> the quantizer at the start."""


def names_of_steps(start: QuantizedNetwork) -> Steps:
    """Names that no tensor has."""
    network = start.source
    taken = {name for _, name, _ in tensor_nodes(network.graph)}

    def named(wanted: str) -> str:
        of, count = wanted, 0
        while taken & (names := {f"{of}_{what}" for what in _OF_A_STEP}):
            count += 1
            of = f"{wanted}_{count}"
        taken.update(names)
        return f"{of}_scale"

    weights = {
        layer.name: named(layer.weight_name)
        for layer in network.layers
        if start.layers[layer.name].weight is not None
    }
    stored = {node: named(f"{node}_stored") for node in start.stored or {}}
    inputs = _input_steps(network, start, stored, named)
    quantizers = {stored[node]: quantizer for node, quantizer in (start.stored or {}).items()}
    for layer_name, step in inputs.items():
        quantizers.setdefault(step, start.layers[layer_name].activation)
    return Steps(weights, inputs, stored, quantizers)


def trained_tensors(network: Network) -> list[str]:
    """Names of the float tensors that an operator takes as `weight` or `bias`, in graph order.

    Others (masks, running statistics, constants that are added) are not known to be parameters.
    """
    names: dict[str, None] = {}
    for node, name, tensor in tensor_nodes(network.graph):
        if tensor.is_floating_point() and any(_trains(node, user) for user in node.users):
            names[name] = None
    return list(names)


def _trains(node: fx.Node, user: fx.Node) -> bool:
    if not isinstance(user.target, torch._ops.OpOverload):
        return False
    places = [a.name for a in user.target._schema.arguments]
    given = dict(zip(places, user.args, strict=False)) | dict(user.kwargs)
    return any(given.get(place) is node for place in _TRAINED_ARGUMENTS)


def with_arguments(start: QuantizedNetwork, steps: Steps) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """The graph with its tensors and the inputs' steps as its first arguments, and their names."""
    graph = copy_graph(start.source.graph)
    by_name = {node.name: node for node in graph.graph.nodes}
    names = (*dict.fromkeys(name for _, name, _ in tensor_nodes(graph)), *steps.quantizers)
    places = {}
    with graph.graph.inserting_before(next(iter(graph.graph.nodes))):
        for index, name in enumerate(names):
            places[name] = graph.graph.placeholder(f"argument_{index}")
    for node, name, _ in list(tensor_nodes(graph)):
        node.replace_all_uses_with(places[name])
        graph.graph.erase_node(node)

    def quantized(node: fx.Node, step: str, quantizer: ActivationQuantizer) -> fx.Node:
        arguments = (node, places[step], quantizer.zero_point, quantizer.bits)
        count = math.prod(node.meta["shape"])
        return graph.graph.call_function(quantize_input, (*arguments, count))

    for layer in (layer for layer in start.source.layers if layer.name in steps.inputs):
        step, activation = steps.inputs[layer.name], start.layers[layer.name].activation
        for node in (by_name[name] for name in layer.nodes):
            source = node.args[0]
            if packet(node) == EMBEDDING or steps.stored.get(str(source)) == step:
                continue  # that reads indices; this what is quantized already
            with graph.graph.inserting_before(node):
                node.args = (quantized(source, step, activation), *node.args[1:])
    last = next(n for n in reversed(graph.graph.nodes) if n.op == "placeholder")
    for name, quantizer in (start.stored or {}).items():
        node = by_name[name]
        with graph.graph.inserting_after(last if node.op == "placeholder" else node):
            fake = quantized(node, steps.stored[name], quantizer)
        node.replace_all_uses_with(fake, lambda user, fake=fake: user is not fake)
    return fx.GraphModule(torch.nn.Module(), graph.graph), names


def _input_steps(
    network: Network,
    start: QuantizedNetwork,
    stored_steps: Mapping[str, str],
    named: Callable[[str], str],
) -> dict[str, str]:
    """Layer name -> its input's step: its own, or that of the stored tensor whose codes it reads.
    Without layers with float inputs, and embedding tables, which read indices."""
    steps: dict[str, str] = {}
    if start.stored:
        a_bits = {name: choice.a_bits for name, choice in start.assignment.items()}
        for tensor in stored_tensors(network.graph, network.layers, a_bits):
            quantizer = start.stored.get(tensor.node)
            same = [n for n in tensor.layers if start.layers[n].activation == quantizer]
            steps |= dict.fromkeys(same, stored_steps.get(tensor.node, ""))
    nodes = {node.name: node for node in network.graph.graph.nodes}
    for layer in network.layers:
        reads = any(packet(nodes[name]) != EMBEDDING for name in layer.nodes)
        if reads and start.layers[layer.name].activation.bits != FLOAT_BITS:
            path, _, leaf = layer.weight_name.rpartition(".")
            own = f"{path}." * bool(path) + f"{leaf}_" * (leaf != "weight") + "input"
            if layer.name not in steps:
                steps[layer.name] = named(own)
    return steps

"""The network that fine-tuning trains: a quantized one whose numbers and steps are parameters.

Every tensor trains in units of its own size, and every step in its logarithm. One learning rate
then means one relative change for all of them, whatever scales batch-norm folding has left in the
channels; units are powers of two, so that they change no bit of a number.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import fx

from mpsearch.errors import InputError
from mpsearch.graph.layers import EMBEDDING, Layer, output_channels_view, packet
from mpsearch.graph.network import Network, copy_graph
from mpsearch.graph.tensors import get_tensor, set_tensor, tensor_nodes
from mpsearch.integer.stored import stored_tensors
from mpsearch.quantization.quantized import (
    QuantizedLayer,
    QuantizedNetwork,
    assemble,
    with_activation,
)
from mpsearch.quantization.quantizer import (
    FLOAT_BITS,
    ActivationQuantizer,
    in_steps,
    quantize_input,
    quantize_rows,
    scaled,
    weight_at,
)

_TRAINED_ARGUMENTS = ("weight", "bias")  # of any operator: layers, norms, embeddings, PReLU
_WEIGHT_STEP, _INPUT_STEP, _STORED_STEP = ":weight step", ":input step", ":stored step"
_STEPS = _WEIGHT_STEP, _INPUT_STEP, _STORED_STEP


@dataclass(frozen=True)
class Student:
    """`parameters` by tensor name, by layer name + `:weight step` or `:input step`, and by name of
    a node that is stored between layers + `:stored step`, which is that of layers that read its
    codes, too: `input_steps`.

    `network` is the start's, with what repairs before training have changed. A tensor is
    parameter × unit, a step is its start × exp(parameter). `graph` takes the tensors of
    `arguments` (network tensors and input steps) and then the network's inputs.
    """

    network: Network
    start: QuantizedNetwork
    graph: fx.GraphModule
    arguments: tuple[str, ...]
    parameters: Mapping[str, torch.nn.Parameter]
    units: Mapping[str, torch.Tensor]
    nodes: Mapping[str, fx.Node]  # where each layer is used first
    input_steps: Mapping[str, str]  # of layers with integer inputs

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Outputs with the codes' rounding in the forward pass, straight through in the
        backward."""
        tensors = {name: self.tensor(name) for name in self.arguments}
        for layer in self.network.layers:
            choice = self.start.layers[layer.name].choice
            if choice.w_bits != FLOAT_BITS:
                weight = tensors[layer.weight_name]
                rows, restore = output_channels_view(self.nodes[layer.name], weight)
                steps = self.tensor(layer.name + _WEIGHT_STEP)
                tensors[layer.weight_name] = restore(quantize_rows(rows, steps, choice.w_bits))
                if layer.bias_name and choice.a_bits != FLOAT_BITS:
                    bias_steps = steps.double() * tensors[self.input_steps[layer.name]].double()
                    tensors[layer.bias_name] = _rounded(tensors[layer.bias_name], bias_steps)
        outputs = self.graph(*tensors.values(), *(x.to(self.network.device) for x in inputs))
        assert isinstance(outputs, torch.Tensor)
        return outputs

    def tensor(self, name: str) -> torch.Tensor:
        """A network tensor or a step as it is now, with its gradient's path."""
        value, unit = self.parameters[name], self.units[name]
        return unit * (value.exp() if name.endswith(_STEPS) else value)

    def codes(self, layer: Layer) -> torch.Tensor:
        """Codes [channels, n] (int8) of a layer with 2 to 8 bits, as the forward pass rounds."""
        rows, _ = output_channels_view(self.nodes[layer.name], self.tensor(layer.weight_name))
        steps = self.tensor(layer.name + _WEIGHT_STEP)
        bits = self.start.layers[layer.name].choice.w_bits
        return weight_at(rows, steps.detach(), bits).codes.to(torch.int8)

    def hold(self, layer: Layer, where: torch.Tensor, codes: torch.Tensor) -> None:
        """Set the weights at `where` [channels, n] to code × step, as the step is now."""
        parameter, unit = self.parameters[layer.weight_name], self.units[layer.weight_name]
        _, restore = output_channels_view(self.nodes[layer.name], parameter)
        with torch.no_grad():
            held = restore(codes * self.tensor(layer.name + _WEIGHT_STEP)[:, None]) / unit
            parameter.copy_(torch.where(restore(where), held, parameter))

    def quantized(self) -> QuantizedNetwork:
        """The integers that the parameters stand for now, as `mpsearch apply` would write them."""
        source = copy_graph(self.network.graph)
        with torch.no_grad():
            for name in self.parameters:
                if not name.endswith(_STEPS):
                    set_tensor(source, name, self.tensor(name))
            trained = replace(self.network, graph=source)
            layers = {layer.name: self._quantized_layer(trained, layer) for layer in trained.layers}
            stored = self.start.stored and {
                node: replace(begun, scale=float(self.tensor(node + _STORED_STEP)))
                for node, begun in self.start.stored.items()
            }
        return assemble(trained, layers, stored)

    def _quantized_layer(self, trained: Network, layer: Layer) -> QuantizedLayer:
        begun = self.start.layers[layer.name]
        choice, activation = begun.choice, begun.activation
        if layer.name in self.input_steps:
            scale = float(self.tensor(self.input_steps[layer.name]))
            activation = ActivationQuantizer(choice.a_bits, scale, activation.zero_point)
        if choice.w_bits == FLOAT_BITS:
            return QuantizedLayer(choice, None, None, activation)
        rows, _ = trained.weight_rows(layer)
        weight = weight_at(rows, self.tensor(layer.name + _WEIGHT_STEP), choice.w_bits)
        return with_activation(trained, layer, choice, weight, activation)


def student(network: Network, start: QuantizedNetwork) -> Student:
    """A trainable copy of `start`, which is `network` quantized.

    Its rounding gives `start`'s codes: where those are not the nearest (adaptive rounding), a
    weight begins in its code's interval, half-way to the edge on its own side. At the edge itself
    first steps turn codes back (DS-CNN, 2-bit weights: first epoch's loss 0.44 instead of 0.34).
    """
    floats = {layer.name: network.weight_rows(layer)[0] for layer in network.layers}
    network = start.source
    tensors: dict[str, torch.Tensor] = {}
    units: dict[str, torch.Tensor] = {}
    for name in trained_tensors(network):
        tensors[name] = get_tensor(network.graph, name).clone()
    nodes = first_nodes(network)
    for layer in network.layers:
        quantized = start.layers[layer.name]
        rows, restore = output_channels_view(nodes[layer.name], tensors[layer.weight_name])
        if quantized.weight is not None:
            rows = _latent_rows(floats[layer.name], quantized)
            units[layer.name + _WEIGHT_STEP] = quantized.weight.scales.clone()
        tensors[layer.weight_name] = restore(rows)
        units[layer.weight_name] = restore(_channel_units(rows).expand_as(rows))
    quantizers = {node + _STORED_STEP: q for node, q in (start.stored or {}).items()}
    input_steps = _input_steps(network, start)
    for layer_name, step in input_steps.items():
        quantizers.setdefault(step, start.layers[layer_name].activation)
    for step, quantizer in quantizers.items():
        units[step] = torch.full((), quantizer.scale, device=network.device)
    parameters = {}
    for name, tensor in tensors.items():
        units.setdefault(name, _unit(tensor))
        parameters[name] = torch.nn.Parameter((tensor / units[name]).contiguous())
    for name in units:
        if name not in parameters:
            # one scale for all channels (quantized per tensor) stays one
            alike = units[name].dim() == 1 and bool((units[name] == units[name][0]).all())
            shape = (1,) if alike else units[name].shape
            parameters[name] = torch.nn.Parameter(torch.zeros(shape, device=units[name].device))
    graph, arguments = _with_arguments(network, start, tensors, input_steps, tuple(quantizers))
    return Student(network, start, graph, arguments, parameters, units, nodes, input_steps)


def check_same_network(network: Network, start: QuantizedNetwork) -> None:
    """Raise InputError unless inputs and layers of the two have equal names and shapes."""
    ours, other = (
        {layer.name: tuple(n.weight(layer).shape) for layer in n.layers}
        for n in (network, start.source)
    )
    if network.input_shapes != start.source.input_shapes or ours != other:
        names = [name for name in {**ours, **other} if ours.get(name) != other.get(name)]
        where = f" at layer {names[0]!r}" if names else ""
        raise InputError(
            f"the starting network is of another model: they differ{where}; expected the same one, "
            "quantized"
        )


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


def _latent_rows(rows: torch.Tensor, quantized: QuantizedLayer) -> torch.Tensor:
    """Float weights that round to the layer's codes: the network's own where they do.

    A code that is further than its neighbour (the layer was rescaled) gives its own value.
    """
    assert quantized.weight is not None
    codes, scales = quantized.weight.codes.float(), quantized.weight.scales
    position = in_steps(rows.detach().float(), scales)
    same = weight_at(rows, scales, quantized.choice.w_bits).codes.float() == codes
    inside = codes + 0.25 * torch.sign(position - codes)
    near = (position - codes).abs() <= 1
    return torch.where(same, rows, scaled(torch.where(near, inside, codes), scales))


def _unit(tensor: torch.Tensor) -> torch.Tensor:
    """The power of two at the tensor's root mean square; 1 for zeros."""
    return _power_of_two(tensor.square().mean().sqrt())


def _channel_units(rows: torch.Tensor) -> torch.Tensor:
    """One unit per output channel: [channels, n] -> [channels, 1]."""
    return _power_of_two(rows.square().mean(dim=1, keepdim=True).sqrt())


def _power_of_two(size: torch.Tensor) -> torch.Tensor:
    usable = size >= torch.finfo(torch.float32).tiny
    return torch.where(usable, size, 1.0).log2().round().exp2()


def _with_arguments(
    network: Network,
    start: QuantizedNetwork,
    tensors: Mapping[str, torch.Tensor],
    input_steps: Mapping[str, str],
    steps: tuple[str, ...],
) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """The graph with trained tensors and steps as its first arguments, and their names."""
    graph = copy_graph(network.graph)
    by_name = {node.name: node for node in graph.graph.nodes}
    names = (*tensors, *steps)
    places = {}
    with graph.graph.inserting_before(next(iter(graph.graph.nodes))):
        for index, name in enumerate(names):
            places[name] = graph.graph.placeholder(f"argument_{index}")
    for node, name, _ in list(tensor_nodes(graph)):
        if name in tensors:
            node.replace_all_uses_with(places[name])
            graph.graph.erase_node(node)

    def quantized(node: fx.Node, step: str, quantizer: ActivationQuantizer) -> fx.Node:
        arguments = (node, places[step], quantizer.zero_point, quantizer.bits)
        count = math.prod(node.meta["shape"])
        return graph.graph.call_function(quantize_input, (*arguments, count))

    for layer in (layer for layer in network.layers if layer.name in input_steps):
        step, activation = input_steps[layer.name], start.layers[layer.name].activation
        for node in (by_name[name] for name in layer.nodes):
            source = node.args[0]
            if packet(node) == EMBEDDING or f"{source}{_STORED_STEP}" == step:
                continue  # that reads indices; this what is quantized already
            with graph.graph.inserting_before(node):
                node.args = (quantized(source, step, activation), *node.args[1:])
    last = next(n for n in reversed(graph.graph.nodes) if n.op == "placeholder")
    for name, quantizer in (start.stored or {}).items():
        node = by_name[name]
        with graph.graph.inserting_after(last if node.op == "placeholder" else node):
            fake = quantized(node, name + _STORED_STEP, quantizer)
        node.replace_all_uses_with(fake, lambda user, fake=fake: user is not fake)
    graph.recompile()
    return graph, names


def _input_steps(network: Network, start: QuantizedNetwork) -> dict[str, str]:
    """Layer name -> the parameter that is its input's step: its own, or that of the stored tensor
    whose codes it reads. Without layers with float inputs, and embedding tables, which read
    indices."""
    nodes = {node.name: node for node in network.graph.graph.nodes}
    steps = {
        layer.name: layer.name + _INPUT_STEP
        for layer in network.layers
        if start.layers[layer.name].activation.bits != FLOAT_BITS
        and any(packet(nodes[name]) != EMBEDDING for name in layer.nodes)
    }
    if start.stored:
        a_bits = {name: choice.a_bits for name, choice in start.assignment.items()}
        for tensor in stored_tensors(network.graph, network.layers, a_bits):
            quantizer = start.stored.get(tensor.node)
            same = [n for n in tensor.layers if start.layers[n].activation == quantizer]
            steps |= dict.fromkeys(same, tensor.node + _STORED_STEP)
    return steps


def _rounded(bias: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """The bias as its codes give it, straight through backward: at few bits its steps are wide."""
    with torch.no_grad():
        error = (torch.round(bias.double() / steps) * steps).float() - bias
    return bias + error


def first_nodes(network: Network) -> dict[str, fx.Node]:
    """Layer name -> the node where it is used first."""
    by_name = {node.name: node for node in network.graph.graph.nodes}
    return {layer.name: by_name[layer.nodes[0]] for layer in network.layers}

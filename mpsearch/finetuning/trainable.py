"""A quantized network as a function of its numbers: what training changes, and the integers of it.

One graph serves `to_module` and `finetune`. Its tensors and its steps are arguments: whoever trains
holds them, and says what they are now.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import fx

from mpsearch.errors import InputError
from mpsearch.finetuning.arguments import Steps, names_of_steps, trained_tensors, with_arguments
from mpsearch.graph.layers import Layer, output_channels_view
from mpsearch.graph.network import Network, copy_graph
from mpsearch.graph.tensors import set_tensor, tensor_nodes
from mpsearch.quantization.quantized import (
    QuantizedLayer,
    QuantizedNetwork,
    assemble,
    bias_codes,
    counts_bias,
    with_activation,
    with_scales_for_bias,
)
from mpsearch.quantization.quantized_file import load_quantized, save_quantized
from mpsearch.quantization.quantizer import (
    ActivationQuantizer,
    quantize_rows,
    weight_at,
)
from mpsearch.quantization.scale_layout import in_steps, scaled

Values = Callable[[str], torch.Tensor]  # a tensor or a step by name, as it is now


@dataclass(frozen=True)
class Trainable:
    """What does not train of `start`: its bits, its zero points, and the graph.

    `graph` takes the tensors and the steps of inputs, those of `arguments`, and then the network's
    inputs.
    """

    start: QuantizedNetwork
    graph: fx.GraphModule
    arguments: tuple[str, ...]
    named: Steps
    nodes: Mapping[str, fx.Node]
    """Where each layer is used first."""

    @property
    def network(self) -> Network:
        """The start's, with what repairs before training have changed."""
        return self.start.source

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """The names of the tensors that train."""
        return tuple(trained_tensors(self.network))

    def outputs(self, values: Values, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Outputs with the codes' rounding in the forward pass, straight through in the
        backward."""
        tensors = {name: values(name) for name in self.arguments}
        rounded: dict[str, torch.Tensor] = {}
        for layer in self.network.layers:
            if layer.name in self.named.weights:
                rounded |= self._rounded(layer, tensors, values(self.named.weights[layer.name]))
        outputs = self.graph(*(tensors | rounded).values(), *inputs)
        assert isinstance(outputs, torch.Tensor)
        return outputs

    def _rounded(
        self, layer: Layer, tensors: Mapping[str, torch.Tensor], steps: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The layer's weight and bias by name, as its codes give them."""
        begun = self.start.layers[layer.name]
        choice = begun.choice
        assert begun.weight is not None
        rows, restore = output_channels_view(self.nodes[layer.name], tensors[layer.weight_name])
        steps = begun.weight.spread(steps)
        rounded = quantize_rows(rows, steps, choice.w_bits, begun.weight.group_size)
        if not layer.bias_name or not counts_bias(choice, begun.weight):
            return {layer.weight_name: restore(rounded)}
        bias = tensors[layer.bias_name]
        step = tensors[self.named.inputs[layer.name]].detach().double()
        with torch.no_grad():
            weight = weight_at(rows, steps, choice.w_bits)
            fitting = with_scales_for_bias(rows.detach(), weight, choice.w_bits, bias, step)
            codes = bias_codes(bias, fitting, step)
            written = (codes.double() * fitting.bias_steps(step)).float()
        if fitting is not weight:
            rounded = _straight_through(fitting.dequantize(), rounded)
        return {
            layer.weight_name: restore(rounded),
            layer.bias_name: _straight_through(written, bias),
        }

    def quantized(self, values: Values) -> QuantizedNetwork:
        """The integers that `values` stand for, as `mpsearch apply` would write them."""
        source = copy_graph(self.network.graph)
        with torch.no_grad():
            for name in {name for _, name, _ in tensor_nodes(source)}:
                set_tensor(source, name, values(name).detach().clone())
            trained = replace(self.network, graph=source)
            layers = {
                layer.name: self._quantized_layer(trained, layer, values)
                for layer in trained.layers
            }
            stored = self.start.stored and {
                node: replace(begun, scale=float(values(self.named.stored[node])))
                for node, begun in self.start.stored.items()
            }
        return replace(
            assemble(trained, layers, stored),
            model_digest=self.start.model_digest,
            input_ranges=self.start.input_ranges,
            sample=self.start.sample,
            origin=self.start.origin,
        )

    def _quantized_layer(self, trained: Network, layer: Layer, values: Values) -> QuantizedLayer:
        begun = self.start.layers[layer.name]
        choice, activation = begun.choice, begun.activation
        if layer.name in self.named.inputs:
            scale = float(values(self.named.inputs[layer.name]))
            activation = ActivationQuantizer(choice.a_bits, scale, activation.zero_point)
        if begun.weight is None:
            return QuantizedLayer(choice, None, None, activation)
        rows, _ = trained.weight_rows(layer)
        steps = begun.weight.spread(values(self.named.weights[layer.name])).clone()
        weight = weight_at(rows, steps, choice.w_bits, begun.weight.group_size)
        return with_activation(trained, layer, choice, weight, activation)

    def start_values(self, network: Network | None = None) -> dict[str, torch.Tensor]:
        """Every tensor and step, copied. Rounding gives the start's codes.

        Where the codes are not the nearest ones to the weights of the float `network` (adaptive
        rounding), a weight begins in its code's interval, half-way to the edge on its own side. At
        the edge itself first steps turn codes back (DS-CNN, 2-bit weights: first epoch's loss 0.44
        instead of 0.34). Without `network` it begins in the middle.
        """
        floats = network or self.network
        values = {name: value.clone() for _, name, value in tensor_nodes(self.network.graph)}
        for layer in self.network.layers:
            quantized = self.start.layers[layer.name]
            if quantized.weight is None:
                continue
            _, restore = output_channels_view(self.nodes[layer.name], values[layer.weight_name])
            rows = _latent_rows(floats.weight_rows(layer)[0], quantized)
            values[layer.weight_name] = restore(rows).clone()
            steps = quantized.weight.scales.clone()
            one = quantized.weight.has_one_scale  # (quantized per tensor) it stays one
            values[self.named.weights[layer.name]] = steps[:1] if one else steps
        for name, quantizer in self.named.quantizers.items():
            values[name] = torch.full((), quantizer.scale, device=self.network.device)
        return values

    @cached_property
    def steps(self) -> dict[str, None]:
        """The names of all steps."""
        return dict.fromkeys((*self.named.weights.values(), *self.named.quantizers))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Trainable":
        return self  # nothing in it changes

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the file of its start, whose graph is data."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "start.pt"
            save_quantized(self.start, file)
            return _from_file, (file.read_bytes(),)


def _from_file(content: bytes) -> Trainable:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "start.pt"
        file.write_bytes(content)
        return trainable(load_quantized(file))


def trainable(start: QuantizedNetwork) -> Trainable:
    """The graph of `start` with everything that trains as arguments."""
    named = names_of_steps(start)
    graph, arguments = with_arguments(start, named)
    return Trainable(start, graph, arguments, named, first_nodes(start.source))


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


def _straight_through(numbers: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """The one's numbers, exactly, with the gradients of the other."""
    return numbers + (gradients - gradients.detach())


def _latent_rows(rows: torch.Tensor, quantized: QuantizedLayer) -> torch.Tensor:
    """Float weights that round to the layer's codes: the network's own where they do.

    A code that is further than its neighbour (the layer was rescaled) gives its own value.
    """
    assert quantized.weight is not None
    codes, scales = quantized.weight.codes.float(), quantized.weight.scales
    size = quantized.weight.group_size
    position = in_steps(rows.detach().float(), scales, size)
    same = weight_at(rows, scales, quantized.choice.w_bits, size).codes.float() == codes
    inside = codes + 0.25 * torch.sign(position - codes)
    near = (position - codes).abs() <= 1
    return torch.where(same, rows, scaled(torch.where(near, inside, codes), scales, size))


def first_nodes(network: Network) -> dict[str, fx.Node]:
    """Layer name -> the node where it is used first."""
    by_name = {node.name: node for node in network.graph.graph.nodes}
    return {layer.name: by_name[layer.nodes[0]] for layer in network.layers}

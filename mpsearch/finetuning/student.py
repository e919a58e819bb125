"""The network that fine-tuning trains: a quantized one whose numbers and steps are parameters.

Every tensor trains in units of its own size, and every step in its logarithm. One learning rate
then means one relative change for all of them, whatever scales batch-norm folding has left in the
channels; units are powers of two, so that they change no bit of a number.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mpsearch.finetuning.trainable import Trainable, trainable
from mpsearch.graph.layers import Layer, output_channels_view
from mpsearch.graph.network import Network
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantizer import weight_at
from mpsearch.quantization.scale_layout import scaled


@dataclass(frozen=True)
class Student:
    """`parameters` by the name of a tensor or of a step.

    A tensor is parameter × unit, a step is its start × exp(parameter); what has no parameter stays
    at its start.
    """

    trainable: Trainable
    parameters: Mapping[str, torch.nn.Parameter]
    units: Mapping[str, torch.Tensor]
    """Of every tensor that trains; of steps and of other tensors their start."""

    @property
    def network(self) -> Network:
        """The start's, with what repairs before training have changed."""
        return self.trainable.network

    @property
    def start(self) -> QuantizedNetwork:
        """What it was before training."""
        return self.trainable.start

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Outputs of inputs from anywhere, as `Trainable.outputs`."""
        device = self.network.device
        return self.trainable.outputs(self.tensor, tuple(x.to(device) for x in inputs))

    def tensor(self, name: str) -> torch.Tensor:
        """A network tensor or a step as it is now, with its gradient's path."""
        unit = self.units[name]
        if name not in self.parameters:
            return unit
        value = self.parameters[name]
        return unit * (value.exp() if name in self.trainable.steps else value)

    def codes(self, layer: Layer) -> torch.Tensor:
        """Codes [channels, n] (int8) of a layer with 2 to 8 bits, as the forward pass rounds."""
        node = self.trainable.nodes[layer.name]
        rows, _ = output_channels_view(node, self.tensor(layer.weight_name))
        bits = self.start.layers[layer.name].choice.w_bits
        steps = self._weight_steps(layer).detach()
        return weight_at(rows, steps, bits, self._group_size(layer)).codes.to(torch.int8)

    def hold(self, layer: Layer, where: torch.Tensor, codes: torch.Tensor) -> None:
        """Set the weights at `where` [channels, n] to code × step, as the step is now."""
        parameter, unit = self.parameters[layer.weight_name], self.units[layer.weight_name]
        _, restore = output_channels_view(self.trainable.nodes[layer.name], parameter)
        with torch.no_grad():
            held = restore(scaled(codes, self._weight_steps(layer), self._group_size(layer))) / unit
            parameter.copy_(torch.where(restore(where), held, parameter))

    def _weight_steps(self, layer: Layer) -> torch.Tensor:
        weight = self.start.layers[layer.name].weight
        assert weight is not None
        return weight.spread(self.tensor(self.trainable.named.weights[layer.name]))

    def _group_size(self, layer: Layer) -> int:
        weight = self.start.layers[layer.name].weight
        return 0 if weight is None else weight.group_size

    def quantized(self) -> QuantizedNetwork:
        """The integers that the parameters stand for now, as `mpsearch apply` would write them."""
        return self.trainable.quantized(self.tensor)


def student(network: Network, start: QuantizedNetwork) -> Student:
    """A trainable copy of `start`, which is `network` quantized: its rounding gives `start`'s
    codes."""
    graph = trainable(start)
    units = graph.start_values(network)
    channels = {layer.weight_name: layer for layer in start.source.layers}
    parameters = {}
    for name in graph.trained:
        tensor = units[name]
        units[name] = _unit(tensor)
        if name in channels:
            node = graph.nodes[channels[name].name]
            rows, restore = output_channels_view(node, tensor)
            units[name] = restore(_channel_units(rows).expand_as(rows))
        parameters[name] = torch.nn.Parameter((tensor / units[name]).contiguous())
    for name in graph.steps:
        parameters[name] = torch.nn.Parameter(torch.zeros_like(units[name]))
    return Student(graph, parameters, units)


def _unit(tensor: torch.Tensor) -> torch.Tensor:
    """The power of two at the tensor's root mean square; 1 for zeros."""
    return _power_of_two(tensor.square().mean().sqrt())


def _channel_units(rows: torch.Tensor) -> torch.Tensor:
    """One unit per output channel: [channels, n] -> [channels, 1]."""
    return _power_of_two(rows.square().mean(dim=1, keepdim=True).sqrt())


def _power_of_two(size: torch.Tensor) -> torch.Tensor:
    usable = size >= torch.finfo(torch.float32).tiny
    return torch.where(usable, size, 1.0).log2().round().exp2()

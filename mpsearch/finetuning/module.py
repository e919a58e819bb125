"""A quantized network as a `torch.nn.Module` for training loops of others, and back."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mpsearch.errors import InputError
from mpsearch.finetuning.trainable import Trainable, check_same_network, trainable
from mpsearch.graph.inputs import Call
from mpsearch.graph.network import Network
from mpsearch.graph.outputs import split_outputs
from mpsearch.graph.tensors import get_tensor
from mpsearch.quantization.quantized import QuantizedNetwork

Outputs = torch.Tensor | tuple[torch.Tensor, ...] | dict[str, torch.Tensor]


class TrainableModule(nn.Module):
    """Parameters: weights and biases as they are, and `…_scale_change`, a step's logarithm.

    A step is `…_scale` × exp(`…_scale_change`): it stays positive, and one learning rate suits
    large and small ones. Buffers are `…_scale`, the step at the start, constants of the network,
    and bits and zero points, which `load_state_dict` compares.
    """

    def __init__(self, trainable: Trainable, values: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self._trainable = trainable
        for name, value in values.items():
            if name in trainable.trained:
                _place(self, name, nn.Parameter(value.contiguous()))
            else:
                _place(self, name, value)
        for name in trainable.steps:
            _place(self, f"{name}_change", nn.Parameter(torch.zeros_like(values[name])))
        for name, number in _fixed(trainable).items():
            _place(self, name, torch.tensor(number))

    def forward(self, *inputs: Any, **named: Any) -> Outputs:
        """What the network gives: a tensor; of several outputs a tuple, or a dictionary by name."""
        graph = self._here()
        network = graph.network
        device = network.device
        ordered = _in_order(network, Call(inputs, named))
        outputs = graph.outputs(self._value, tuple(x.to(device) for x in ordered))
        if len(network.outputs) == 1:
            return outputs
        parts = split_outputs(network.outputs, outputs)
        if list(parts) == [f"output{index}" for index in range(len(parts))]:
            return tuple(parts.values())
        return parts

    def _value(self, name: str) -> torch.Tensor:
        """A tensor or a step as it is now, with its gradient's path."""
        value = get_tensor(self, name)
        if name in self._trainable.steps:
            return value * get_tensor(self, f"{name}_change").exp()
        return value

    def _quantized(self) -> QuantizedNetwork:
        """The integers of now, where the module is."""
        graph = self._here()
        for name, tensor in [*self.named_parameters(), *self.named_buffers()]:
            if tensor.is_floating_point() and tensor.dtype != torch.float32:
                width = str(tensor.dtype).removeprefix("torch.")
                raise InputError(f"got {name} in {width}; expected float32: call module.float()")
        for name in {*graph.trained, *graph.steps}:
            value = self._value(name).detach()
            usable = value.isfinite() & (value > 0) if name in graph.steps else value.isfinite()
            if not bool(usable.all()):
                kind = "positive, finite" if name in graph.steps else "finite"
                raise InputError(
                    f"{name} is {float(value[~usable][0])}; expected {kind} numbers: the training "
                    "diverged, try a smaller learning rate"
                )
        found = graph.quantized(self._value)
        return graph.start if found.digest == graph.start.digest else found

    def extra_repr(self) -> str:
        """Layers by their bits: `3 × w4a8, 1 × w8a8`."""
        choices = [str(choice) for choice in self._trainable.start.assignment.values()]
        return ", ".join(f"{choices.count(choice)} × {choice}" for choice in dict.fromkeys(choices))

    def _here(self) -> Trainable:
        """The graph for the device that the parameters are on: its operators name one, too."""
        names = self._trainable.arguments
        device = get_tensor(self, names[0]).device if names else torch.device("cpu")
        if self._trainable.network.device != device:
            self._trainable = trainable(self._trainable.start.to(device))
        return self._trainable

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *others: Any
    ) -> None:
        for name, ours in _fixed(self._trainable).items():
            theirs = state_dict.get(prefix + name)
            if theirs is not None and int(theirs) != ours:
                raise InputError(
                    f"the state is of another quantized network: {name} is {int(theirs)} there and "
                    f"{ours} here; expected the state of a module of the same one"
                )
        super()._load_from_state_dict(state_dict, prefix, *others)


def to_module(quantized: QuantizedNetwork, network: Network | None = None) -> nn.Module:
    """A `torch.nn.Module` to train in a loop of your own: `from_module` gives the integers back.

    It computes what `quantized` does, bit for bit, in every mode, takes the inputs in order or by
    name, and returns its output, or of several a tuple or a dictionary by name. Parameters are
    weights, biases, norms, and every step in its logarithm; roundings pass gradients straight
    through, with LSQ's for the steps (Esser et al., ICLR 2020). `state_dict` names them as the
    model did: `conv1.weight`, `conv1.bias`, `conv1.weight_scale`, `conv1.input_scale`. Weights
    begin at what their codes mean, or, with the float `network`, at its own inside of their codes'
    intervals. Raises InputError for anything but a quantized network, and for another `network`.
    """
    if not isinstance(quantized, QuantizedNetwork):
        raise InputError(
            f"got a {type(quantized).__name__}; expected a quantized network, as mpsearch.apply "
            "and mpsearch.load_quantized give it"
        )
    if network is not None:
        check_same_network(network, quantized)
        network = network.to(quantized.source.device)
    graph = trainable(quantized)
    return TrainableModule(graph, graph.start_values(network))


def from_module(module: nn.Module) -> QuantizedNetwork:
    """The quantized network of a module of `to_module` as it is now, where the module is.

    Its outputs are the module's, bit for bit. Nothing is shared: training may go on. A module that
    has not been trained gives its quantized network back. Takes wrapped modules, too
    (DistributedDataParallel, torch.compile, averaged models). Raises InputError for any other
    module, and where training has left numbers that are none.

    >>> module = mpsearch.to_module(quantized)
    >>> mpsearch.from_module(module).digest == quantized.digest
    True
    """
    found = _unwrapped(module)
    if found is None:
        raise InputError(
            f"got a {type(module).__name__}; expected a module that mpsearch.to_module made, "
            "whole: its layers alone do not say how they were quantized"
        )
    return found._quantized()


def is_trainable(module: object) -> bool:
    """Whether `from_module` takes it."""
    return isinstance(module, nn.Module) and _unwrapped(module) is not None


def _unwrapped(module: Any) -> TrainableModule | None:
    while not isinstance(module, TrainableModule):
        inner = getattr(module, "module", getattr(module, "_orig_mod", None))
        if not isinstance(inner, nn.Module):
            return None
        module = inner
    return module


def _fixed(trainable: Trainable) -> dict[str, int]:
    """Bits and zero points by name."""
    numbers = {}
    for layer, step in trainable.named.weights.items():
        numbers[step.removesuffix("scale") + "bits"] = trainable.start.layers[layer].choice.w_bits
    for step, quantizer in trainable.named.quantizers.items():
        numbers[step.removesuffix("scale") + "bits"] = quantizer.bits
        numbers[step.removesuffix("scale") + "zero_point"] = quantizer.zero_point
    return numbers


def _place(root: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Put a parameter or a buffer under its name; modules on the way are made."""
    *path, leaf = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(leaf, tensor)
    else:
        root.register_buffer(leaf, tensor)


def _in_order(network: Network, call: Call) -> list[torch.Tensor]:
    """The tensors of a call in the network's order: by name where they have one of its names."""
    names = network.input_names
    given: dict[str, torch.Tensor] = {}
    rest = []
    for name, value in zip(call.names(), call.tensors(), strict=True):
        if not isinstance(value, torch.Tensor):
            raise InputError(f"got {type(value).__name__} as an input; expected tensors")
        if name in names and name not in given:
            given[name] = value
        else:
            rest.append(value)
    if len(given) + len(rest) != len(names):
        raise InputError(
            f"got {len(given) + len(rest)} inputs; expected {len(names)}: {', '.join(names)}"
        )
    others = iter(rest)
    return [given[name] if name in given else next(others) for name in names]

"""Named arrays of samples, and which of them are a network's inputs and which are labels."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mpsearch.errors import InputError
from mpsearch.graph.inputs import is_label_name
from mpsearch.graph.network import Network


@dataclass(frozen=True)
class Arrays:
    """Named arrays as a source gave them."""

    name: str
    """The source, for messages."""
    tensors: Mapping[str, torch.Tensor]
    """By name, [N, …]: the inputs as `x0, x1, …` or by the model's input names, and labels `y`. A
    single number is nothing per sample, and left out: its input has a constant (`fix`)."""

    def inputs_in_order(self) -> tuple[torch.Tensor, ...]:
        """x0, x1, …, for a model whose input names are not known yet."""
        count = sum(not is_label_name(name) and x.dim() > 0 for name, x in self.tensors.items())
        names = [f"x{index}" for index in range(count)]
        if not count or any(name not in self.tensors for name in names):
            raise InputError(
                f"{self.name}: got the arrays {', '.join(self.tensors) or 'none'}; "
                "expected x0, x1, … (one per input of the model) and optionally y"
            )
        return tuple(_as_input(self.tensors[name]) for name in names)

    def example_inputs(self) -> tuple[torch.Tensor, ...] | dict[str, torch.Tensor]:
        """The inputs of the first sample: x0, x1, … in order, or all arrays by their own names."""
        named = {
            name: _as_input(x[:1])
            for name, x in self.tensors.items()
            if not is_label_name(name) and x.dim() > 0
        }
        if named and not any(re.fullmatch(r"x\d+", name) for name in named):
            return named
        return tuple(x[:1] for x in self.inputs_in_order())


def bind_arrays(
    arrays: Arrays, network: Network
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """(inputs in the network's order and types, labels). Raises InputError naming the array."""
    aliases = {f"x{i}": name for i, name in enumerate(network.input_names)}
    wanted = ", ".join(f"{short} ({name})" for short, name in aliases.items())
    named: dict[str, torch.Tensor] = {}
    labels: dict[str, torch.Tensor] = {}
    for name, tensor in arrays.tensors.items():
        target = aliases.get(name, name)
        if target in network.input_names:
            named[target] = tensor
        elif is_label_name(name):
            labels[name] = tensor
        elif tensor.dim() > 0:
            raise InputError(f"{arrays.name}: unknown array {name!r}; expected {wanted} and y")
    for short, name in aliases.items():
        if name not in named:
            raise InputError(f"{arrays.name}: no array {short!r} ({name}); expected {wanted} and y")
    inputs = tuple(
        _checked_input(arrays.name, f"x{i} ({name})", named[name], shape, dtype)
        for i, (name, shape, dtype) in enumerate(
            zip(network.input_names, network.input_shapes, network.input_dtypes, strict=True)
        )
    )
    for short, tensor in zip(aliases, inputs, strict=True):
        if len(tensor) != len(inputs[0]):
            raise InputError(
                f"{arrays.name}: array {short} has {len(tensor)} samples and x0 has "
                f"{len(inputs[0])}; expected the same number"
            )
    return inputs, labels


def _as_input(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype in (torch.int64, torch.int32) else tensor.float()


def _checked_input(
    source: str, name: str, tensor: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    if tuple(tensor.shape[1:]) != shape or tensor.dim() == 0:
        raise InputError(
            f"{source}: array {name} has shape {tuple(tensor.shape)}; expected (N, "
            f"{', '.join(map(str, shape))})"
        )
    if len(tensor) == 0:
        raise InputError(f"{source}: array {name} has no samples; expected at least one")
    converted = tensor.to(dtype)
    if converted.is_floating_point() and not bool(torch.isfinite(converted).all()):
        row = int((~torch.isfinite(converted)).flatten(1).any(1).nonzero()[0])
        raise InputError(f"{source}: array {name} has NaN or infinity in sample {row}")
    return converted

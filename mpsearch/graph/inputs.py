"""What a network takes: tensors in order, by name, or inside of dictionaries and tuples."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from mpsearch.errors import InputError


@dataclass(frozen=True)
class Call:
    """The arguments of one call of a model; tensors may lie in dictionaries, lists and tuples."""

    args: tuple[Any, ...]
    """The positional ones, in order."""
    kwargs: dict[str, Any]
    """The others by name."""

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Every tensor, in the order of the exported graph's inputs."""
        return tuple(pytree.tree_leaves((self.args, self.kwargs)))

    def names(self) -> list[str]:
        """For every tensor its key in the innermost dictionary; empty where it is in none."""
        paths, _ = pytree.tree_flatten_with_path((self.args, self.kwargs))
        return [str(getattr(path[-1], "key", "")) for path, _ in paths]

    def map(self, change: Callable[[torch.Tensor, str], torch.Tensor]) -> "Call":
        """The same call with every tensor changed, given its name, or its position without one."""
        names = iter([name or str(index) for index, name in enumerate(self.names())])
        return Call(
            *pytree.tree_map(lambda tensor: change(tensor, next(names)), (self.args, self.kwargs))
        )


# (x0, x1), ({"image": x0, "audio": x1},), {"image": x0, "audio": x1}, or all of it in a Call
ExampleInputs = Sequence[Any] | Mapping[str, Any] | Call


def bind_inputs(model: nn.Module, example_inputs: ExampleInputs) -> Call:
    """The call that `example_inputs` stand for.

    A sequence gives the positional arguments; a mapping gives arguments by name, or the one
    argument of a model that takes a dictionary. Raises InputError when the model does not take
    them.
    """
    signature = inspect.signature(model.forward)
    if isinstance(example_inputs, Call):
        bound = signature.bind(*example_inputs.args, **example_inputs.kwargs)
    elif isinstance(example_inputs, Mapping):
        try:
            bound = signature.bind(**example_inputs)
        except TypeError:
            return bind_inputs(model, (dict(example_inputs),))
    else:
        try:
            bound = signature.bind(*example_inputs)
        except TypeError as error:
            count = len(example_inputs)
            raise InputError(f"the model does not take {count} inputs: {error}") from error
    call = Call(bound.args, bound.kwargs)
    strange = [x for x in call.tensors() if not isinstance(x, torch.Tensor)]
    if strange or not call.tensors():
        found = type(strange[0]).__name__ if strange else "nothing"
        raise InputError(f"the example inputs hold {found}; expected tensors, batch first")
    return call


def is_label_name(name: str) -> bool:
    """`y`, `y0`, `y1`, …, `y_NAME`: names of arrays of labels."""
    return name == "y" or name.startswith("y_") or (name[:1] == "y" and name[1:].isdigit())

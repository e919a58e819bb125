"""What a network returns: one tensor as it is, or several flattened side by side, by name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Output:
    """Columns `start` to `stop` of the network's flattened output, one sample of shape `shape`.

    `Output("boxes", (4, 2), 10, 18)`: columns 10 to 17 are the output called `boxes`, [N, 4, 2].
    """

    name: str
    shape: Shape
    start: int
    stop: int


def split_outputs(outputs: Sequence[Output], values: torch.Tensor) -> dict[str, torch.Tensor]:
    """The network's output by name, in the shapes that the model gave: [N, K] -> {name: [N, …]}."""
    rows = values.reshape(len(values), -1)
    return {o.name: rows[:, o.start : o.stop].reshape(-1, *o.shape) for o in outputs}


def lay_out(names: Sequence[str], shapes: Sequence[Shape]) -> tuple[Output, ...]:
    """Outputs of these names and shapes (of one sample), side by side."""
    outputs, start = [], 0
    for name, shape in zip(names, shapes, strict=True):
        stop = start + math.prod(shape)
        outputs.append(Output(name, tuple(shape), start, stop))
        start = stop
    return tuple(outputs)

"""What `benchmarks/zoo.py` knows of one network."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class ZooNetwork:
    """A network, its inputs, and what a person counts in its definition."""

    family: str
    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    """A batch of so many samples."""
    layers: int
    """Convolutions, linear layers and embedding tables, counted by hand."""
    by_hand: str
    """How they were counted."""
    recurrent_macs: int = 0
    """MACs of an LSTM's matrices by hand; torch's counter sees those of a GRU only."""


def floats(*shapes: tuple[int, ...]) -> Callable[[int], Inputs]:
    """Inputs of normal numbers; shapes are those of one sample."""
    return lambda n: tuple(torch.randn(n, *shape) for shape in shapes)


def indices(rows: int, *shape: int) -> Callable[[int], Inputs]:
    """Row numbers of a table of so many rows."""
    return lambda n: (torch.randint(0, rows, (n, *shape)),)


def made(network: ZooNetwork) -> nn.Module:
    """The network in evaluation mode; its batch norms have seen two batches."""
    torch.manual_seed(0)
    model = network.make()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if norms:
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        with torch.no_grad():
            for _ in range(2):
                model(*network.inputs(8))
    return model.eval()


def conv(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1,
    activation: nn.Module | None = None,
) -> nn.Sequential:  # fmt: skip
    """Convolution, batch norm and an activation, padded to keep the size."""
    parts: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*parts, *([] if activation is None else [activation]))

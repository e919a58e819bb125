"""Losses with the plain formula of each one's mean, for dense Hessians and definitions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from mpsearch.graph.outputs import lay_out
from mpsearch.losses.labels import Own
from mpsearch.losses.loss import BERNOULLI, CROSS_ENTROPY, SOFTMAX, SQUARED, Loss, PlainLoss
from mpsearch.losses.sum_loss import Share, SumLoss


class Line(nn.Module):
    """Two linear layers, an activation between them, outputs of any shape."""

    def __init__(self, shape: tuple[int, ...], smooth: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.first = nn.Linear(4, 5)
        self.act = nn.GELU() if smooth else nn.ReLU()
        self.last = nn.Linear(5, torch.Size(shape).numel())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.last(self.act(self.first(x)))
        return outputs.reshape(-1, *self.shape)


def fourth_power(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A loss of one's own that is not convex: (z − y)⁴ − z y z."""
    return ((outputs - targets) ** 4 - outputs * targets * outputs).mean(dim=1)


def _two(first: PlainLoss, second: PlainLoss) -> SumLoss:
    of, label = lay_out(["class", "box"], [(3,), (2,)]), lay_out(["class", "box"], [(), (2,)])
    return SumLoss((Share(of[0], 1.0, first, label[0]), Share(of[1], 0.5, second, label[1])))


@dataclass(frozen=True)
class Case:
    """`mean(outputs, labels)` is the mean loss, written from its definition."""

    shape: tuple[int, ...]
    loss: Loss
    labels: Callable[[torch.Generator, int], torch.Tensor]
    mean: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _entropy(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """−log p of the class along dimension 1, mean over all else, through exp and log."""
    p = torch.exp(z - z.amax(1, keepdim=True))
    p = p / p.sum(1, keepdim=True)
    return -torch.log(p.gather(1, y.long()[:, None])).mean()


def _binary(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    p = 1 / (1 + torch.exp(-z))
    return -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()


MSE, BCE = PlainLoss("mse", True, SQUARED), PlainLoss("bce", True, BERNOULLI)
CASES = {
    "cross-entropy": Case(
        (3,), CROSS_ENTROPY, lambda g, n: torch.randint(0, 3, (n,), generator=g), _entropy
    ),
    "cross-entropy per position": Case(
        (3, 2), PlainLoss("cross-entropy", True, SOFTMAX),
        lambda g, n: torch.randint(0, 3, (n, 2), generator=g), _entropy,
    ),
    "bce": Case(
        (3,), BCE, lambda g, n: torch.randint(0, 2, (n, 3), generator=g).double(), _binary
    ),
    "mse": Case(
        (2, 2), MSE, lambda g, n: torch.randn(n, 2, 2, generator=g, dtype=torch.float64),
        lambda z, y: ((z - y) ** 2).mean(),
    ),
    "bce of one answer": Case(
        (), BCE, lambda g, n: torch.randint(0, 2, (n,), generator=g).double(), _binary
    ),
    "mse of one number": Case(
        (), MSE, lambda g, n: torch.randn(n, generator=g, dtype=torch.float64),
        lambda z, y: ((z - y) ** 2).mean(),
    ),
    "two outputs": Case(
        (5,), _two(CROSS_ENTROPY, MSE),
        lambda g, n: torch.cat(
            [torch.randint(0, 3, (n, 1), generator=g).double(),
             torch.randn(n, 2, generator=g, dtype=torch.float64)], dim=1,
        ),
        lambda z, y: _entropy(z[:, :3], y[:, 0]) + 0.5 * ((z[:, 3:] - y[:, 1:]) ** 2).mean(),
    ),
    "own": Case(
        (2,), PlainLoss("tests:fourth_power", True, Own("own", function=fourth_power)),
        lambda g, n: torch.randn(n, 2, generator=g, dtype=torch.float64),
        lambda z, y: ((z - y) ** 4 - z**2 * y).mean(),
    ),
}  # fmt: skip
CLOSED = [name for name, case in CASES.items() if case.loss.has_exact_hessian]

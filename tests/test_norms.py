"""Norms that are spelled out become one operator, whose results differ by rounding only."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from mpsearch.graph.exporting import export_graph
from mpsearch.graph.layers import packet
from mpsearch.graph.network import Network
from mpsearch.integer.graph import IntegerTensor
from mpsearch.integer.norms import Norm, normalize

Spelled = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _onnx(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    apart = x - x.mean(-1, keepdim=True)
    return apart / torch.sqrt(apart.pow(torch.tensor(2.0)).mean(-1, keepdim=True) + 1e-5) * w + b


def _twice(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    variance = (x - x.mean((1, 2), keepdim=True)).square().mean((1, 2), keepdim=True)
    return (x - x.mean((1, 2), keepdim=True)) * torch.rsqrt(variance + 1e-3)


def _var(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    variance = x.var(-1, unbiased=False, keepdim=True)
    return b + w * ((x - x.mean(-1, keepdim=True)) / (variance + 1e-5).sqrt())


def _channels(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    x = x.transpose(1, 2)  # [N, C, T]: ConvNeXt's norm over channels
    apart = x - x.mean(1, keepdim=True)
    x = apart / torch.sqrt((apart * apart).mean(1, keepdim=True) + 1e-6)
    return (w[:, None] * x + b[:, None]).transpose(1, 2)


def _rms(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return w * (x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


def _unit(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return functional.normalize(x, dim=-1) * w


def _unbiased(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1).sqrt()


class _Norm(nn.Module):
    def __init__(self, function: Spelled) -> None:
        super().__init__()
        self.function, self.layer = function, nn.Linear(6, 4)
        self.weight, self.bias = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(self.function(x, self.weight, self.bias))
        return result


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (_onnx, ["layer_norm"]),
        (_twice, ["layer_norm"]),
        (_var, ["layer_norm"]),
        (_channels, ["layer_norm", "permute", "permute", "transpose", "transpose"]),
        (_rms, ["rms_norm"]),
        (_unit, ["rms_norm"]),
        # not norms: the unbiased variance, a mean over the samples of another tensor's squares
        (_unbiased, None),
        (lambda x, w, b: x * torch.rsqrt((x + 1).pow(2).mean(-1, keepdim=True) + 1), None),
        (lambda x, w, b: x * torch.rsqrt((x - 1).pow(2).mean(-1, keepdim=True) + 1), None),
    ],
)  # fmt: skip
def test_a_norm_in_many_operators_becomes_one(
    function: Spelled, expected: list[str] | None
) -> None:
    torch.manual_seed(0)
    model, inputs = _Norm(function).eval(), (3 * torch.randn(4, 5, 6) + 1,)
    network = Network.from_graph(export_graph(model, inputs), inputs)
    found = sorted(filter(None, map(packet, network.graph.graph.nodes)))
    if expected is None:
        assert not {"layer_norm", "rms_norm"} & set(found)
    else:
        assert found == sorted(["linear", *expected])
    torch.testing.assert_close(network(*inputs), model(*inputs), rtol=1e-5, atol=1e-5)
    zero = torch.zeros(1, 5, 6)
    torch.testing.assert_close(network(zero), model(zero), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spread", [3, 40, 3000, 20000])
def test_normalized_integers_are_as_near_as_the_page_says(spread: int) -> None:
    """Also rows whose mean is far from zero, and single rows of one large number."""
    random = np.random.default_rng(spread)
    rows = random.integers(-spread, spread + 1, (40, 7)) + random.integers(-9000, 9000, (40, 1))
    rows[:3] = 0
    rows[1:3, 2] = 1, spread
    source = IntegerTensor("x", (40, 7), 16, True, 1e-3, 0)
    output = IntegerTensor("y", (40, 7), 16, True, 1e-3, 0)
    for centred, eps in ((True, 1e-7), (True, 1e-5), (False, 1e-5)):
        step = normalize(source, Norm(7, eps, centred), np.ones(7), np.zeros(7), 1, output)
        got = step.normal(rows) * 2.0**-18
        apart = rows - rows.mean(1, keepdims=True) * centred
        sigma = np.sqrt(np.square(apart).mean(1, keepdims=True) + eps / 1e-6)
        error = np.abs(got - apart / sigma)
        assert np.all(
            error <= 2.0**-18 + 2.0**-12 / sigma + np.abs(got) * (2.0**-28 + 2.0**-8 / sigma**2)
        )

"""Attention in every spelling becomes products of [N, …] whose rows are those of samples alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from mpsearch.graph.attention import products_apart
from mpsearch.graph.batch_first import batch_first
from mpsearch.graph.exporting import export_graph
from mpsearch.graph.layers import packet
from mpsearch.graph.network import Network
from mpsearch.graph.partial_forward import PartialForward

CAUSAL = torch.ones(6, 6, dtype=torch.bool).tril()


class _Tokens(nn.Module):
    """A function of three projections [N, 6, 8] and the module."""

    def __init__(self, function: Callable[..., torch.Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 3)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.places = nn.Parameter(torch.randn(2, 1, 1, 3))
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.function(self, *self.qkv(x).chunk(3, -1)))
        return result


def _heads(x: torch.Tensor) -> Any:
    return x.unflatten(-1, (2, 4)).transpose(1, 2)


def _fused(m: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **how: Any) -> Any:
    y = functional.scaled_dot_product_attention(_heads(q), _heads(k), _heads(v), **how)
    return y.transpose(1, 2).flatten(2)


def _folded(m: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
    """Heads in the batch, positions first: [6, N·2, 4], then bmm."""
    n = q.shape[0]
    q, k, v = (x.transpose(0, 1).reshape(6, n * 2, 4).transpose(0, 1) for x in (q, k, v))
    scores = torch.baddbmm(torch.zeros(1, 6, 6), q, k.transpose(1, 2), beta=0, alpha=0.5)
    y = scores.masked_fill(~CAUSAL, -torch.inf).softmax(-1).bmm(v)
    return y.transpose(0, 1).reshape(6, n, 8).transpose(0, 1)


def _windows(m: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
    """Two windows of three tokens in the batch, with biases of their own, and a shift."""
    n = q.shape[0]
    q, k, v = (torch.roll(x, 1, 1).reshape(n * 2, 3, 8) for x in (q, k, v))
    scores = torch.einsum("bqd,bkd->bqk", q, k) + m.places[0, 0]
    scores = (scores.view(n, 2, 3, 3) + m.places[:, 0]).view(n * 2, 3, 3)
    y = torch.einsum("bqk,bkd->bqd", scores.softmax(-1), v)
    return torch.roll(y.reshape(n, 6, 8), -1, 1)


def _positions_first(m: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
    q = torch.cat([m.norm(q.transpose(0, 1)), k.transpose(0, 1)], -1)
    return functional.gelu(q).narrow(-1, 2, 8).mean(0) + v.select(1, 0) * torch.arange(8.0)


def _steps(m: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
    """Steps of time that are put together ahead of the samples, and taken apart again."""
    steps = torch.stack([functional.silu(x[:, 0]) for x in (q, k, v)], 0)
    return torch.stack([*steps.unbind(0), steps[-1]], -2) + torch.stack([q, k], 0)[1, :, :4]


def _token(m: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
    """A class token that is repeated for every sample, and a mask that is computed."""
    token = m.token.expand(q.shape[0], -1, -1)
    hidden = torch.arange(7)[None] > torch.arange(7)[:, None]
    q, k, v = (torch.cat([token, x], 1) for x in (q, k, v))
    scores = q @ k.transpose(1, 2)
    return torch.where(hidden, -1e9, scores).softmax(-1) @ v


MODELS: dict[str, tuple[Callable[..., Any], dict[str, nn.Module]]] = {
    "causal": (lambda *a: _fused(*a, is_causal=True, scale=0.3), {}),
    "hidden": (lambda *a: _fused(*a, attn_mask=CAUSAL), {}),
    "biased": (lambda m, *a: _fused(m, *a, attn_mask=m.places[:1].repeat(1, 1, 6, 2)), {}),
    "folded": (_folded, {}),
    "token": (_token, {}),
    "steps": (_steps, {}),
    "positions first": (_positions_first, {"norm": nn.LayerNorm(8)}),
}  # fmt: skip


@pytest.mark.parametrize("name", [*MODELS, "nn.MultiheadAttention"])
def test_samples_lie_in_dimension_0_of_every_tensor(name: str) -> None:
    torch.manual_seed(0)
    if name in MODELS:
        function, layers = MODELS[name]
        model: nn.Module = _Tokens(function, **layers)
    else:
        model = _Tokens(
            lambda m, q, k, v: m.attend(*(x.transpose(0, 1) for x in (q, k, v)))[0].transpose(0, 1),
            attend=nn.MultiheadAttention(8, 2),
        )
    inputs = (torch.randn(3, 6, 8),)
    before = Network.from_graph(export_graph(model.eval(), inputs), inputs).graph
    graph = batch_first(products_apart(before, inputs), inputs)
    assert batch_first(graph, inputs) is graph
    kinds = {packet(node) for node in graph.graph.nodes}
    assert not kinds & {
        "scaled_dot_product_attention", "einsum", "bmm", "baddbmm", "masked_fill", "where",
    }  # fmt: skip
    torch.testing.assert_close(graph(*inputs), before(*inputs), rtol=1e-5, atol=1e-6)
    forward = PartialForward(graph, inputs)
    together, alone = forward.run(inputs), [forward.run([inputs[0][i : i + 1]]) for i in range(3)]
    for node in forward.varying:
        value = together[node]
        if isinstance(value, torch.Tensor):
            rows = torch.cat([values[node] for values in alone])
            torch.testing.assert_close(value, rows, rtol=1e-4, atol=1e-5, msg=node.name)
            assert tuple(node.meta["shape"]) == (1, *value.shape[1:]), node.name


def test_windows() -> None:
    torch.manual_seed(0)
    model, inputs = _Tokens(_windows), (torch.randn(3, 6, 8),)
    before = Network.from_graph(export_graph(model.eval(), inputs), inputs).graph
    graph = batch_first(products_apart(before, inputs), inputs)
    shapes = {
        packet(node): node.meta["shape"] for node in graph.graph.nodes if "shape" in node.meta
    }
    assert shapes["softmax"] == (1, 2, 3, 3)
    assert shapes["matmul"] == (1, 2, 3, 8)
    torch.testing.assert_close(graph(*inputs), before(*inputs), rtol=1e-5, atol=1e-6)

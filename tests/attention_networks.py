"""Small networks of norms and products of two activations: attention, mixers, what goes with it."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from integer_networks import Function
from torch import nn
from torch.nn import functional

from mpsearch.graph.network import Network

TOKENS = (6, 8)


def _heads(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(x.shape[0], -1, 2, 4).transpose(1, 2)


def _projections(width: int = 8) -> dict[str, nn.Module]:
    return {name: nn.Linear(width, width) for name in ("q", "k", "v", "out")}


def _attention(m: Any, x: torch.Tensor) -> Any:
    """Pre-norm attention written out, with a mask and a bias per head; an MLP; a last norm, by
    hand."""
    y = m.norm1(x)
    q, k, v = (_heads(layer(y)) for layer in (m.q, m.k, m.v))
    scores = q @ k.transpose(-2, -1) / math.sqrt(4) + m.bias + m.mask
    y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = x + m.out(y)
    x = x + m.down(functional.gelu(m.up(m.norm2(x))))
    x = x - x.mean(-1, keepdim=True)
    x = x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * m.gain
    return m.head(x.mean(1))


def _fused(m: Any, x: torch.Tensor) -> Any:
    """RMS norms, a class token, positions, fused causal attention, a gated MLP (Llama); cosines of
    two projections; a result of length 1."""
    x = torch.cat([m.token.expand(x.shape[0], -1, -1), x[:, :-1]], 1) + m.places
    y = m.norm1(x)
    q, k, v = (_heads(layer(y)) for layer in (m.q, m.k, m.v))
    y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = x + m.out(y.transpose(1, 2).flatten(2))
    y = m.norm2(x)
    y = m.down(functional.silu(m.gate(y)) * m.up(y))
    a, b = functional.normalize(m.q(y), dim=-1), functional.normalize(m.k(y), dim=-1)
    y = m.head(torch.cat([a @ b.transpose(1, 2), m.v(y)], -1))
    return functional.normalize(y.flatten(1), dim=1)


def _windows(m: Any, x: torch.Tensor) -> Any:
    """Heads and windows in the batch: [N·2·2, 3, 4], products by bmm; then torch's own layer,
    positions first."""
    n = x.shape[0]
    x = x.reshape(n * 2, 3, 8)
    q, k, v = (
        layer(x).reshape(n * 2, 3, 2, 4).transpose(1, 2).reshape(n * 4, 3, 4)
        for layer in (m.q, m.k, m.v)
    )
    y = torch.bmm(torch.bmm(q, k.transpose(1, 2)).mul(0.5).softmax(-1), v)
    y = m.out(y.reshape(n * 2, 2, 3, 4).transpose(1, 2).reshape(n * 2, 3, 8))
    x = m.norm1(x + y).reshape(n, 6, 8)
    y = x.transpose(0, 1)
    y = m.attend(y, y, y, need_weights=False)[0].transpose(0, 1)
    return m.head(m.norm2(x + y))


def _images(m: Any, x: torch.Tensor) -> Any:
    """Group, instance and channels-last norms of images; a norm over all of a sample."""
    x = m.stem(x)
    y = m.groups(x)
    x = x + functional.avg_pool2d(y, 3, 1, 1) - y
    x = m.deep(functional.relu(m.instances(x)))
    y = m.last(x.permute(0, 2, 3, 1))
    x = x + m.point(y).permute(0, 3, 1, 2)
    return m.head(functional.relu(m.whole(x)).mean((2, 3)))


def _blank(layers: Function, **tensors: torch.Tensor) -> Function:
    for name, tensor in tensors.items():
        layers.register_buffer(name, tensor)
    return layers


def _hidden(lowest: float) -> torch.Tensor:
    return torch.full((6, 6), lowest).triu(2)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "attention": (
        lambda: _blank(
            Function(
                _attention, **_projections(), up=nn.Linear(8, 12), down=nn.Linear(12, 8),
                norm1=nn.LayerNorm(8), norm2=nn.LayerNorm(8, bias=False),
                head=nn.Linear(8, 3),
            ),
            bias=torch.randn(2, 1, 6), mask=_hidden(-torch.inf),
            gain=torch.rand(8) + 0.5,
        ),
        TOKENS,
    ),
    "fused": (
        lambda: _blank(
            Function(
                _fused, **_projections(), up=nn.Linear(8, 12), gate=nn.Linear(8, 12, bias=False),
                down=nn.Linear(12, 8), norm1=nn.RMSNorm(8), norm2=nn.RMSNorm((6, 8), eps=1e-6),
                head=nn.Linear(14, 3),
            ),
            places=torch.randn(6, 8), token=torch.randn(1, 1, 8),
        ),
        TOKENS,
    ),
    "windows": (
        lambda: Function(
            _windows, **_projections(), norm1=nn.LayerNorm(8), norm2=nn.LayerNorm((6, 8)),
            attend=nn.MultiheadAttention(8, 2), head=nn.Linear(8, 3),
        ),
        TOKENS,
    ),
    "images": (
        lambda: Function(
            _images, stem=nn.Conv2d(2, 6, 3, padding=1), groups=nn.GroupNorm(1, 6),
            instances=nn.InstanceNorm2d(6, affine=True), deep=nn.Conv2d(6, 4, 1),
            last=nn.LayerNorm(4, eps=1e-6), point=nn.Linear(4, 4), whole=nn.GroupNorm(2, 4),
            head=nn.Linear(4, 3),
        ),
        (2, 5, 4),
    ),
}  # fmt: skip


def build(name: str, samples: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """(model, inputs), seeded; weights and biases of norms are random."""
    factory, shape = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = factory().eval()
        for module in model.modules():
            if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm | nn.InstanceNorm2d):
                for values in module.parameters():
                    nn.init.uniform_(values, 0.5, 1.5)
            if isinstance(module, nn.MultiheadAttention):
                for name, values in module.named_parameters():
                    if "bias" in name:
                        nn.init.uniform_(values, -0.5, 0.5)
        return model, (torch.randn(samples, *shape),)


@cache
def exported(name: str) -> tuple[Network, tuple[torch.Tensor, ...]]:
    """The network and 60 samples: exporting takes longer than what several tests do with it."""
    model, inputs = build(name, 60)
    return Network.from_module(model, inputs), inputs

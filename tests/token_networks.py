"""Small networks over tokens: embedding tables, attention, tensors whose samples move around."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

VOCABULARY, LENGTH = 11, 5


class Bag(nn.Module):
    """One table, read several times per sample; row 0 is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, 6, padding_idx=0)
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.table(tokens).sum(1)))


class Twice(nn.Module):
    """A table for two inputs; its option for training must not touch what is measured."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, 6, scale_grad_by_freq=True)
        self.head = nn.Linear(12, 3)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        pair = torch.cat([self.table(first), self.table(second)], dim=2)
        return self.head(torch.tanh(pair.mean(1)))


class Language(nn.Module):
    """Tokens and positions, torch's encoder with a causal mask, output weight tied to the table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, 8)
        self.positions = nn.Embedding(LENGTH, 8)
        block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(block, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, VOCABULARY)
        self.head.weight = self.table.weight
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.table(tokens) + self.positions(torch.arange(tokens.shape[1]))
        hidden = self.encoder(hidden, mask=self.mask, is_causal=True)
        return self.head(hidden[:, -1])


class Attention(nn.Module):
    """Written by hand: separate projections, matrix products and softmax, or torch's function."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.heads, self.fused = heads, fused

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        samples, length, width = x.shape
        split = (samples, length, self.heads, width // self.heads)
        q, k, v = (f(x).reshape(split).transpose(1, 2) for f in (self.query, self.key, self.value))
        if self.fused:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            scores = q @ k.transpose(2, 3) / split[3] ** 0.5
            mixed = torch.softmax(scores, dim=3) @ v
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


class Vision(nn.Module):
    """Patches, a class token, a parameter for the positions, two pre-norm blocks."""

    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8))
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))
        self.attention = Attention(8, 2, fused)
        self.mlp = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = self.patches(image).flatten(2).transpose(1, 2)
        hidden = (
            torch.cat([self.token.expand(image.shape[0], -1, -1), patches], dim=1) + self.positions
        )
        hidden = hidden + self.attention(self.norms[0](hidden))
        hidden = hidden + self.mlp(self.norms[1](hidden))
        return self.head(self.norms[2](hidden)[:, 0])


class SequenceFirst(nn.Module):
    """torch's attention over [T, N, C], and a convolution over [N·T, C, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, groups=2)
        self.attention = nn.MultiheadAttention(16, 2)
        self.head = nn.Linear(16, 3)

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        frames = torch.tanh(self.conv(video.flatten(0, 1)))
        hidden = frames.reshape(video.shape[0], video.shape[1], -1).transpose(0, 1)
        hidden = hidden + self.attention(hidden, hidden, hidden)[0]
        return self.head(hidden.mean(0))


def _tokens(samples: int) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (samples, LENGTH))


Inputs = tuple[torch.Tensor, ...]
BUILDERS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Inputs], int]] = {
    "bag": (Bag, lambda n: (_tokens(n),), 3),
    "twice": (Twice, lambda n: (_tokens(n), _tokens(n)), 3),
    "language": (Language, lambda n: (_tokens(n),), VOCABULARY),
    "vision": (Vision, lambda n: (torch.randn(n, 3, 8, 8),), 3),
    "vision-fused": (lambda: Vision(fused=True), lambda n: (torch.randn(n, 3, 8, 8),), 3),
    "sequence-first": (SequenceFirst, lambda n: (torch.randn(n, 3, 2, 4, 4),), 3),
}


def build(name: str, samples: int = 6) -> tuple[nn.Module, Inputs, torch.Tensor]:
    """(model in evaluation mode, inputs, labels), seeded."""
    factory, inputs_of, classes = BUILDERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = factory().eval()
        return model, inputs_of(samples), torch.randint(0, classes, (samples,))

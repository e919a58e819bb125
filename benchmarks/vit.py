"""A vision transformer of ViT-S's shape (Touvron et al., DeiT-S, ICML 2021), random weights."""

import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """Queries, keys and values from one projection, torch's fused attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        samples, tokens, width = x.shape
        split = self.qkv(x).reshape(samples, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(samples, tokens, width))
        return out


class Block(nn.Module):
    """Pre-norm: attention, then an MLP of four times the width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        out: torch.Tensor = x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))
        return out


class ViTSmall(nn.Module):
    """Input 3x224x224, patches of 16, width 384, 12 blocks, 6 heads: 22,050,664 parameters."""

    def __init__(self) -> None:
        super().__init__()
        width, patches = 384, (224 // 16) ** 2
        self.patches = nn.Conv2d(3, width, 16, stride=16)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, patches + 1, width))
        self.blocks = nn.Sequential(*(Block(width, 6) for _ in range(12)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = self.patches(image).flatten(2).transpose(1, 2)
        token = self.token.expand(image.shape[0], -1, -1)
        hidden = torch.cat([token, patches], dim=1) + self.positions
        logits: torch.Tensor = self.head(self.norm(self.blocks(hidden))[:, 0])
        return logits

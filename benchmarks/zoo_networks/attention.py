"""Vision and text transformers and their relatives."""

import math

import torch
from torch import nn
from torch.nn import functional

from zoo_networks.network import ZooNetwork, floats, indices

IMAGE = floats((3, 32, 32))


class Attention(nn.Module):
    """Multi-head self-attention, its products written out; `bias` is added to the scores."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(c // self.heads)
        if bias is not None:
            scores = scores + bias
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, c))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        x = x + self.attention(self.norm1(x), bias)
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class TinyViT(nn.Module):
    """Patches, a class token, learned positions, two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 24) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 17, 24) * 0.02)
        self.blocks = nn.ModuleList(Block(24, 3) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat((self.token.expand(len(x), -1, -1), y), 1) + self.positions
        for block in self.blocks:
            y = block(y)
        return self.head(self.norm(y)[:, 0])


class Window(nn.Module):
    """Shifted windows with relative position biases (Swin)."""

    index: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.block = nn.Conv2d(3, 16, 4, 4), Block(16, 2)
        self.table = nn.Parameter(torch.randn(49, 2) * 0.02)
        places = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"))
        apart = places.flatten(1)[:, :, None] - places.flatten(1)[:, None] + 3
        self.register_buffer("index", apart[0] * 7 + apart[1])
        self.merge, self.norm = nn.Linear(64, 32, bias=False), nn.LayerNorm(64)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.roll(self.patches(x).permute(0, 2, 3, 1), (-2, -2), (1, 2))
        n = y.shape[0]
        y = y.reshape(n, 2, 4, 2, 4, 16).transpose(2, 3).reshape(n * 4, 16, 16)
        bias = self.table[self.index.reshape(-1)].reshape(16, 16, 2).permute(2, 0, 1)
        y = self.block(y, bias).reshape(n, 2, 2, 4, 4, 16).transpose(2, 3).reshape(n, 8, 8, 16)
        y = torch.roll(y, (2, 2), (1, 2))
        y = torch.cat([y[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        return self.head(self.merge(self.norm(y)).mean((1, 2)))


class ConvNeXt(nn.Module):
    """Depthwise 7x7, norm over channels last, inverted bottleneck, learned scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth = nn.Conv2d(3, 16, 4, 4), nn.Conv2d(16, 16, 7, padding=3, groups=16)
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.scale, self.head = nn.Parameter(torch.full((16,), 0.5)), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(functional.gelu(self.up(y)))
        return self.head((x + y.permute(0, 3, 1, 2)).mean((-2, -1)))


class Mixer(nn.Module):
    """MLPs over places and over channels (MLP-Mixer)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm1, self.norm2 = (
            nn.Conv2d(3, 16, 8, 8), nn.LayerNorm(16), nn.LayerNorm(16),
        )  # fmt: skip
        self.places = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
        self.channels = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = y + self.places(self.norm1(y).transpose(1, 2)).transpose(1, 2)
        return self.head((y + self.channels(self.norm2(y))).mean(1))


class PoolFormer(nn.Module):
    """Pooling in place of attention, group norm of one group."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool = nn.Conv2d(3, 16, 7, 4, 3), nn.AvgPool2d(3, 1, 1)
        self.norm1, self.norm2 = nn.GroupNorm(1, 16), nn.GroupNorm(1, 16)
        self.up, self.down, self.head = (
            nn.Conv2d(16, 32, 1), nn.Conv2d(32, 16, 1), nn.Linear(16, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.norm1(x)
        x = x + self.pool(y) - y
        x = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return self.head(x.mean((2, 3)))


class MobileViT(nn.Module):
    """Convolutions around attention over unfolded patches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.local = nn.Conv2d(3, 16, 3, 4, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.block, self.fuse = Block(16, 2), nn.Conv2d(32, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.silu(self.stem(x))
        y = functional.silu(self.local(x))
        n, c, h, w = y.shape
        y = y.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 2, 4, 1).reshape(n * 4, -1, c)
        y = self.block(y).reshape(n, 2, 2, h // 2, w // 2, c).permute(0, 5, 3, 1, 4, 2)
        y = self.fuse(torch.cat((x, y.reshape(n, c, h, w)), 1))
        return self.head(functional.silu(y).mean((2, 3)))


class Encoder(nn.Module):
    """Words, positions and segments, a mask of padding, post-norm blocks, a pooler (BERT)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(60, 16, padding_idx=0), nn.Embedding(12, 16)
        self.norm, self.attention = nn.LayerNorm(16), Attention(16, 2)
        self.up, self.down, self.norm1, self.norm2 = (
            nn.Linear(16, 32), nn.Linear(32, 16), nn.LayerNorm(16), nn.LayerNorm(16),
        )  # fmt: skip
        self.pooler, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y = self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        y = self.norm(y)
        mask = (1.0 - (ids != 0)[:, None, None].to(y.dtype)) * -1e4
        y = self.norm1(y + self.attention(y, mask))
        y = self.norm2(y + self.down(functional.gelu(self.up(y))))
        return self.head(torch.tanh(self.pooler(y[:, 0])))


class Decoder(nn.Module):
    """Causal blocks; the table of words is also the last layer (GPT-2)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(40, 16), nn.Embedding(12, 16)
        self.blocks = nn.ModuleList(Block(16, 2) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 40, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        t = ids.shape[1]
        y = self.words(ids) + self.places.weight[:t]
        mask = torch.full((t, t), -1e4).triu(1)
        for block in self.blocks:
            y = block(y, mask)
        return self.head(self.norm(y))


class Rotary(nn.Module):
    """RMS norm, rotary positions, fused attention, gated MLP (Llama)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 16)
        self.norm1, self.norm2, self.norm3 = (nn.RMSNorm(16, eps=1e-6) for _ in range(3))
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16, bias=False) for _ in range(4))
        self.gate, self.up, self.down = (
            nn.Linear(16, 32, bias=False), nn.Linear(16, 32, bias=False),
            nn.Linear(32, 16, bias=False),
        )  # fmt: skip
        self.head = nn.Linear(16, 40, bias=False)

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        frequencies = 1e4 ** (-torch.arange(0, 8, 2).float() / 8)
        angles = torch.outer(torch.arange(x.shape[2]).float(), frequencies)
        angles = torch.cat((angles, angles), -1)
        a, b = x.chunk(2, -1)
        return x * angles.cos() + torch.cat((-b, a), -1) * angles.sin()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y = self.words(ids)
        z = self.norm1(y)
        q, k, v = (
            layer(z).unflatten(-1, (2, 8)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        z = functional.scaled_dot_product_attention(
            self.turned(q), self.turned(k), v, is_causal=True
        )
        y = y + self.o(z.transpose(1, 2).flatten(2))
        z = self.norm2(y)
        y = y + self.down(functional.silu(self.gate(z)) * self.up(z))
        return self.head(self.norm3(y))


class Relative(nn.Module):
    """Relative position buckets, RMS norm by hand, a shared block run twice (T5, ALBERT)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.buckets = nn.Embedding(40, 16), nn.Embedding(8, 2)
        self.attention, self.up, self.down = (
            Attention(16, 2), nn.Linear(16, 32, bias=False), nn.Linear(32, 16, bias=False),
        )  # fmt: skip
        self.gain, self.head = nn.Parameter(torch.ones(16)), nn.Linear(16, 4)

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
        return self.gain * (x * torch.rsqrt(variance + 1e-6))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        places = torch.arange(ids.shape[1])
        apart = (places[None] - places[:, None]).abs()
        near = apart < 4
        far = 4 + (torch.log(apart.float().clamp(min=1) / 4).clamp(min=0) * 2).long().clamp(max=3)
        bias = self.buckets(torch.where(near, apart, far)).permute(2, 0, 1)[None]
        y = self.words(ids)
        for _ in range(2):
            y = y + self.attention(self.norm(y), bias)
            y = y + self.down(torch.relu(self.up(self.norm(y))))
        return self.head(self.norm(y).mean(1))


class TextCnn(nn.Module):
    """Embedding, three convolutions side by side, maxima over time (Kim 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(60, 16)
        self.convs = nn.ModuleList(nn.Conv1d(16, 12, k) for k in (2, 3, 4))
        self.head = nn.Linear(36, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y = self.words(ids).transpose(1, 2)
        return self.head(torch.cat([torch.relu(c(y)).max(-1)[0] for c in self.convs], 1))


VISION, TEXT = "vision transformer", "text"
NETWORKS = (
    ZooNetwork(VISION, "vit", TinyViT, IMAGE, 10, "patches + 2 x (qkv, out, up, down) + head"),
    ZooNetwork(VISION, "swin", Window, IMAGE, 7, "patches + 4 + merge + head"),
    ZooNetwork(VISION, "convnext", ConvNeXt, IMAGE, 5, "stem, depth, up, down, head"),
    ZooNetwork(VISION, "mlp_mixer", Mixer, IMAGE, 6, "patches + 2 + 2 + head"),
    ZooNetwork(VISION, "poolformer", PoolFormer, IMAGE, 4, "stem, up, down, head"),
    ZooNetwork(VISION, "mobilevit", MobileViT, IMAGE, 8, "2 + 4 + fuse + head"),
    ZooNetwork(TEXT, "bert", Encoder, indices(60, 10), 8, "2 tables, qkv, out, 2, pooler, head"),
    ZooNetwork(TEXT, "gpt2", Decoder, indices(40, 10), 9, "table = head, 2 x 4"),
    ZooNetwork(TEXT, "llama", Rotary, indices(40, 10), 9, "words + 4 + 3 + head"),
    ZooNetwork(TEXT, "t5_shared", Relative, indices(40, 10), 7, "2 tables + 4 + head"),
    ZooNetwork(TEXT, "text_cnn", TextCnn, indices(60, 12), 5, "words + 3 + head"),
)

"""What loads can be saved and comes back the same: families of networks, built from configuration.

Each uses what torch.export makes of its kind: positions and grids (arange, meshgrid), masks of
flags, windows and spectra (stft, complex numbers), relative positions, sampling by coordinates, and
weights that are computed from parameters.
"""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

from mpsearch.graph.graph_json import unstorable
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import load, save


class Encoder(nn.Module):
    """BERT: positions from arange, a mask made of comparisons joined by & and |, in every width."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 16), nn.Embedding(8, 16)
        self.qkv, self.out, self.norm = nn.Linear(16, 48), nn.Linear(16, 16), nn.LayerNorm(16)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.words(words) + self.places(torch.arange(words.shape[1])))
        near = (torch.arange(8)[:, None] - torch.arange(8)).abs().to(torch.float64) < 6
        mask = (near & (words != 0)[:, None, :]) | torch.eye(8, dtype=torch.bool)
        floats = (~mask).to(x.dtype) * torch.finfo(x.dtype).min
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = torch.baddbmm(floats, q, k.transpose(1, 2), beta=1, alpha=0.25)
        x = x + self.out(torch.softmax(scores.float(), -1).type_as(x) @ v)
        return x[:, 0]


class Decoder(nn.Module):
    """Llama: RMS norms in float32, rotary positions, a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.qkv, self.head = nn.Embedding(20, 16), nn.Linear(16, 48), nn.Linear(16, 20)
        self.gain = nn.Parameter(torch.ones(16))

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.words(words)
        wide = x.to(torch.float32)
        x = self.gain * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)
        rates = 1.0 / (10000 ** (torch.arange(0, 16, 2).float() / 16))
        angles = torch.outer(torch.arange(words.shape[1]).float(), rates).repeat(1, 2)
        q, k, v = self.qkv(x).split(16, -1)
        turned = [
            y * angles.cos() + torch.cat((-y[..., 8:], y[..., :8]), -1) * angles.sin()
            for y in (q, k)
        ]
        causal = torch.full((8, 8), -math.inf).triu(1)
        x = torch.softmax(turned[0] @ turned[1].mT + causal, -1) @ v
        return self.head(x[:, -1])


class Boxes(nn.Module):
    """A YOLO head: grids of cells, sizes of anchors, sigmoids, distributions of distances."""

    anchors: torch.Tensor
    steps: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 3 * 7, 1)
        self.register_buffer("anchors", torch.rand(3, 2))
        self.register_buffer("steps", torch.arange(4.0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        y = self.head(functional.silu(self.first(image)))
        n, _, height, width = y.shape
        y = y.view(n, 3, 7, height, width).permute(0, 1, 3, 4, 2).contiguous()
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        grid = torch.stack((columns, rows), 2).to(y.dtype).view(1, 1, height, width, 2)
        centre, size, rest = y.sigmoid().split((2, 2, 3), 4)
        size = (size * 2) ** 2 * self.anchors.view(1, 3, 1, 1, 2)
        sides = functional.linear(torch.softmax(y[..., :4], -1), self.steps[None])
        return torch.cat(((centre * 2 - 0.5 + grid) * 8, size, rest, sides), 4).view(n, -1, 8)


class Sound(nn.Module):
    """Whisper's front end: a spectrum, mel bands, log10, no further below the loudest than 8."""

    bands: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bands", torch.rand(6, 17))
        self.conv = nn.Conv1d(6, 4, 3)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(wave, 32, 8, window=torch.hann_window(32), return_complex=True)
        power = torch.abs(spectrum[..., :-1]) ** 2
        levels = torch.clamp(self.bands @ power, min=1e-10).log10()
        levels = torch.maximum(levels, levels.amax((1, 2), keepdim=True) - 8.0)
        frames = torch.diff(levels, dim=-1)
        frames = frames.unfold(2, 4, 4).flatten(2)
        return self.conv((frames + 4.0) / 4.0).mean(-1)


class Filter(nn.Module):
    """DeepFilterNet: a mask of complex numbers, a convolution of two real ones, back to sound."""

    def __init__(self) -> None:
        super().__init__()
        self.real, self.imaginary = nn.Conv1d(17, 17, 1), nn.Parameter(torch.randn(17, 17, 1))

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        window = torch.hamming_window(32)
        spectrum = torch.stft(wave, 32, 8, window=window, return_complex=True)
        weight = torch.cat((self.real.weight, -self.imaginary), 1)
        pairs = torch.cat((spectrum.real, spectrum.imag), 1)
        mask = torch.complex(functional.conv1d(pairs, weight), self.real(spectrum.angle()))
        mask = torch.view_as_complex(torch.view_as_real(mask * 1j).tanh().contiguous())
        again = torch.istft(spectrum * mask.conj(), 32, 8, window=window, length=128)
        return again + torch.fft.irfft(torch.fft.rfft(again), 128)


class Windows(nn.Module):
    """Swin: windows by roll and reshape, a bias by relative position, a mask of shifted windows."""

    index: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.qkv, self.head = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 24), nn.Linear(8, 4)
        self.table = nn.Parameter(torch.randn(9, 1))
        places = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij"))
        places = places.flatten(1)
        distance = places[:, :, None] - places[:, None, :] + 1
        self.register_buffer("index", distance[0] * 3 + distance[1])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).permute(0, 2, 3, 1)
        x = torch.roll(x, (-1, -1), (1, 2))
        regions = torch.zeros(1, 4, 4)
        regions[:, -1:, :] = 1
        regions[:, :, -1:] += 2
        regions = regions.view(1, 2, 2, 2, 2).transpose(2, 3).reshape(4, 4)
        mask = (regions[:, None] - regions[:, :, None]).ne(0) * -100.0
        n = x.shape[0]
        x = x.view(n, 2, 2, 2, 2, 8).transpose(2, 3).reshape(-1, 4, 8)
        q, k, v = self.qkv(x).chunk(3, -1)
        bias = self.table[self.index.view(-1)].view(4, 4)
        scores = (q @ k.transpose(1, 2) + bias).view(n, 4, 4, 4) + mask
        x = torch.softmax(scores.view(-1, 4, 4), -1) @ v
        x = x.view(n, 2, 2, 2, 2, 8).transpose(2, 3).reshape(n, 4, 4, 8)
        return self.head(torch.roll(x, (1, 1), (1, 2)).mean((1, 2)))


class Sampler(nn.Module):
    """A U-Net whose image is first turned by what a small network says of it."""

    def __init__(self) -> None:
        super().__init__()
        self.where, self.down = nn.Linear(3, 6), nn.Conv2d(3, 6, 3, 2, 1)
        self.middle, self.up = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(15, 2, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        theta = self.where(image.mean((2, 3))).view(-1, 2, 3)
        turned = functional.grid_sample(
            image, functional.affine_grid(theta, list(image.shape), align_corners=False)
        )
        half = torch.celu(self.down(turned))
        half = functional.local_response_norm(self.middle(half), 3)
        twice = functional.interpolate(half, scale_factor=2, mode="bilinear", align_corners=True)
        near = functional.interpolate(half, size=(8, 8), mode="nearest-exact")
        return self.up(torch.cat((turned, twice, near), 1))


class Computed(nn.Module):
    """Weights that follow from parameters, in all the ways that are around."""

    def __init__(self) -> None:
        super().__init__()
        self.spectral = parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))
        self.weight_norm = parametrizations.weight_norm(nn.Conv2d(4, 4, 3))
        self.orthogonal = parametrizations.orthogonal(nn.Linear(4, 4))
        self.pruned = prune.l1_unstructured(nn.Linear(4, 4), "weight", amount=0.3)
        self.standard, self.scaled = nn.Conv2d(4, 4, 1), nn.Linear(4, 4)
        self.block = nn.ModuleDict({"inner": nn.Linear(4, 4), "ternary": nn.Linear(4, 4)})
        parametrize.register_parametrization(self.block["ternary"], "weight", Ternary())
        self.low, self.high = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.randn(2, 3))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.weight_norm(torch.relu(self.spectral(image)))
        weight = self.standard.weight
        weight = functional.batch_norm(
            weight.reshape(1, 4, -1), None, None, training=True, momentum=0.0, eps=1e-6
        ).reshape_as(weight)
        x = functional.conv2d(torch.relu(x), weight, self.standard.bias).mean((2, 3))
        x = self.pruned(torch.relu(self.orthogonal(x)))
        x = torch.relu(functional.linear(x, self.scaled.weight * 4**-0.5, self.scaled.bias))
        weight = torch.einsum("oi,ij->oj", self.block["inner"].weight, torch.eye(4) * 2)
        return self.block["ternary"](functional.linear(x, weight)) @ (self.low @ self.high)


class Ternary(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        large = weight.abs() > 0.7 * weight.abs().mean()
        return torch.where(large, weight.sign() * weight.abs().mean(), torch.zeros_like(weight))


class Arithmetic(nn.Module):
    """What is rarer, each between layers; and what was never written to before it is filled."""

    edges: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pair, self.last = nn.Linear(6, 6), nn.Bilinear(6, 6, 6), nn.Linear(6, 3)
        self.register_buffer("edges", torch.linspace(-1, 1, 5))
        self.dropout = nn.Sequential(nn.AlphaDropout(), nn.FeatureAlphaDropout(), nn.RReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        y = torch.addcmul(y, x, y.erfc(), value=0.5) + torch.lerp(x, y, 0.3) + torch.hypot(x, y)
        y = y + torch.atan2(x, y).nan_to_num() + torch.logaddexp(x, y) + torch.sinc(x).expm1()
        order = torch.argsort(y, dim=1)
        y = torch.gather(y, 1, order) + torch.bucketize(y, self.edges) + y.sort(1, True)[0]
        y = y + functional.one_hot(y.argmax(1), 6) + torch.cumprod(y.frac(), 1) + y.trunc()
        spread, mean = torch.var_mean(y, 1, keepdim=True)
        y = (y - mean) / (spread + 1e-5).sqrt() + torch.cdist(y[:, None], y[:, None]).flatten(1)
        y = y + functional.normalize(y) + functional.cosine_similarity(x, y)[:, None]
        y = functional.softshrink(functional.hardshrink(y), 0.1) + functional.logsigmoid(y)
        filled = torch.empty(x.shape[0], 6)
        filled[:, 0] = y[:, 1]
        filled[:, 1:] = 2.0
        places = torch.where(y > 0, 1, 0) ^ torch.isfinite(y)
        y = filled.scatter_add(1, places, y) + self.dropout(y)
        patches = functional.unfold(y.view(-1, 1, 2, 3), 2, padding=1)
        y = y + functional.fold(patches, (2, 3), 2, padding=1).flatten(1)
        return self.last(self.pair(y, x))


WORDS, IMAGE = (8,), (3, 8, 8)
FAMILIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "encoder": (Encoder, WORDS, ["words", "places", "qkv", "out"]),
    "decoder": (Decoder, WORDS, ["words", "qkv", "head"]),
    "boxes": (Boxes, IMAGE, ["first", "head", "steps"]),
    "sound": (Sound, (128,), ["conv"]),
    "filter": (Filter, (128,), ["real.weight_1", "real"]),
    "windows": (Windows, IMAGE, ["patches", "qkv", "head"]),
    "sampler": (Sampler, IMAGE, ["where", "down", "middle", "up"]),
    "computed": (
        Computed, IMAGE,
        ["spectral", "weight_norm", "standard", "orthogonal", "pruned", "scaled", "block.inner",
         "block.ternary", "low"],
    ),
    "arithmetic": (Arithmetic, (6,), ["first", "last"]),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_what_loads_comes_back_from_a_file_as_it_was(family: str, tmp_path: Path) -> None:
    factory, shape, layers = FAMILIES[family]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = factory().eval()
        x = torch.randint(0, 20, (3, *shape)) if shape == WORDS else torch.randn(3, *shape)
    network = Network.from_module(model, (x,))
    assert [layer.name for layer in network.layers] == layers
    assert not unstorable(network.graph)
    with torch.no_grad():
        torch.testing.assert_close(network(x), model(x), rtol=1e-4, atol=1e-4)
    save(model, tmp_path / "model.pt", (x,))
    again = load(tmp_path / "model.pt").network
    assert again.digest == network.digest
    for samples in (x[:1], x):
        assert torch.equal(again(samples), network(samples))

"""Keyword spotting, raw audio, spectrograms inside of the network, enhancement."""

import math

import torch
from torch import nn
from torch.nn import functional

from zoo_networks.network import ZooNetwork, conv, floats


def ds_cnn() -> nn.Module:
    parts: list[nn.Module] = [
        nn.Conv2d(1, 16, (10, 4), (2, 2), (5, 1)), nn.BatchNorm2d(16), nn.ReLU(),
    ]  # fmt: skip
    for _ in range(2):
        parts += [conv(16, 16, 3, 1, 16, nn.ReLU()), conv(16, 16, 1, activation=nn.ReLU())]
    return nn.Sequential(*parts, nn.AvgPool2d((25, 5)), nn.Flatten(), nn.Linear(16, 12))


class TimeBlock(nn.Module):
    """TC-ResNet's block: one-dimensional, the shortcut strided."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.one = nn.Conv1d(inputs, outputs, 9, 2, 4, bias=False)
        self.two = nn.Conv1d(outputs, outputs, 9, 1, 4, bias=False)
        self.short = nn.Conv1d(inputs, outputs, 1, 2, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm1d(outputs) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norms[0](self.one(x)))
        y = self.norms[1](self.two(y))
        return torch.relu(y + torch.relu(self.norms[2](self.short(x))))


def tc_resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(40, 16, 3, padding=1, bias=False), TimeBlock(16, 24), TimeBlock(24, 32),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 12),
    )  # fmt: skip


def m5() -> nn.Module:
    parts: list[nn.Module] = []
    for i, o, k, s in ((1, 16, 80, 16), (16, 16, 3, 1), (16, 32, 3, 1)):
        parts += [nn.Conv1d(i, o, k, s), nn.BatchNorm1d(o), nn.ReLU(), nn.MaxPool1d(2)]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 10))


class Matchbox(nn.Module):
    """Separable one-dimensional convolutions, a residual, a 1x1 (MatchboxNet, QuartzNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(32, 32, 11, 2, 5)
        self.depth = nn.Conv1d(32, 32, 13, padding=6, groups=32)
        self.point = nn.Conv1d(32, 32, 1)
        self.norm = nn.BatchNorm1d(32)
        self.last = nn.Conv1d(32, 12, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        y = torch.relu(self.norm(self.point(self.depth(x))) + x)
        return self.last(y).mean(-1)


class BroadcastedResidual(nn.Module):
    """BC-ResNet's block: means over frequency, a temporal convolution, broadcast back."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(1, 8, 3, 2, activation=nn.ReLU())
        self.frequency = nn.Conv2d(8, 8, (3, 1), padding=(1, 0), groups=8)
        self.time = nn.Conv2d(8, 8, (1, 3), padding=(0, 1), groups=8)
        self.point, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 12, 1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.norm(self.frequency(x))
        means = y.mean(2, keepdim=True)
        z = self.point(functional.silu(self.time(means)))
        return self.last(torch.relu(x + y + z).mean((2, 3), keepdim=True)).flatten(1)


class LogMel(nn.Module):
    """Short-time Fourier transform, mel filters, logarithm clamped below its maximum (Whisper)."""

    window: torch.Tensor
    filters: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        self.register_buffer("filters", torch.rand(16, 33) / 33)
        self.one, self.two = nn.Conv1d(16, 24, 3, padding=1), nn.Conv1d(24, 24, 3, 2, 1)
        self.head = nn.Linear(24, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(x, 64, 32, window=self.window, return_complex=True)
        power = spectrum[..., :-1].abs() ** 2
        mel = torch.clamp(self.filters @ power, min=1e-10).log10()
        mel = torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8.0)
        y = functional.gelu(self.one((mel + 4.0) / 4.0))
        return self.head(functional.gelu(self.two(y)).mean(-1))


class WaveFrontEnd(nn.Module):
    """wav2vec 2.0's feature extractor and one attention layer with its convolutional positions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv1d(1, 16, 10, 5, bias=False), nn.Conv1d(16, 16, 3, 2)
        self.norm, self.norm2 = nn.GroupNorm(16, 16), nn.LayerNorm(16)
        self.positions = nn.utils.parametrizations.weight_norm(
            nn.Conv1d(16, 16, 8, padding=4, groups=4), dim=2
        )
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.gelu(self.norm(self.one(x)))
        y = self.norm2(functional.gelu(self.two(y)).transpose(1, 2))
        p = functional.gelu(self.positions(y.transpose(1, 2))[..., :-1]).transpose(1, 2)
        return self.head(self.encoder(y + p))


class Enhancer(nn.Module):
    """A mask for a spectrogram: complex convolution, gate, transposed convolution (DCCRN)."""

    def __init__(self) -> None:
        super().__init__()
        scale = 1 / math.sqrt(12)
        self.real = nn.Parameter(torch.randn(4, 2, 3, 3) * scale)
        self.imag = nn.Parameter(torch.randn(4, 2, 3, 3) * scale)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 3, (2, 1), 1, (1, 0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch.cat(
            [
                torch.cat([self.real, -self.imag], 1),
                torch.cat([self.imag, self.real], 1),
            ]
        )
        y = functional.conv2d(x, weight, stride=(2, 1), padding=1)
        y = functional.leaky_relu(y + self.inner(y), 0.2)
        return x * torch.tanh(self.up(y))


FAMILY = "audio"
NETWORKS = (
    ZooNetwork(FAMILY, "ds_cnn", ds_cnn, floats((1, 49, 10)), 6, "stem + 2 x 2 + head"),
    ZooNetwork(FAMILY, "tc_resnet", tc_resnet, floats((40, 50)), 8, "stem + 2 x 3 + head"),
    ZooNetwork(FAMILY, "m5_raw_audio", m5, floats((1, 2000)), 4, "3 + head"),
    ZooNetwork(FAMILY, "matchboxnet", Matchbox, floats((32, 64)), 4, "stem + 2 + last"),
    ZooNetwork(FAMILY, "bc_resnet", BroadcastedResidual, floats((1, 40, 50)), 5, "stem + 3 + last"),
    ZooNetwork(FAMILY, "log_mel_inside", LogMel, floats((1024,)), 4, "filters, 2, head"),
    ZooNetwork(
        FAMILY, "wav2vec2", WaveFrontEnd, floats((1, 800)), 8, "2 + positions + qkv, out, 2 + head"
    ),
    ZooNetwork(FAMILY, "complex_enhancer", Enhancer, floats((4, 32, 20)), 3, "complex, inner, up"),
)

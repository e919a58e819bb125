"""The networks of `benchmarks/import.py`, with their layers counted by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from resnet50 import ResNet50
from torch import nn
from torch.nn import functional

from mpsearch.importers.loading import ModelSource
from mpsearch.models.registry import architecture, build

Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Written:
    """A file, how it is loaded, and what its own framework computes for the inputs."""

    source: ModelSource
    inputs: Inputs
    expected: torch.Tensor
    macs: int
    layers: int
    finish: Callable[[torch.Tensor], torch.Tensor] | None = None  # what an import leaves out


@dataclass(frozen=True)
class Subject:
    """A network, its inputs, and what a person counts in its definition.

    `recurrent_macs`: MACs of an LSTM's matrices by hand, which torch's counter does not see.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]
    layers: int
    layers_by_hand: str
    recurrent_macs: int = 0
    large: bool = False


class SqueezeExcite(nn.Module):
    """Channels scaled by a small network of their means (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = functional.adaptive_avg_pool2d(x, 1)
        return x * functional.hardsigmoid(self.expand(functional.relu(self.reduce(means))))


class MobileBlock(nn.Module):
    """Expansion, depthwise convolution, squeeze-excite, projection (Howard et al., ICCV 2019)."""

    def __init__(self, channels: int, activation: type[nn.Module]) -> None:
        super().__init__()
        wide = 4 * channels
        self.expand = nn.Sequential(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide))
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide)
        )
        self.squeeze = SqueezeExcite(wide)
        self.project = nn.Sequential(
            nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels)
        )
        self.activation = activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.activation(self.depthwise(self.activation(self.expand(x))))
        projected: torch.Tensor = self.project(self.squeeze(hidden))
        return x + projected


class Mobile(nn.Module):
    """Two mobile blocks, one with ReLU6 and one with hard-swish."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(MobileBlock(16, nn.ReLU6), MobileBlock(16, nn.Hardswish))
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.blocks(functional.hardswish(self.stem(x))).mean(dim=(2, 3))
        logits: torch.Tensor = self.head(hidden)
        return logits


class Sound(nn.Module):
    """A 1-d CNN over raw sound."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(1, 16, 80, stride=4), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(4),
            nn.Conv1d(16, 32, 3), nn.BatchNorm1d(32), nn.ReLU(), nn.MaxPool1d(4),
        )  # fmt: skip
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(x).mean(dim=2))
        return logits


class Recurrent(nn.Module):
    """An embedding, two bidirectional recurrent layers and a head on the mean of the steps."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 12)
        self.recurrent = kind(12, 16, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(32, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        steps, _ = self.recurrent(self.words(tokens))
        logits: torch.Tensor = self.head(steps.mean(dim=1))
        return logits


class Encoder(nn.Module):
    """A transformer encoder over tokens with a learned position table."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 32)
        self.positions = nn.Parameter(0.1 * torch.randn(10, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(self.words(tokens) + self.positions)
        logits: torch.Tensor = self.head(hidden.mean(dim=1))
        return logits


def _images(*shape: int) -> Callable[[], Inputs]:
    return lambda: (torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)),)


def _tokens() -> Inputs:
    return (torch.randint(0, 50, (2, 10), generator=torch.Generator().manual_seed(0)),)


def _bundled(name: str) -> tuple[Callable[[], nn.Module], Callable[[], Inputs]]:
    def inputs() -> Inputs:
        random = torch.Generator().manual_seed(0)
        shapes = architecture(name).inputs.values()
        return tuple(torch.randn(2, *shape, generator=random) for shape in shapes)

    return lambda: build(name), inputs


def _lstm_macs() -> int:
    """MACs of `Recurrent(nn.LSTM)`: per step and direction 4H(I + H), I = 12 and then 2 x 16."""
    return 10 * 2 * (4 * 16 * (12 + 16) + 4 * 16 * (32 + 16))


SUBJECTS = (
    Subject("tinym2net-battlefield", *_bundled("tinym2net-battlefield"), 14,
            "2 x (conv + 2 separable + dense) + 2"),
    Subject("tinym2net-covid", *_bundled("tinym2net-covid"), 15,
            "2 x (conv + 2 separable + dense) + 3"),
    Subject("resnet8", *_bundled("resnet8"), 10, "1 + 3 x 2 + 2 shortcuts + 1"),
    Subject("resnet20", *_bundled("resnet20"), 20, "1 + 9 x 2 + 1"),
    Subject("mobile", Mobile, _images(3, 32, 32), 12, "1 + 2 x 5 + 1"),
    Subject("sound-1d", Sound, _images(1, 2000), 3, "2 + 1"),
    Subject("lstm", lambda: Recurrent(nn.LSTM), _tokens, 10, "table + 2 x 2 x 2 + 1", _lstm_macs()),
    Subject("gru", lambda: Recurrent(nn.GRU), _tokens, 10, "table + 2 x 2 x 2 + 1"),
    Subject("encoder", Encoder, _tokens, 10, "table + 2 x 4 + 1"),
    Subject("resnet50", ResNet50, _images(3, 224, 224), 54, "1 + 16 x 3 + 4 + 1", large=True),
)  # fmt: skip


def made(subject: Subject) -> nn.Module:
    """The network with seeded weights, no two tensors alike, in evaluation mode.

    nn.TransformerEncoder starts with copies of one layer, which exporters store once.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = subject.make().eval()
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return model

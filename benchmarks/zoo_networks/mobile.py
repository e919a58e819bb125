"""Mobile image classifiers: depthwise convolutions, squeeze-excite, channel shuffle."""

import torch
from torch import nn

from zoo_networks.network import ZooNetwork, conv, floats

IMAGE = floats((3, 32, 32))


class Pooled(nn.Module):
    """Features, their means, a classifier."""

    def __init__(self, features: nn.Module, channels: int, classes: int = 10) -> None:
        super().__init__()
        self.features, self.head = features, nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.features(x).mean((2, 3)))
        return y


class Inverted(nn.Module):
    """Expansion, depthwise, squeeze-excite, projection (MobileNetV2, V3, EfficientNet)."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, act: type[nn.Module], gate: nn.Module | None
    ) -> None:
        super().__init__()
        wide = 4 * inputs
        self.expand = conv(inputs, wide, 1, activation=act())
        self.depthwise = conv(wide, wide, 3, stride, wide, act())
        self.gate = gate
        if gate is not None:
            self.reduce, self.restore = nn.Conv2d(wide, 8, 1), nn.Conv2d(8, wide, 1)
            self.act = act()
        self.project = conv(wide, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(self.expand(x))
        if self.gate is not None:
            means = nn.functional.adaptive_avg_pool2d(y, 1)
            y = y * self.gate(self.restore(self.act(self.reduce(means))))
        y = self.project(y)
        return x + y if self.residual else y


def inverted(act: type[nn.Module], gate: type[nn.Module] | None) -> nn.Module:
    """Stem, three blocks, last convolution."""
    blocks = [
        Inverted(i, o, s, act, None if gate is None else gate())
        for i, o, s in ((8, 8, 1), (8, 16, 2), (16, 16, 1))
    ]
    return Pooled(
        nn.Sequential(conv(3, 8, 3, 2, 1, act()), *blocks, conv(16, 32, 1, activation=act())), 32
    )


def mobilenet_v1() -> nn.Module:
    parts: list[nn.Module] = [conv(3, 8, 3, 2, activation=nn.ReLU())]
    for i, o, s in ((8, 16, 1), (16, 32, 2), (32, 32, 1)):
        parts += [conv(i, i, 3, s, i, nn.ReLU()), conv(i, o, 1, activation=nn.ReLU())]
    return Pooled(nn.Sequential(*parts), 32)


class Shuffle(nn.Module):
    """ShuffleNetV2's unit: half of the channels pass, then they are mixed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv(half, half, 1, activation=nn.ReLU()),
            conv(half, half, 3, 1, half),
            conv(half, half, 1, activation=nn.ReLU()),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, changed = x.chunk(2, 1)
        y = torch.cat((kept, self.branch(changed)), 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet() -> nn.Module:
    return Pooled(
        nn.Sequential(
            conv(3, 16, 3, 2, activation=nn.ReLU()), Shuffle(16), nn.ChannelShuffle(4), Shuffle(16)
        ),
        16,
    )


class Fire(nn.Module):
    """SqueezeNet's module: a narrow layer, two wide ones side by side."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.one = nn.Conv2d(squeezed, expanded, 1)
        self.three = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.squeeze(x))
        return torch.cat((torch.relu(self.one(y)), torch.relu(self.three(y))), 1)


def squeezenet() -> nn.Module:
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    stem = [nn.Conv2d(3, 16, 3, 2), nn.ReLU(), pool]
    return nn.Sequential(
        *stem, Fire(16, 8, 16), Fire(32, 8, 16), nn.Conv2d(32, 10, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class Ghost(nn.Module):
    """GhostNet's module: half of the features by a cheap depthwise convolution of the others."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = conv(inputs, outputs // 2, 1, activation=nn.ReLU())
        self.cheap = conv(outputs // 2, outputs // 2, 3, 1, outputs // 2, nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return torch.cat((y, self.cheap(y)), dim=1)


def ghostnet() -> nn.Module:
    return Pooled(
        nn.Sequential(conv(3, 16, 3, 2, activation=nn.ReLU()), Ghost(16, 24), Ghost(24, 32)), 32
    )


class RepVgg(nn.Module):
    """Three branches that are added: 3x3, 1x1, the input's own batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.three, self.one = conv(channels, channels), conv(channels, channels, 1)
        self.same = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.three(x) + self.one(x) + self.same(x))


def repvgg() -> nn.Module:
    return Pooled(nn.Sequential(conv(3, 16, 3, 2), nn.ReLU(), RepVgg(16), RepVgg(16)), 16)


FAMILY = "mobile"
NETWORKS = (
    ZooNetwork(FAMILY, "mobilenet_v1", mobilenet_v1, IMAGE, 8, "stem + 3 x 2 + head"),
    ZooNetwork(
        FAMILY, "mobilenet_v2", lambda: inverted(nn.ReLU6, None), IMAGE, 12, "stem + 3 x 3 + 2"
    ),
    ZooNetwork(
        FAMILY, "mobilenet_v3", lambda: inverted(nn.Hardswish, nn.Hardsigmoid), IMAGE, 18,
        "stem + 3 x 5 + 2",
    ),
    ZooNetwork(
        FAMILY, "efficientnet", lambda: inverted(nn.SiLU, nn.Sigmoid), IMAGE, 18,
        "stem + 3 x 5 + 2",
    ),
    ZooNetwork(FAMILY, "shufflenet_v2", shufflenet, IMAGE, 8, "stem + 2 x 3 + head"),
    ZooNetwork(FAMILY, "squeezenet", squeezenet, IMAGE, 8, "stem + 2 x 3 + last"),
    ZooNetwork(FAMILY, "ghostnet", ghostnet, IMAGE, 6, "stem + 2 x 2 + head"),
    ZooNetwork(FAMILY, "repvgg", repvgg, IMAGE, 6, "stem + 2 x 2 + head"),
)  # fmt: skip

"""Residual and dense image classifiers, and plain ones with what people put before a layer."""

import torch
from torch import nn
from torch.nn import functional

from zoo_networks.mobile import IMAGE, Pooled
from zoo_networks.network import ZooNetwork, conv, floats

DIGIT = floats((1, 28, 28))


class Basic(nn.Module):
    """ResNet's block; with `gated` squeeze-excite on its end (SE-ResNet)."""

    def __init__(self, inputs: int, outputs: int, stride: int, gated: bool = False) -> None:
        super().__init__()
        self.one = conv(inputs, outputs, 3, stride, activation=nn.ReLU())
        self.two = conv(outputs, outputs)
        self.short = conv(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()
        self.gate = (
            nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(outputs, 4), nn.ReLU(),
                nn.Linear(4, outputs), nn.Sigmoid(),
            )
            if gated
            else None
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.two(self.one(x))
        if self.gate is not None:
            y = y * self.gate(y)[:, :, None, None]
        return torch.relu(y + self.short(x))


def resnet(gated: bool = False) -> nn.Module:
    return Pooled(
        nn.Sequential(
            conv(3, 8, activation=nn.ReLU()), Basic(8, 8, 1, gated), Basic(8, 16, 2, gated)
        ),
        16,
    )


class PreActivation(nn.Module):
    """Batch norm and ReLU in front of each convolution (He et al. 2016, v2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.one = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.two = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.one(torch.relu(self.norm1(x)))
        y = self.two(torch.relu(self.norm2(y)))
        return x + y


def preact() -> nn.Module:
    return Pooled(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), PreActivation(8), PreActivation(8), nn.BatchNorm2d(8),
            nn.ReLU(),
        ),
        8,
    )  # fmt: skip


class DenseLayer(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, 8, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.conv(functional.relu(self.norm(x)))], 1)


def densenet() -> nn.Module:
    return Pooled(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), *(DenseLayer(8 * k) for k in (1, 2, 3)), nn.AvgPool2d(2),
            nn.BatchNorm2d(32), nn.ReLU(),
        ),
        32,
    )  # fmt: skip


def resnext() -> nn.Module:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                conv(16, 16, 1, activation=nn.ReLU()), conv(16, 16, 3, 1, 4, nn.ReLU()),
                conv(16, 16, 1),
            )  # fmt: skip

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x + self.body(x))

    return Pooled(nn.Sequential(conv(3, 16, 3, 2), nn.ReLU(), Block(), Block()), 16)


class StandardizedConv(nn.Conv2d):
    """Weights standardized at every call, as timm's StdConv2d does it (BiT, NFNet)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        weight = functional.batch_norm(
            self.weight.reshape(1, self.out_channels, -1), None, None, training=True, momentum=0.0,
            eps=1e-6,
        ).reshape_as(self.weight)  # fmt: skip
        return functional.conv2d(input, weight, self.bias, self.stride, self.padding)


class NormFree(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = StandardizedConv(8, 8, 3, padding=1)
        self.two = StandardizedConv(8, 8, 3, padding=1)
        self.gain = nn.Parameter(torch.full((), 0.2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.two(functional.silu(self.one(functional.silu(x) * 1.79)))
        return x + y * self.gain


def nfnet() -> nn.Module:
    return Pooled(nn.Sequential(StandardizedConv(3, 8, 3, 2, 1), NormFree(), NormFree()), 8)


class GroupNormNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm1, self.norm2 = nn.GroupNorm(4, 16), nn.GroupNorm(4, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm1(self.one(x)))
        return torch.relu(y + self.norm2(self.two(y)))


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(400, 60), nn.Tanh(), nn.Linear(60, 10),
    )  # fmt: skip


class Normalised(nn.Module):
    """Whole numbers of a camera, scaled and normalised inside of the network."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.head = nn.Linear(16, 5)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.one((x / 255.0 - self.mean) / self.std))
        y = functional.max_pool2d(torch.relu(self.two(y)), 2)
        return torch.softmax(self.head(y.flatten(2).mean(-1)), dim=-1)


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8),
        nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.PReLU(16), nn.MaxPool2d(2),
        nn.Dropout(0.2), nn.Flatten(), nn.Linear(1024, 32), nn.BatchNorm1d(32), nn.LeakyReLU(0.1),
        nn.Linear(32, 10), nn.LogSoftmax(1),
    )  # fmt: skip


def spectral() -> nn.Module:
    norm = nn.utils.parametrizations.spectral_norm
    return nn.Sequential(
        norm(nn.Conv2d(3, 8, 4, 2, 1)), nn.LeakyReLU(0.2), norm(nn.Conv2d(8, 16, 4, 2, 1)),
        nn.LeakyReLU(0.2), nn.Flatten(), norm(nn.Linear(1024, 1)), nn.Sigmoid(),
    )  # fmt: skip


RESIDUAL, PLAIN = "residual", "plain"
NETWORKS = (
    ZooNetwork(RESIDUAL, "resnet", resnet, IMAGE, 7, "stem + 2 + 3 + head"),
    ZooNetwork(RESIDUAL, "se_resnet", lambda: resnet(True), IMAGE, 11, "stem + 4 + 5 + head"),
    ZooNetwork(RESIDUAL, "preact_resnet", preact, IMAGE, 6, "stem + 2 x 2 + head"),
    ZooNetwork(RESIDUAL, "densenet", densenet, IMAGE, 5, "stem + 3 + head"),
    ZooNetwork(RESIDUAL, "resnext", resnext, IMAGE, 8, "stem + 2 x 3 + head"),
    ZooNetwork(RESIDUAL, "nfnet", nfnet, IMAGE, 6, "stem + 2 x 2 + head"),
    ZooNetwork(
        RESIDUAL, "group_norm", lambda: Pooled(GroupNormNet(), 16), IMAGE, 3, "2 + head"
    ),
    ZooNetwork(PLAIN, "lenet", lenet, DIGIT, 4, "2 + 2"),
    ZooNetwork(
        PLAIN, "normalised_camera", Normalised,
        lambda n: (torch.randint(0, 256, (n, 3, 32, 32)).float(),), 3, "2 + head",
    ),
    ZooNetwork(PLAIN, "vgg_batch_norms", vgg, IMAGE, 4, "2 + 2"),
    ZooNetwork(PLAIN, "spectral_norm", spectral, IMAGE, 3, "2 + 1"),
)  # fmt: skip

"""ResNet-8 of MLPerf Tiny (image classification), for the weights of its Keras reference.

Banbury et al., "MLPerf Tiny Benchmark", NeurIPS 2021; mlcommons/tiny (Apache-2.0). Input: RGB as
0..255 floats, shape 3x32x32. Keras's details are kept: batch-norm epsilon 1e-3, biased
convolutions, and 'same' padding, which at stride 2 pads only the right and the bottom.

ResNet-20 for CIFAR-10, as published by He et al., "Deep Residual Learning", CVPR 2016, 4.2.

Layer names are those of akamaster/pytorch_resnet_cifar10 (BSD-2-Clause), whose trained weights
load unchanged. Input: RGB/255, mean (.485, .456, .406), std (.229, .224, .225), shape 3x32x32.
"""

import torch
from torch import nn
from torch.nn import functional as F


class ResNet8(nn.Module):
    """One stem convolution and three residual blocks of 16, 32 and 64 filters."""

    def __init__(self, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        self.conv0, self.bn0 = nn.Conv2d(channels, 16, 3, padding=1), _norm(16)
        self.conv1a, self.bn1a = nn.Conv2d(16, 16, 3, padding=1), _norm(16)
        self.conv1b, self.bn1b = nn.Conv2d(16, 16, 3, padding=1), _norm(16)
        self.conv2a, self.bn2a = nn.Conv2d(16, 32, 3, stride=2), _norm(32)
        self.conv2b, self.bn2b = nn.Conv2d(32, 32, 3, padding=1), _norm(32)
        self.conv2s = nn.Conv2d(16, 32, 1, stride=2)
        self.conv3a, self.bn3a = nn.Conv2d(32, 64, 3, stride=2), _norm(64)
        self.conv3b, self.bn3b = nn.Conv2d(64, 64, 3, padding=1), _norm(64)
        self.conv3s = nn.Conv2d(32, 64, 1, stride=2)
        self.dense = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn0(self.conv0(x)))
        out = F.relu(self.bn1a(self.conv1a(x)))
        x = F.relu(x + self.bn1b(self.conv1b(out)))
        out = F.relu(self.bn2a(self.conv2a(F.pad(x, (0, 1, 0, 1)))))
        x = F.relu(self.conv2s(x) + self.bn2b(self.conv2b(out)))
        out = F.relu(self.bn3a(self.conv3a(F.pad(x, (0, 1, 0, 1)))))
        x = F.relu(self.conv3s(x) + self.bn3b(self.conv3b(out)))
        logits: torch.Tensor = self.dense(x.mean(dim=(2, 3)))
        return logits


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Two 3x3 convolutions and an option-A shortcut: subsample, pad new channels with zeros."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.stride = stride
        self.new_channels = filters - channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.new_channels:
            half = self.new_channels // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return F.relu(out + x)


class ResNetCifar(nn.Module):
    """A CIFAR ResNet of depth 6n+2: three stages of n blocks with 16, 32 and 64 filters."""

    def __init__(self, blocks_per_stage: int, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, blocks_per_stage)
        self.layer2 = _stage(16, 32, 2, blocks_per_stage)
        self.layer3 = _stage(32, 64, 2, blocks_per_stage)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: torch.Tensor = self.linear(out.mean(dim=(2, 3)))
        return logits


def resnet20(classes: int = 10, channels: int = 3) -> ResNetCifar:
    """ResNet-20: 269,722 parameters with ten classes and RGB."""
    return ResNetCifar(blocks_per_stage=3, classes=classes, channels=channels)


def _stage(channels: int, filters: int, stride: int, blocks: int) -> nn.Sequential:
    first = Block(channels, filters, stride)
    return nn.Sequential(first, *(Block(filters, filters, 1) for _ in range(blocks - 1)))

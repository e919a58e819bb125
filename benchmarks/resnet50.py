"""ResNet-50 (He et al., CVPR 2016, table 1; stride in the 3x3 convolution), random weights."""

import torch
from torch import nn
from torch.nn import functional


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, and a projection where the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.reduce = _convolution(inputs, width, 1)
        self.conv = _convolution(width, width, 3, stride)
        self.expand = _convolution(width, 4 * width, 1)
        # a small last scale keeps random deep networks from exploding
        nn.init.constant_(self.expand.get_parameter("1.weight"), 0.2)
        changes = stride != 1 or inputs != 4 * width
        self.shortcut = _convolution(inputs, 4 * width, 1, stride) if changes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = functional.relu(self.conv(functional.relu(self.reduce(x))))
        return functional.relu(self.expand(hidden) + self.shortcut(x))


class ResNet50(nn.Module):
    """Input 3x224x224, 1000 classes, 25,557,032 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(3, 64, 7, 2)
        blocks: list[nn.Module] = []
        inputs = 64
        for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for index in range(count):
                blocks.append(Bottleneck(inputs, width, stride if index == 0 else 1))
                inputs = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = functional.max_pool2d(functional.relu(self.stem(x)), 3, 2, 1)
        logits: torch.Tensor = self.head(self.blocks(hidden).mean((2, 3)))
        return logits

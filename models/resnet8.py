"""ResNet-8 of MLPerf Tiny (image classification), for the weights of its Keras reference.

Banbury et al., "MLPerf Tiny Benchmark", NeurIPS 2021; mlcommons/tiny (Apache-2.0). Input: RGB as
0..255 floats, shape 3x32x32. Keras's details are kept: batch-norm epsilon 1e-3, biased
convolutions, and 'same' padding, which at stride 2 pads only the right and the bottom.
"""

import torch
from torch import nn
from torch.nn import functional as F


class ResNet8(nn.Module):
    """One stem convolution and three residual blocks of 16, 32 and 64 filters."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv0, self.bn0 = nn.Conv2d(3, 16, 3, padding=1), _norm(16)
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

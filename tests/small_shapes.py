"""Many small networks in one, of odd shapes, for the kernels of the C export."""

import random

import torch
from torch import nn
from torch.nn import functional

SMALL_INPUTS = ((1, 9, 9), (2, 7, 3), (3, 1, 11))


def build_small_shapes(
    seed: int, branches: int, samples: int
) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Many small networks in one: of 1 to 3 channels, odd widths, 1x1 and few products, whose
    convolutions write what is averaged, added, pooled, read by a layer, or leaves the network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _SmallShapes(random.Random(seed), branches).eval()
        inputs = tuple(torch.randn(samples, *shape) for shape in SMALL_INPUTS)
        model(*inputs)
    return model, inputs


class _SmallShapes(nn.Module):
    def __init__(self, source: random.Random, branches: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            _Branch(source, SMALL_INPUTS[place % 3], place) for place in range(branches)
        )

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([b(inputs[place % 3]) for place, b in enumerate(self.branches)], dim=1)


class _Branch(nn.Module):
    """A convolution, what reads it (all kinds in turn), and a layer, unless the values leave."""

    ENDS = ("average", "mean", "add", "pool", "layer", "leave")

    def __init__(self, source: random.Random, shape: tuple[int, int, int], place: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.end = self.ENDS[place // 3 % len(self.ENDS)]
        groups = source.choice((1, channels))
        out = groups * source.choice((1, 2, 3, 8, 9)) if self.end != "add" else channels
        kernel = source.choice(((1, 1), (1, 1), (1, 3), (3, 1), (2, 2), (3, 3)))
        kernel = (min(kernel[0], height), min(kernel[1], width))
        pads = (kernel[0] // 2, kernel[1] // 2) if source.random() < 0.5 else (0, 0)
        stride = (1, 1) if self.end == "add" else source.choice(((1, 1), (1, 1), (2, 2), (1, 2)))
        self.conv = nn.Conv2d(channels, out, kernel, stride, pads, groups=groups,
                              bias=source.random() < 0.7)  # fmt: skip
        self.after: nn.Module = source.choice((nn.ReLU(), nn.Identity()))
        if self.end == "add":
            self.other = nn.Conv2d(channels, out, kernel, stride, pads, groups=groups)
        if self.end == "layer":
            self.other = nn.Conv2d(out, 2 * out, 1, groups=source.choice((1, out)))
        if self.end != "leave":
            self.head = nn.LazyLinear(source.choice((1, 3, 8)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.after(self.conv(x))
        if self.end == "average":
            out = functional.adaptive_avg_pool2d(out, 1)
        elif self.end == "mean":
            out = out.mean(dim=(2, 3))
        elif self.end == "add":
            out = out + self.other(x)
        elif self.end == "pool":
            out = functional.max_pool2d(out, (1, 2), 1, padding=(0, 1))
        elif self.end == "layer":
            out = torch.relu(self.other(out))
        if self.end == "leave":
            return out.flatten(1)
        result: torch.Tensor = self.head(out.flatten(1))
        return result

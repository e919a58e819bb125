"""Every operator that only moves elements, or takes maxima, between two convolutions."""

import random
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as f

Move = Callable[[torch.Tensor], torch.Tensor]
IMAGE = (4, 6, 5)  # channels, height, width of what every move gets
_ORDER = torch.tensor([3, 0, 2, 0])

MOVES: dict[str, Move] = {
    "chunk": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "split": lambda x: torch.split(x, [1, 3], 1)[1],
    "unbind": lambda x: torch.stack(x.unbind(2)[1::2], 1),
    "stack": lambda x: torch.stack([x, x.flip(3)], -1).flatten(3),
    "select": lambda x: x[:, :, -2, None],
    "strided": lambda x: x[:, 1:, ::2, 1:-1],
    "flip": lambda x: x.flip((1, 3)),
    "roll": lambda x: x.roll((1, -2), (1, 2)),
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "repeat": lambda x: x.repeat(1, 2, 1, 2),
    "index": lambda x: x[:, _ORDER],
    "index-inner": lambda x: x[..., [4, 4, 0]],
    "gather": lambda x: x.gather(1, _ORDER.view(1, 4, 1, 1).expand(x.shape[0], -1, 6, 5)),
    "channel-shuffle": lambda x: f.channel_shuffle(x, 2),
    "pixel-shuffle": lambda x: f.pixel_shuffle(x, 2),
    "pixel-unshuffle": lambda x: f.pixel_unshuffle(x[..., :4], 2),
    "unfold": lambda x: x.unfold(2, 3, 2).flatten(3),
    "movedim": lambda x: x.movedim(1, 3),
    "permute": lambda x: x.permute(0, 3, 1, 2),
    "view": lambda x: x.view(-1, 2, 2, 6, 5).transpose(1, 2).reshape(x.shape),
    "reflect": lambda x: f.pad(x, (2, 1, 0, 3), mode="reflect"),
    "replicate": lambda x: f.pad(x, (1, 0, 2, 2), mode="replicate"),
    "circular": lambda x: f.pad(x, (1, 2, 0, 1), mode="circular"),
    "constant": lambda x: f.pad(x, (1, -1, 0, 1), value=0.3),
    "nearest": lambda x: f.interpolate(x, scale_factor=2),
    "nearest-fraction": lambda x: f.interpolate(x, scale_factor=(1.5, 0.7)),
    "nearest-size": lambda x: f.interpolate(x, size=(7, 9), mode="nearest-exact"),
    "bilinear": lambda x: f.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear-corners": lambda x: f.interpolate(x, (9, 3), mode="bilinear", align_corners=True),
    "max-axis": lambda x: x.max(dim=2)[0][:, :, None],
    "amax": lambda x: x.amax((1, 3), keepdim=True),
    "amax-all": lambda x: x.amax((2, 3))[..., None, None],
    "adaptive-max": lambda x: f.adaptive_max_pool2d(x, (4, 2)),
    "max-ceil": lambda x: f.max_pool2d(x, 2, 2, ceil_mode=True),
}  # fmt: skip

LINE = (4, 9)
LINE_MOVES: dict[str, Move] = {
    "nearest": lambda x: f.interpolate(x, scale_factor=2.5),
    "reflect": lambda x: f.pad(x, (3, 2), mode="reflect"),
    "linear": lambda x: f.interpolate(x, scale_factor=3, mode="linear"),
    "max": lambda x: f.adaptive_max_pool1d(x, 4),
    "ceil": lambda x: f.max_pool1d(x, 2, 2, ceil_mode=True),
    "average": lambda x: f.adaptive_avg_pool1d(x, 3),
    "amax": lambda x: x.amax(2, keepdim=True),
    "time-major": lambda x: x.transpose(1, 2).flip(1).transpose(1, 2),
    "last": lambda x: x[..., -1:],
}


class Moved(nn.Module):
    """Moves of three convolutions: a layer reads all of the first (codes), what is moved of the
    second is averaged (wide), of the third it leaves the network."""

    def __init__(self, moves: Sequence[Move], shape: tuple[int, ...]) -> None:
        super().__init__()
        conv = nn.Conv2d if len(shape) == 3 else nn.Conv1d
        self.moves = list(moves)
        self.convs = nn.ModuleList(conv(shape[0], shape[0], 1) for _ in range(3))
        self.head = nn.LazyLinear(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sources = [layer(x) for layer in self.convs]
        parts = [[move(sources[k]) for move in self.moves[k::3]] for k in range(3)]
        read = self.head(torch.cat([torch.relu(part).flatten(1) for part in parts[0]], 1))
        means = [part.mean(-1).flatten(1) for part in parts[1]]
        return torch.cat([read, *means, *(part.flatten(1) for part in parts[2])], 1)


class Chain(nn.Module):
    """Random moves one after the other, each where it fits, with a sum on the way."""

    def __init__(self, source: random.Random) -> None:
        super().__init__()
        self.moves: list[Move] = []
        x = torch.zeros(2, *IMAGE)
        while len(self.moves) < 4:
            move = MOVES[source.choice(sorted(MOVES))]
            try:
                y = move(x)
            except (RuntimeError, IndexError):
                continue
            if 12 <= y[0].numel() <= 400 and y.dim() == 4:
                self.moves.append(move)
                x = y
        self.first, self.head = nn.Conv2d(IMAGE[0], IMAGE[0], 1), nn.LazyLinear(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.first(x)
        for move in self.moves[:2]:
            out = move(out)
        out = out + torch.relu(out)
        for move in self.moves[2:]:
            out = move(out)
        result: torch.Tensor = self.head(out.flatten(1))
        return result

    """Transposed convolutions, read by a layer, added or leaving the network; `plain` ones are
    those that LiteRT has, without groups and dilation."""


class Upwards(nn.Module):
    """Transposed convolutions, read by a layer, added or leaving the network; LiteRT has
    the `plain` ones, without groups and dilation."""

    SHAPE = (4, 3, 5)

    def __init__(self, plain: bool) -> None:
        super().__init__()
        up = nn.ConvTranspose2d
        self.first = nn.Conv2d(4, 6, 1)
        if plain:
            self.read, self.added = up(6, 4, 2, 2), up(6, 3, 4, 2, padding=1)
            self.odd = up(6, 4, 3, (2, 1), padding=(1, 0), output_padding=(1, 0), bias=False)
            self.line = nn.ConvTranspose1d(6, 3, 4, 3, padding=2, output_padding=1)
        else:
            self.read, self.added = up(6, 4, 1, groups=2), up(6, 6, 4, 2, padding=1, groups=6)
            self.odd = up(6, 2, (3, 2), (3, 2), dilation=(1, 2), bias=False)
            self.line = nn.ConvTranspose1d(6, 4, 2, 1, dilation=3, groups=2)
        self.head = nn.LazyLinear(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        parts = [self.head(torch.relu(self.read(x)).flatten(1)), self.odd(x)]
        parts += [self.added(x) + self.added(x.flip(2)), self.line(x.flatten(2))]
        return torch.cat([part.flatten(1) for part in parts], 1)

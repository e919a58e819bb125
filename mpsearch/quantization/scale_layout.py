"""Which weights of a layer share a scale: a channel's, a group's of a channel, or all of them.

Rows are [channels, n], as `output_channels_view` gives them; of a convolution n runs over inputs
and kernel as they lie in memory. Groups of `group_size` weights follow each other along a row and
do not go beyond its end: the last one is shorter where n is no multiple. Nothing else knows which
weight has which scale.
"""

from dataclasses import dataclass

import torch

from mpsearch.graph.layers import EMBEDDING, Layer
from mpsearch.tables.choice import Choice

# Rows of an embedding table that are shorter than this share one scale: a float32 scale per row
# costs 32/D bits per weight, and a bit is worth 5.5 dB. On normal rows whose norms scatter by 30 %
# (standard deviation of the logarithm), a scale per row gains 5 dB at 4 bits and 10 dB at 8 bits
# for D = 16, where it costs 11 dB; 4 and 9.5 dB for D = 32, where it costs 5.5 dB.
SHORTEST_ROW_WITH_SCALE = 32


@dataclass(frozen=True)
class ScaleLayout:
    """Which weights of a layer share a scale: by default those of an output channel."""

    per_tensor: bool = False
    """All of them."""
    group_size: int = 0
    """So many of a channel that follow each other; 0: all of the channel."""

    def shape(self, channels: int, n: int) -> tuple[int, ...]:
        """Of the scales of rows [channels, n]: (channels,), or (channels, groups)."""
        return (channels, -(-n // self.group_size)) if self.group_size else (channels,)

    def stored(self, layer: Layer) -> int:
        """How many scales a file has of the layer."""
        if self.per_tensor:
            return 1
        channels, *groups = self.shape(layer.channels, layer.weights // layer.channels)
        return channels * groups[0] if groups else channels

    def pooled(self, values: torch.Tensor) -> torch.Tensor:
        """Values [channels, …] as sums over those channels that share a scale, for each of them."""
        return values.sum(0).expand_as(values) if self.per_tensor else values

    def runs(self, n: int) -> list[slice]:
        """The weights of a row of n that share a scale."""
        size = self.group_size or n
        return [slice(start, min(start + size, n)) for start in range(0, n, size)]


PER_CHANNEL, PER_TENSOR = ScaleLayout(), ScaleLayout(per_tensor=True)


def layout_of(layer: Layer, choice: Choice, per_tensor: bool = False) -> ScaleLayout:
    """How the layer's weights share scales at a choice; `per_tensor` where that is asked for.

    Groups are what a choice asks for by name, so that they stay; a group of at least the whole
    channel is a scale per channel, as if there were none.
    """
    n = layer.weights // layer.channels
    if size := group_size_of(choice, n):
        return ScaleLayout(group_size=size)
    short = n < SHORTEST_ROW_WITH_SCALE
    return PER_TENSOR if per_tensor or (layer.kind == EMBEDDING and short) else PER_CHANNEL


def group_size_of(choice: Choice, n: int) -> int:
    """How many of the n weights of a channel share a scale; 0: all."""
    return choice.group_size if choice.group_size < n else 0


def by_scale(
    rows: torch.Tensor, scales: torch.Tensor, group_size: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights or codes [channels, n] as [s, m] with the scales as [s, 1]: a row for each scale.

    Groups that are shorter are filled up with zeros; `whole_rows` is the way back. Views where
    nothing is filled up and `rows` are contiguous.
    """
    missing = -rows.shape[1] % group_size if group_size else 0
    if missing:
        rows = torch.nn.functional.pad(rows, (0, missing))
    return rows.reshape(scales.numel(), rows.numel() // scales.numel()), scales.reshape(-1, 1)


def whole_rows(parts: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """What `by_scale` made of `rows`, or its like, in their shape again."""
    channels, n = rows.shape
    return parts.reshape(channels, parts.numel() // channels)[:, :n].contiguous()


def scaled(codes: torch.Tensor, scales: torch.Tensor, group_size: int = 0) -> torch.Tensor:
    """Codes times their scales: [channels, n]."""
    parts, steps = by_scale(codes, scales, group_size)
    return whole_rows(parts * steps, codes)


def in_steps(rows: torch.Tensor, scales: torch.Tensor, group_size: int = 0) -> torch.Tensor:
    """Weights in units of their scales, not rounded: [channels, n]."""
    parts, steps = by_scale(rows, scales, group_size)
    return whole_rows(parts / steps, rows)


def each_scale(scales: torch.Tensor, n: int, group_size: int = 0) -> torch.Tensor:
    """The scale of every weight: [channels, n]."""
    if not group_size:
        return scales[:, None].expand(-1, n)
    return scales.repeat_interleave(group_size, 1)[:, :n]

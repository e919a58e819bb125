"""Input patches of a convolution of any dimension, stride, padding and dilation (im2col)."""

import math
from collections.abc import Sequence

import torch
from torch import fx
from torch.nn import functional

from mpsearch.graph.operators import argument


def unfold(
    node: fx.Node, source: torch.Tensor, weight: torch.Tensor, output_size: Sequence[int]
) -> torch.Tensor:
    """Patches [n, channels, kernel elements, positions] that the convolution `node` multiplies.

    `source` [n, channels, *size] and `output_size` are those of the convolution; for a transposed
    one pass the gradient at its output as source and the size of its input.
    """
    kernel = weight.shape[2:]
    dims = len(kernel)
    stride = _per_dimension(argument(node, "stride"), dims)
    dilation = _per_dimension(argument(node, "dilation"), dims)
    padding = _padding(node, kernel, dilation, dims)
    padded = functional.pad(source, padding) if any(padding) else source
    # A last stride may need elements that the convolution does not have to touch: make room.
    missing = [
        max(0, (out - 1) * s + (k - 1) * d + 1 - size)
        for out, s, k, d, size in zip(
            output_size, stride, kernel, dilation, padded.shape[2:], strict=True
        )
    ]
    if any(missing):
        padded = functional.pad(padded, [end for m in reversed(missing) for end in (0, m)])
    n, channels = padded.shape[:2]
    steps = padded.stride()
    view = padded.as_strided(
        (n, channels, *kernel, *output_size),
        (
            *steps[:2],
            *(step * d for step, d in zip(steps[2:], dilation, strict=True)),
            *(step * s for step, s in zip(steps[2:], stride, strict=True)),
        ),
    )
    return view.reshape(n, channels, math.prod(kernel), math.prod(output_size))


def _per_dimension(value: object, dims: int) -> list[int]:
    values = value if isinstance(value, list | tuple) else [value]
    whole = [int(str(v)) for v in values]
    return whole * dims if len(whole) == 1 else whole


def _padding(node: fx.Node, kernel: Sequence[int], dilation: Sequence[int], dims: int) -> list[int]:
    """Padding in the order of torch's `pad`: last dimension first, (before, after)."""
    padding = argument(node, "padding")
    if padding == "valid":
        return [0] * (2 * dims)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [end for t in reversed(totals) for end in (t // 2, t - t // 2)]
    return [end for p in reversed(_per_dimension(padding, dims)) for end in (p, p)]

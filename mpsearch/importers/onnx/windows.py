"""Sliding windows: kernel, strides, dilations and the padding that ONNX writes in five ways."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from mpsearch.errors import InputError
from mpsearch.importers.onnx.calls import Call


@dataclass(frozen=True)
class Window:
    """One entry per spatial dimension; `begin` and `end` are the padding on both sides.

    `outputs` counts the windows, `overhang` how far the last one reaches over the padded input
    (only where `ceil_mode` asks for it).
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    outputs: tuple[int, ...]
    overhang: tuple[int, ...]

    @property
    def is_symmetric(self) -> bool:
        """True when the same is padded before and after."""
        return self.begin == self.end

    def without_padding(self) -> "Window":
        """The same window over an input that is padded already."""
        zero = (0,) * len(self.begin)
        return replace(self, begin=zero, end=zero)


def window_of(
    call: Call, x: torch.Tensor, kernel: tuple[int, ...], transposed: bool = False
) -> Window:
    """The window of a convolution or pooling over `x` [N, C, …]."""
    rank = len(kernel)
    sizes = [int(size) for size in x.shape[2:]]
    if len(sizes) != rank:
        raise InputError(f"got an input of {x.dim()} dimensions for a kernel of {rank}")
    strides = _sizes(call, "strides", rank, 1)
    dilations = _sizes(call, "dilations", rank, 1)
    given = tuple(call.attribute("pads", [0] * 2 * rank))
    if len(given) != 2 * rank:
        raise InputError(f"got {len(given)} values of pads; expected {2 * rank}")
    extents = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True))
    if transposed:
        begin, end = _transposed_padding(call, sizes, extents, strides, given)
    else:
        begin, end = _padding(call, sizes, extents, strides, given)
    padded = [s + b + e for s, b, e in zip(sizes, begin, end, strict=True)]
    outputs, overhang = [], []
    for axis in range(rank):
        room = padded[axis] - extents[axis]
        count = room // strides[axis] + 1
        if call.attribute("ceil_mode", 0) and room % strides[axis]:
            # one more window, if it begins inside of the input or the padding before it
            count += count * strides[axis] < sizes[axis] + begin[axis]
        outputs.append(count)
        overhang.append(max(0, (count - 1) * strides[axis] + extents[axis] - padded[axis]))
    return Window(kernel, strides, dilations, begin, end, tuple(outputs), tuple(overhang))


def _sizes(call: Call, name: str, rank: int, default: int) -> tuple[int, ...]:
    values = tuple(call.attribute(name, [default] * rank))
    if len(values) != rank or min(values, default=1) < 1:
        raise InputError(f"got {name} {list(values)}; expected {rank} positive numbers")
    return values


def _padding(
    call: Call,
    sizes: Sequence[int],
    extents: Sequence[int],
    strides: Sequence[int],
    given: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = len(sizes)
    mode = call.attribute("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return given[:rank], given[rank:]
    if mode == "VALID":
        return (0,) * rank, (0,) * rank
    totals = [
        max(0, (math.ceil(size / stride) - 1) * stride + extent - size)
        for size, extent, stride in zip(sizes, extents, strides, strict=True)
    ]
    return _halves(totals, larger_at_end=mode == "SAME_UPPER")


def _transposed_padding(
    call: Call,
    sizes: Sequence[int],
    extents: Sequence[int],
    strides: Sequence[int],
    given: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = len(sizes)
    mode = call.attribute("auto_pad", "NOTSET")
    wanted: Sequence[int] | None = call.step.attributes.get("output_shape")
    if wanted is None and mode.startswith("SAME"):
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    if wanted is None:
        return ((0,) * rank, (0,) * rank) if mode == "VALID" else (given[:rank], given[rank:])
    extra = call.attribute("output_padding", [0] * rank)
    totals = [
        stride * (size - 1) + more + extent - out
        for size, stride, more, extent, out in zip(
            sizes, strides, extra, extents, wanted[-rank:], strict=True
        )
    ]
    return _halves(totals, larger_at_end=mode == "SAME_UPPER")


def _halves(totals: Sequence[int], larger_at_end: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    small = tuple(total // 2 for total in totals)
    large = tuple(total - total // 2 for total in totals)
    return (small, large) if larger_at_end else (large, small)


def pad_spatial(
    x: torch.Tensor, begin: Sequence[int], end: Sequence[int], value: float
) -> torch.Tensor:
    """Pad (or, where negative, crop) the dimensions behind the channels by a constant."""
    amounts: list[int] = []
    for before, after in zip(reversed(begin), reversed(end), strict=True):
        amounts += [before, after]
    if not any(amounts):
        return x
    return F.pad(x, amounts, "constant", value)

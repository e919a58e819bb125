"""Moves of tensors as copies between strided boxes, and means as sums over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from mpsearch.errors import InputError
from mpsearch.integer.graph import Concatenate, Mean, Pad, Permute, Shape, Slice

DIMS = 6  # MPS_DIMS in kernels.h


@dataclass(frozen=True)
class Box:
    """`shape` elements read from `start` at `from_strides`, written from `to_start` on."""

    shape: Shape
    start: int
    from_strides: Shape
    to_start: int
    to_strides: Shape


def row_major(shape: Shape) -> Shape:
    """Strides of a dense array: (2, 3, 4) -> (12, 4, 1)."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def concatenated(step: Concatenate, sources: Sequence[Shape]) -> list[Box]:
    """One box per source."""
    to = row_major(step.output.shape)
    boxes, at = [], 0
    for shape in sources:
        boxes.append(Box(shape, 0, row_major(shape), at * to[step.axis], to))
        at += shape[step.axis]
    return boxes


def permuted(step: Permute, source: Shape) -> Box:
    """Output axis i reads the source's axis axes[i]."""
    strides = row_major(source)
    from_strides = tuple(strides[axis] for axis in step.axes)
    return Box(step.output.shape, 0, from_strides, 0, row_major(step.output.shape))


def sliced(step: Slice, source: Shape) -> Box:
    """Every step-th index of one axis."""
    strides = row_major(source)
    from_strides = tuple(
        stride * step.step if axis == step.axis else stride for axis, stride in enumerate(strides)
    )
    start = step.start * strides[step.axis]
    return Box(step.output.shape, start, from_strides, 0, row_major(step.output.shape))


def padded(step: Pad, source: Shape) -> Box:
    """The part of the source that is kept, at its place in the output."""
    from_strides, to_strides = row_major(source), row_major(step.output.shape)
    shape = tuple(
        length + min(0, before) + min(0, after)
        for length, (before, after) in zip(source, step.pads, strict=True)
    )
    start = sum(-min(0, b) * stride for (b, _), stride in zip(step.pads, from_strides, strict=True))
    to_start = sum(max(0, b) * stride for (b, _), stride in zip(step.pads, to_strides, strict=True))
    return Box(shape, start, from_strides, to_start, to_strides)


def mean_axes(step: Mean, source: Shape) -> tuple[tuple[Shape, Shape], tuple[Shape, Shape]]:
    """((shape, strides) of what is kept, (shape, strides) of what is averaged), joined."""
    strides = row_major(source)
    both = []
    for axes in (
        [axis for axis in range(len(source)) if axis not in step.axes],
        list(step.axes),
    ):
        shape, (joined,) = join(
            tuple(source[axis] for axis in axes), [tuple(strides[axis] for axis in axes)]
        )
        both.append((shape, joined))
    return both[0], both[1]


def join(shape: Shape, strides: Sequence[Shape]) -> tuple[Shape, list[Shape]]:
    """The same box with fewer axes: neighbours that lie one after the other in every stride become
    one. (2, 3, 4) dense on both sides -> (24,). Raises InputError beyond MPS_DIMS axes."""
    kept: list[tuple[int, tuple[int, ...]]] = []
    for axis, length in enumerate(shape):
        steps = tuple(s[axis] for s in strides)
        if length == 1:
            continue
        if kept and all(a == b * length for a, b in zip(kept[-1][1], steps, strict=True)):
            kept[-1] = (kept[-1][0] * length, steps)
        else:
            kept.append((length, steps))
    if not kept:
        kept.append((1, (1,) * len(strides)))
    if len(kept) > DIMS:
        raise InputError(
            f"a tensor of shape {'x'.join(map(str, shape))} is moved along {len(kept)} axes; the "
            f"C export has {DIMS} at most"
        )
    return tuple(n for n, _ in kept), [tuple(s[i] for _, s in kept) for i in range(len(strides))]

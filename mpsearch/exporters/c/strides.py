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


def concatenated(
    step: Concatenate, shapes: Sequence[Shape], strides: Sequence[Shape], to: Shape
) -> list[Box]:
    """One box per source; `strides` are those of the sources, `to` those of the output."""
    boxes, at = [], 0
    for shape, from_strides in zip(shapes, strides, strict=True):
        boxes.append(Box(shape, 0, from_strides, at * to[step.axis], to))
        at += shape[step.axis]
    return boxes


def permuted(step: Permute, strides: Shape, to: Shape) -> Box:
    """Output axis i reads the source's axis axes[i]."""
    from_strides = tuple(strides[axis] for axis in step.axes)
    return Box(step.output.shape, 0, from_strides, 0, to)


def sliced(step: Slice, strides: Shape, to: Shape) -> Box:
    """Every step-th index of one axis."""
    from_strides = tuple(
        stride * step.step if axis == step.axis else stride for axis, stride in enumerate(strides)
    )
    return Box(step.output.shape, step.start * strides[step.axis], from_strides, 0, to)


def padded(step: Pad, source: Shape, strides: Shape, to: Shape) -> Box:
    """The part of the source that is kept, at its place in the output."""
    shape = tuple(
        length + min(0, before) + min(0, after)
        for length, (before, after) in zip(source, step.pads, strict=True)
    )
    start = sum(-min(0, b) * stride for (b, _), stride in zip(step.pads, strides, strict=True))
    to_start = sum(max(0, b) * stride for (b, _), stride in zip(step.pads, to, strict=True))
    return Box(shape, start, strides, to_start, to)


def arranged(shape: Shape, strides: Shape, to: Shape) -> Box:
    """All elements of a tensor from one order to another, in the order of writing."""
    axes = sorted(range(len(shape)), key=lambda axis: -to[axis])
    pick = [tuple(t[axis] for axis in axes) for t in (shape, strides, to)]
    return Box(pick[0], 0, pick[1], 0, pick[2])


def mean_axes(
    step: Mean, source: Shape, strides: Shape
) -> tuple[tuple[Shape, Shape], tuple[Shape, Shape]]:
    """((shape, strides) of what is kept, (shape, strides) of what is averaged), joined."""
    both = []
    for axes in (
        [axis for axis in range(len(source)) if axis not in step.axes],
        # in the order of memory, so that neighbours join
        sorted(step.axes, key=lambda axis: -strides[axis]),
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


def inner_longest(shape: Shape, strides: Sequence[Shape]) -> tuple[Shape, list[Shape]]:
    """The same box with its axes in the order that is fast: what is dense on all sides comes last,
    or else the longest."""
    axes = sorted(range(len(shape)), key=lambda i: (all(s[i] == 1 for s in strides), shape[i]))
    return tuple(shape[i] for i in axes), [tuple(s[i] for i in axes) for s in strides]

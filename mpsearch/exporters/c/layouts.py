"""How each tensor lies in memory: row-major, or channels last as the kernels read images.

Between convolutions and pools all channels of a position lie side by side ([C, H, W] is stored as
[H, W, C]): vectors then run over channels, and the rows of a patch are copies. Entries and the
output stay row-major; where a step needs the other order, a move (`Arrange`) is put in. Flattening
an image for a linear layer moves nothing: the layer's columns are stored in the image's order.

Moves of tensors as copies between strided boxes, and means as sums over them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from mpsearch.errors import InputError
from mpsearch.exporters.c.summing import Summed, layer_of, with_sums
from mpsearch.integer.arithmetic import Affine, Multiply, Prelu
from mpsearch.integer.comparing import Interval
from mpsearch.integer.fixed_point import Integers
from mpsearch.integer.functions import Lookup
from mpsearch.integer.gathering import Gather, separated
from mpsearch.integer.graph import (
    Add,
    AveragePool,
    Clamp,
    Concatenate,
    Convolution,
    IntegerGraph,
    IntegerTensor,
    Linear,
    MaxPool,
    Mean,
    Pad,
    Permute,
    Requantize,
    Reshape,
    Shape,
    Slice,
    Step,
)
from mpsearch.integer.resizing import Resize

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


def arranged_box(shape: Shape, strides: Shape, to: Shape) -> Box:
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


@dataclass(frozen=True)
class Arrange(Step):
    """The same tensor in the other order."""


@dataclass(frozen=True)
class Arranged:
    """Steps with moves between orders; the tensors that are stored channels last; and the shape of
    the image whose order a flattened tensor has kept."""

    steps: tuple[Step, ...]
    tensors: Mapping[str, IntegerTensor]
    output: str
    channels_last: frozenset[str]
    flattened: Mapping[str, Shape]

    def strides(self, name: str) -> Shape:
        """Elements between neighbours along every axis of a tensor."""
        shape = self.tensors[name].shape
        return last_strides(shape) if name in self.channels_last else row_major(shape)


def boxes(arranged: Arranged, step: Step) -> list[tuple[Box, str]]:
    """What a step moves, each box with its source; none for a step that does something else."""
    to = arranged.strides(step.output.name)
    strides = [arranged.strides(name) for name in step.sources]
    match step:
        case Concatenate():
            shapes = [arranged.tensors[name].shape for name in step.sources]
            return list(zip(concatenated(step, shapes, strides, to), step.sources, strict=True))
        case Permute():
            box = permuted(step, strides[0], to)
        case Slice():
            box = sliced(step, strides[0], to)
        case Pad():
            box = padded(step, arranged.tensors[step.sources[0]].shape, strides[0], to)
        case Arrange():
            box = arranged_box(step.output.shape, strides[0], to)
        case _:
            return []
    return [(box, step.sources[0])]


def last_strides(shape: Shape) -> Shape:
    """Strides with axis 0 innermost: (2, 3, 4) -> (1, 8, 2)."""
    return (1, *(shape[0] * stride for stride in row_major(shape[1:])))


def same_bytes(shape: Shape) -> bool:
    """True where both orders are one: [1, H, W], [C, 1, 1], and fewer than two axes."""
    return len(shape) < 2 or shape[0] == 1 or prod(shape[1:]) == 1


def image_order(shape: Shape) -> Integers:
    """The row-major index of every element of an image that is stored channels last."""
    indices = np.arange(prod(shape)).reshape(shape)
    return np.moveaxis(indices, 0, -1).reshape(-1)


def stored_offsets(
    step: Gather, source: Shape, strides: Shape
) -> tuple[int, tuple[tuple[int, ...], ...]] | None:
    """(start, tables) for a source that is stored with these strides; None where its axes run into
    each other and only row-major order has tables."""
    stored: Integers = np.zeros(step.output.shape, dtype=np.int64)
    for place, stride in zip(np.unravel_index(step.indices, source or (1,)), strides, strict=False):
        stored += place * stride
    return separated(stored)


def arrange(graph: IntegerGraph) -> Arranged:
    """Choose orders step by step, and put in the moves that they need."""
    plan = _Plan(graph)
    for step in plan.given:
        plan.add(step)
    output = plan.wanted(graph.output.name, last=False)
    found = Arranged(
        tuple(plan.steps), plan.tensors, output, frozenset(plan.last), dict(plan.flattened)
    )
    return replace(found, steps=tuple(_without_copy(found, step) for step in found.steps))


def _without_copy(arranged: Arranged, step: Step) -> Step:
    """A move that leaves every byte in its place is a reshape."""
    moved = boxes(arranged, step)
    if len(moved) != 1:
        return step
    ((box, source),) = moved
    axes = sorted(range(len(box.shape)), key=lambda axis: -box.to_strides[axis])
    shape, strides = join(
        tuple(box.shape[axis] for axis in axes),
        [tuple(s[axis] for axis in axes) for s in (box.from_strides, box.to_strides)],
    )
    whole = prod(step.output.shape) == prod(arranged.tensors[source].shape) == prod(shape)
    dense = len(shape) == 1 and (shape[0] == 1 or strides == [(1,), (1,)])
    if whole and dense and box.start == box.to_start == 0:
        return Reshape(step.sources, step.output)
    return step


class _Plan:
    def __init__(self, graph: IntegerGraph) -> None:
        self.given = with_sums(graph)
        self.result = graph.output.name
        self.tensors = dict(graph.tensors)
        self.steps: list[Step] = []
        self.last: set[str] = set()
        self.flattened: dict[str, Shape] = {}
        self.moved: dict[tuple[str, bool], str] = {}

    def is_last(self, name: str) -> bool:
        return name in self.last

    def wanted(self, name: str, last: bool) -> str:
        """The tensor in that order, by its name or that of a moved copy."""
        tensor = self.tensors[name]
        if self.is_last(name) == last or same_bytes(tensor.shape):
            return name
        if (name, last) not in self.moved:
            order = "channels last" if last else "row-major"
            output = replace(tensor, name=f"{name} {order}")
            self.tensors[output.name] = output
            if last:
                self.last.add(output.name)
            self.steps.append(Arrange((name,), output))
            self.moved[name, last] = output.name
        return self.moved[name, last]

    def add(self, step: Step) -> None:
        """The step on tensors in the order that it takes."""
        sources, name = step.sources, step.output.name
        match step:
            case Summed():
                order = isinstance(step.layer, Convolution)
                keeps = not order and sources[0] in self.flattened
                read = sources[0] if keeps else self.wanted(sources[0], order)
                sources = (read, self.wanted(sources[1], order))
            case Convolution() | MaxPool() | AveragePool() | Resize():
                order, sources = True, (self.wanted(sources[0], True),)
            case Requantize() | Clamp() | Slice() | Pad() | Lookup() | Interval():
                order = self.is_last(sources[0])
            case Add() | Concatenate():
                order = any(self.is_last(source) for source in sources)
                if isinstance(step, Add):
                    sources = tuple(self.wanted(source, order) for source in sources)
            case Gather():
                shape = self.tensors[sources[0]].shape
                order = self.is_last(sources[0])
                if order and stored_offsets(step, shape, last_strides(shape)) is None:
                    order, sources = False, (self.wanted(sources[0], False),)
            case Affine() | Multiply() | Prelu():
                order = any(self.is_last(source) for source in sources)  # read where they lie
            case Permute(axes=axes):
                # An input with channels last goes on in that order: the permute is a copy
                order = axes == (2, 0, 1) and not self.is_last(sources[0])
            case Mean():
                order = False
            case Linear():
                order = False
                if sources[0] not in self.flattened:
                    sources = (self.wanted(sources[0], False),)
            case Reshape() if self._keeps_order(step):
                order = False
                self.flattened[name] = self.tensors[sources[0]].shape
            case _:
                order, sources = False, tuple(self.wanted(source, False) for source in sources)
        self.steps.append(
            step.reading(*sources) if isinstance(step, Summed) else replace(step, sources=sources)
        )
        if order and len(step.output.shape) > 1:
            self.last.add(name)

    def _keeps_order(self, step: Reshape) -> bool:
        """True for flattening an image that only linear layers read, each used once."""
        source = step.sources[0]
        if not self.is_last(source) or same_bytes(self.tensors[source].shape):
            return False
        name = step.output.name
        layers = [layer for layer in map(layer_of, self.given) if layer is not None]
        uses = Counter(layer.weights.layer for layer in layers)
        # the reshaped tensor may be what a sum adds, too
        readers = [
            layer_of(s) if s.sources[0] == name else None for s in self.given if name in s.sources
        ]
        return (
            len(step.output.shape) == 1
            and name != self.result
            and all(
                isinstance(layer, Linear) and uses[layer.weights.layer] == 1 for layer in readers
            )
        )

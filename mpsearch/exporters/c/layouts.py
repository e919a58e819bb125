"""How each tensor lies in memory: row-major, or channels last as the kernels read images.

Between convolutions and pools all channels of a position lie side by side ([C, H, W] is stored as
[H, W, C]): vectors then run over channels, and the rows of a patch are copies. Entries and the
output stay row-major; where a step needs the other order, a move (`Arrange`) is put in. Flattening
an image for a linear layer moves nothing: the layer's columns are stored in the image's order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from mpsearch.exporters.c.strides import row_major
from mpsearch.integer.fixed_point import Integers
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


def arrange(graph: IntegerGraph) -> Arranged:
    """Choose orders step by step, and put in the moves that they need."""
    plan = _Plan(graph)
    for step in graph.steps:
        plan.add(step)
    output = plan.wanted(graph.output.name, last=False)
    return Arranged(
        tuple(plan.steps), plan.tensors, output, frozenset(plan.last), dict(plan.flattened)
    )


class _Plan:
    def __init__(self, graph: IntegerGraph) -> None:
        self.graph = graph
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
            case Convolution() | MaxPool() | AveragePool():
                order, sources = True, (self.wanted(sources[0], True),)
            case Requantize() | Clamp() | Slice() | Pad():
                order = self.is_last(sources[0])
            case Add() | Concatenate():
                order = any(self.is_last(source) for source in sources)
                if isinstance(step, Add):
                    sources = tuple(self.wanted(source, order) for source in sources)
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
        self.steps.append(replace(step, sources=sources))
        if order and len(step.output.shape) > 1:
            self.last.add(name)

    def _keeps_order(self, step: Reshape) -> bool:
        """True for flattening an image that only linear layers read, each used once."""
        source = step.sources[0]
        if not self.is_last(source) or same_bytes(self.tensors[source].shape):
            return False
        readers = [s for s in self.graph.steps if step.output.name in s.sources]
        layers = [s.weights.layer for s in self.graph.steps if isinstance(s, Linear | Convolution)]
        return (
            len(step.output.shape) == 1
            and step.output.name != self.graph.output.name
            and all(isinstance(s, Linear) and layers.count(s.weights.layer) == 1 for s in readers)
        )

"""Additions that are part of the layer before them: its result is added before it is stored.

A residual sum is an `Affine` step of two tensors. Where one of them is what a layer has just
computed, and nothing else reads it, the kernel of that layer makes the sum tile by tile: the
layer's result, 16 bits wide, never becomes a tensor. The integers are those of the two steps.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mpsearch.integer.arithmetic import Affine
from mpsearch.integer.fixed_point import Integers
from mpsearch.integer.graph import (
    Convolution,
    Embedding,
    IntegerGraph,
    IntegerTensor,
    Linear,
    Step,
    TransposedConvolution,
)


@dataclass(frozen=True)
class Summed(Step):
    """A layer and the sum of its result and the second source, of one shape."""

    layer: Convolution | Linear
    sum: Affine

    @property
    def factors(self) -> tuple[int, int]:
        """Of the layer's result and of the other source."""
        both = [int(values) for values in self.sum.multipliers]
        own, other = both if self.sum.sources[0] == self.layer.output.name else both[::-1]
        return own, other

    def reading(self, *sources: str) -> "Summed":
        """The same for tensors of other names."""
        return replace(self, sources=sources, layer=replace(self.layer, sources=sources[:1]))


def layer_of(step: Step) -> Convolution | Linear | None:
    """The layer that a step computes, alone or with a sum."""
    if isinstance(step, Summed):
        return step.layer
    return step if isinstance(step, Convolution | Linear) else None


def kind_of(step: Step) -> str:
    """The kind of a step in words: "Convolution", "Convolution + Affine"."""
    parts = (step.layer, step.sum) if isinstance(step, Summed) else (step,)
    return " + ".join(type(part).__name__ for part in parts)


def with_sums(graph: IntegerGraph) -> tuple[Step, ...]:
    """The steps of a graph, with sums as part of layers where that can be."""
    made: dict[str, int] = {step.output.name: place for place, step in enumerate(graph.steps)}
    readers = Counter(name for step in graph.steps for name in step.sources)
    readers[graph.output.name] += 1
    steps: list[Step | None] = list(graph.steps)
    for place, step in enumerate(graph.steps):
        if not isinstance(step, Affine) or not _is_plain(step, graph.tensors):
            continue
        # the source that is computed last: the other one is there when its layer runs
        other, own = sorted(step.sources, key=lambda name: made.get(name, -1))
        layer = graph.steps[made[own]] if own in made else None
        if _can_sum(layer, step.output) and readers[own] == 1:
            assert isinstance(layer, Convolution | Linear)
            steps[made[own]] = Summed((*layer.sources, other), step.output, layer, step)
            steps[place] = None
    return tuple(step for step in steps if step is not None)


def _is_plain(step: Affine, tensors: Mapping[str, IntegerTensor]) -> bool:
    """Two tensors of the output's shape, one factor for each, one offset."""
    constants: Sequence[Integers] = (*step.multipliers, step.offset)
    return (
        len(set(step.sources)) == len(step.sources) == 2
        and all(tensors[name].shape == step.output.shape for name in step.sources)
        and all(np.size(values) == 1 for values in constants)
    )


def _can_sum(layer: Step | None, output: IntegerTensor) -> bool:
    return (
        isinstance(layer, Convolution | Linear)
        and not isinstance(layer, TransposedConvolution | Embedding)
        and layer.output.signed
        and layer.output.bits <= 16
        and output.bits <= 16
    )

"""What a step may write over the tensor that it reads, where nothing reads that one later.

What is computed element by element takes the place of its source. A layer and a pool may, too,
where all that lies where an output is written has been read before, if need be because the output
begins some bytes before the source.
"""

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from mpsearch.exporters.c.families import Family
from mpsearch.exporters.c.kernels import Kernel
from mpsearch.exporters.c.layouts import Arranged
from mpsearch.exporters.c.overlapping import lag, window_starts
from mpsearch.exporters.c.packed import bits_of
from mpsearch.exporters.c.summing import layer_of
from mpsearch.integer.arithmetic import Affine, Multiply, Prelu
from mpsearch.integer.comparing import Interval
from mpsearch.integer.functions import Lookup
from mpsearch.integer.graph import (
    Add,
    Clamp,
    IntegerTensor,
    MaxPool,
    Requantize,
    Step,
)

_ELEMENTWISE = (Requantize, Clamp, Add, Affine, Multiply, Prelu, Lookup, Interval)


Over = tuple[str, int]  # a buffer, and the bytes that the output begins before it


def written_over(
    arranged: Arranged,
    step: Step,
    kernels: Mapping[str, Kernel],
    family: Family,
    buffer_of: Mapping[str, str],
    dying: Collection[str],
) -> Over | None:
    """What the output is written over, of the buffers that end with this step."""
    names = [buffer_of[source] for source in step.sources]
    if layer_of(step) is not None and len(set(names)) < len(names):
        return None  # the layer reads around the places of the addend
    for source, before in _candidates(arranged, step, kernels, family):
        name = buffer_of[source]
        others = [other for other in step.sources if buffer_of[other] == name]
        if name in dying and all(_lies_as(arranged, other, source) for other in others):
            return name, before
    return None


def _candidates(
    arranged: Arranged, step: Step, kernels: Mapping[str, Kernel], family: Family
) -> Iterable[Over]:
    """Sources that the output could be written over, the best first."""
    tensors = arranged.tensors
    if isinstance(step, _ELEMENTWISE):
        yield from ((s, 0) for s in step.sources if _lies_as(arranged, s, step.output.name))
    elif isinstance(step, MaxPool):
        yield step.sources[0], _pool_lag(step, tensors[step.sources[0]])
    elif (layer := layer_of(step)) is not None:
        source, *addend = step.sources
        # tile by tile: each element takes the place of the addend's, if both have one size
        yield from ((n, 0) for n in addend if bits_of(tensors[n]) == bits_of(step.output))
        kernel = kernels[layer.weights.layer]
        before = family.lag(layer, kernel, tensors[source], step.output)
        if before is not None:
            yield source, before


def _lies_as(arranged: Arranged, name: str, other: str) -> bool:
    """True where every element of the first tensor lies at or behind the same one of the other."""
    one, two = arranged.tensors[name], arranged.tensors[other]
    return (
        one.shape == two.shape
        and arranged.strides(name) == arranged.strides(other)
        and bits_of(one) >= bits_of(two)
    )


def _pool_lag(step: MaxPool, source: IntegerTensor) -> int:
    size, stride, pads = step.output.shape[1:], step.stride, step.padding
    if len(size) < 2:
        size, stride, pads = (1, *size), (1, stride[1]), (0, pads[1])
    starts = window_starts((size[0], size[1]), stride, pads, source.shape[-1])
    place = source.shape[0] * bits_of(source)
    # the largest codes so far of a window lie in the output while the rest of it is read
    return lag(starts, np.arange(len(starts)), place, place)

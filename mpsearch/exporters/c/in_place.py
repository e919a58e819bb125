"""What a step may write over the tensor that it reads, where nothing reads that one later.

What is computed element by element takes the place of its source. A layer and a pool may, too,
where the places that an output is written to have been read before: layers copy what they read
into their scratch, some lines or rows ahead of what they write.
"""

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from mpsearch.exporters.c.families import Family
from mpsearch.exporters.c.kernels import Kernel
from mpsearch.exporters.c.layouts import Arranged
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


def written_over(
    arranged: Arranged,
    step: Step,
    kernels: Mapping[str, Kernel],
    family: Family,
    buffer_of: Mapping[str, str],
    dying: Collection[str],
) -> str | None:
    """The buffer of a source that the output is written over, of those that end with this step."""
    names = [buffer_of[source] for source in step.sources]
    if layer_of(step) is not None and len(set(names)) < len(names):
        return None  # the layer reads around the places of the addend
    for source in _candidates(arranged, step, kernels, family):
        name = buffer_of[source]
        others = [other for other in step.sources if buffer_of[other] == name]
        if name in dying and all(_lies_as(arranged, other, source) for other in others):
            return name
    return None


def _candidates(
    arranged: Arranged, step: Step, kernels: Mapping[str, Kernel], family: Family
) -> Iterable[str]:
    """Sources that the output could be written over, the best first."""
    tensors = arranged.tensors
    if isinstance(step, _ELEMENTWISE):
        yield from (name for name in step.sources if _lies_as(arranged, name, step.output.name))
    elif isinstance(step, MaxPool):
        if _pool_reads_ahead(step, tensors[step.sources[0]]):
            yield step.sources[0]
    elif (layer := layer_of(step)) is not None:
        source, *addend = step.sources
        # tile by tile: each element takes the place of the addend's, if both have one size
        yield from (n for n in addend if bits_of(tensors[n]) == bits_of(step.output))
        kernel = kernels[layer.weights.layer]
        if family.reads_ahead(layer, kernel, tensors[source], step.output):
            yield source


def _lies_as(arranged: Arranged, name: str, other: str) -> bool:
    """True where every element of the first tensor lies at or behind the same one of the other."""
    one, two = arranged.tensors[name], arranged.tensors[other]
    return (
        one.shape == two.shape
        and arranged.strides(name) == arranged.strides(other)
        and bits_of(one) >= bits_of(two)
    )


def _pool_reads_ahead(step: MaxPool, source: IntegerTensor) -> bool:
    """True where no window that is still to come begins before what has been written."""
    width = source.shape[-1]
    rows, columns = step.output.shape[-2:] if len(source.shape) > 2 else (1, step.output.shape[-1])
    down, across = (
        np.maximum(0, np.arange(count) * stride - pad)
        for count, stride, pad in zip((rows, columns), step.stride, step.padding, strict=True)
    )
    written = np.arange(1, rows * columns + 1).reshape(rows, columns)
    next_window = down[:, None] * width + across[None, 1:]
    next_row = down[1:] * width
    return bool((next_window >= written[:, :-1]).all() and (next_row >= written[:-1, -1]).all())

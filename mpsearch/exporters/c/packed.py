"""Which tensors take two or four codes a byte: those whose writer and all readers can.

Codes of 2 bits are stored four in a byte, codes of 3 and 4 bits two. A row of what lies innermost,
the channels of an image, fills whole bytes, so that every position begins a byte. What enters and
leaves the network keeps a byte for each code.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from math import prod

import numpy as np

from mpsearch.exporters.c.layouts import Arranged, Box, boxes, join
from mpsearch.exporters.c.summing import Summed
from mpsearch.integer.arithmetic import Affine, Multiply, Prelu
from mpsearch.integer.functions import Lookup
from mpsearch.integer.graph import (
    Clamp,
    Convolution,
    IntegerGraph,
    IntegerTensor,
    Linear,
    MaxPool,
    Requantize,
    Reshape,
    Shape,
)
from mpsearch.integer.norms import Normalize

# What these read has a type of its own, and so has what they write; of all others both are one.
_READERS = (Convolution, Linear, Summed, Requantize, Affine)
_WRITERS = (*_READERS, Multiply, Prelu, Lookup, Normalize)
_ALIKE = (MaxPool, Clamp, Reshape)
_FEWEST_SAVED = 16  # bytes


@dataclass(frozen=True)
class PackedTensor(IntegerTensor):
    """A tensor of unsigned codes that share bytes."""

    @property
    def stored_bits(self) -> int:
        """Of one code: 2 or 4."""
        return _stored_bits(self)


def bits_of(tensor: IntegerTensor) -> int:
    """Bits of one stored element."""
    if isinstance(tensor, PackedTensor):
        return tensor.stored_bits
    return 8 * np.dtype(tensor.dtype).itemsize


def with_packed(graph: IntegerGraph, arranged: Arranged) -> Arranged:
    """The same with every tensor packed that can be."""
    border = {arranged.output, *(entry.tensor.name for entry in graph.inputs)}
    names = {
        name
        for name, tensor in arranged.tensors.items()
        if name not in border and _fills_bytes(arranged, tensor)
    }
    while not_both := set(_refused(arranged, names)) & names:
        names -= not_both
    tensors = {
        name: _packed(tensor) if name in names else tensor
        for name, tensor in arranged.tensors.items()
    }
    steps = tuple(replace(step, output=tensors[step.output.name]) for step in arranged.steps)
    return replace(arranged, steps=steps, tensors=tensors)


def _packed(tensor: IntegerTensor) -> PackedTensor:
    return PackedTensor(*(getattr(tensor, field.name) for field in fields(IntegerTensor)))


def _stored_bits(tensor: IntegerTensor) -> int:
    return 2 if tensor.bits <= 2 else 4


def _fills_bytes(arranged: Arranged, tensor: IntegerTensor) -> bool:
    if tensor.signed or tensor.bits > 4 or not tensor.shape:
        return False
    innermost = tensor.shape[0 if tensor.name in arranged.channels_last else -1]
    bits = _stored_bits(tensor)
    saved = prod(tensor.shape) * (8 - bits) // 8
    return innermost * bits % 8 == 0 and saved >= _FEWEST_SAVED


def _refused(arranged: Arranged, packed: set[str]) -> Iterator[str]:
    """Tensors that some step cannot read or write packed, where the others of `packed` are."""
    for step in arranged.steps:
        moved = boxes(arranged, step)
        names = (*step.sources, step.output.name)
        if moved or isinstance(step, _ALIKE):
            widths = {_stored_bits(arranged.tensors[name]) for name in names}
            fit = all(in_bytes(box, 8 // width) for box, _ in moved for width in widths)
            if not packed.issuperset(names) or len(widths) > 1 or not fit:
                yield from names
            continue
        if not isinstance(step, _READERS):
            yield from step.sources
        if not isinstance(step, _WRITERS):
            yield step.output.name


def in_bytes(box: Box, codes: int) -> Box | None:
    """A move of `codes` to a byte as one of bytes; None where it would part a byte."""
    shape, (read, written) = join(box.shape, [box.from_strides, box.to_strides])
    inner = [axis for axis in range(len(shape)) if read[axis] == written[axis] == 1]
    if len(inner) != 1:
        return None
    (axis,) = inner
    rest = [n for strides in (read, written) for i, n in enumerate(strides) if i != axis]
    if any(n % codes for n in (shape[axis], box.start, box.to_start, *rest)):
        return None

    def fewer(values: Shape) -> Shape:
        return tuple(n if i == axis else n // codes for i, n in enumerate(values))

    lengths = tuple(n // codes if i == axis else n for i, n in enumerate(shape))
    return Box(lengths, box.start // codes, fewer(read), box.to_start // codes, fewer(written))

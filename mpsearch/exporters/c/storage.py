"""Where every tensor of a graph lies in the static memory of the C code.

One static memory for all tensors of a network: who lies where, and how small it could be.

A tensor lives from the step that writes it to the last step that reads it. Two tensors may share
bytes unless both live in some step. Tensors are placed by size, the largest first, each into the
smallest gap that holds it between the tensors that live at the same time (greedy by size with best
fit: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", arXiv
2001.03288, algorithm 3).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from mpsearch.exporters.c.families import Family
from mpsearch.exporters.c.kernels import Kernel
from mpsearch.exporters.c.layouts import Arranged
from mpsearch.integer.graph import Convolution, IntegerGraph, IntegerTensor, Linear, Reshape, Step

_TRIES = 32


@dataclass(frozen=True)
class Buffer:
    """`size` bytes that are in use in the steps `first` to `last`, both included."""

    name: str
    size: int
    first: int
    last: int

    def meets(self, other: "Buffer") -> bool:
        """True when there is a step in which both are in use."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """Offsets by name, the bytes that they take, and the bytes that no placing can go below."""

    offsets: Mapping[str, int]
    peak_bytes: int
    lower_bound_bytes: int


def plan(buffers: Sequence[Buffer], alignment: int = 4) -> Arena:
    """Place every buffer at a multiple of `alignment`; those in use together do not overlap.

    `lower_bound_bytes` is the largest sum of sizes in use in one step, without alignment. While the
    peak is above it, the buffer that makes the peak is placed first in another try; the best try
    is the answer.
    """
    bound = lower_bound(buffers)
    order = sorted(buffers, key=lambda b: (-b.size, b.first, b.name))
    best: dict[str, int] = {}
    peak = -1
    for _ in range(_TRIES):
        offsets = _place(order, alignment)
        ends = {b.name: offsets[b.name] + b.size for b in order}
        reached = max(ends.values(), default=0)
        if peak < 0 or reached < peak:
            best, peak = offsets, reached
        if peak <= bound:
            break
        last = max(order, key=lambda b: (ends[b.name], b.name))
        order = [last, *(b for b in order if b is not last)]
    return Arena(best, peak, bound)


def _place(order: Sequence[Buffer], alignment: int) -> dict[str, int]:
    placed: list[tuple[int, Buffer]] = []
    for buffer in order:
        taken = sorted((at, at + b.size) for at, b in placed if b.meets(buffer))
        placed.append((_best_fit(buffer.size, taken, alignment), buffer))
    return {buffer.name: at for at, buffer in placed}


def lower_bound(buffers: Iterable[Buffer]) -> int:
    """The largest sum of sizes that are in use at once: [(10, 0-1), (5, 1-2), (7, 2-2)] -> 15."""
    known = list(buffers)
    # A sum can only grow where a buffer begins.
    return max(
        (
            sum(b.size for b in known if b.first <= step <= b.last)
            for step in {b.first for b in known}
        ),
        default=0,
    )


def _best_fit(size: int, taken: Sequence[tuple[int, int]], alignment: int) -> int:
    """The start of the smallest gap between `taken` (sorted) that holds `size`; else their end."""
    end, best, smallest = 0, None, None
    for start, stop in taken:
        if start - end >= size and (smallest is None or start - end < smallest):
            best, smallest = end, start - end
        end = max(end, -(-stop // alignment) * alignment)
    return end if best is None else best


C_TYPES = {"uint8": "MPS_U8", "uint16": "MPS_U16", "int16": "MPS_I16", "int32": "MPS_I32"}


def c_type(tensor: IntegerTensor) -> str:
    """The name of the tensor's storage type in integers.h."""
    return C_TYPES[np.dtype(tensor.dtype).name]


def element_bytes(tensor: IntegerTensor) -> int:
    """Bytes of one stored element."""
    return np.dtype(tensor.dtype).itemsize


def elements(tensor: IntegerTensor) -> int:
    """Elements of one sample; a scalar has one."""
    return prod(tensor.shape)


def tensor_bytes(tensor: IntegerTensor) -> int:
    """Bytes of one sample."""
    return elements(tensor) * element_bytes(tensor)


@dataclass(frozen=True)
class Storage:
    """The arena, the name of the buffer in which each tensor lies, and all buffers."""

    arena: Arena
    buffer_of: dict[str, str]
    buffers: tuple[Buffer, ...]

    def scratch(self, step: Step) -> int | None:
        """The first byte of what a step's kernel needs; None where it needs nothing."""
        return self.arena.offsets.get(scratch_of(step))

    def offset(self, name: str) -> int:
        """The first byte of a tensor."""
        return self.arena.offsets[self.buffer_of[name]]


def store(
    graph: IntegerGraph, arranged: Arranged, kernels: Mapping[str, Kernel], family: Family
) -> Storage:
    """Plan one sample's run. A reshaped tensor shares the bytes of its source.

    Entries are there before the first step (step 0), the output after the last one.
    """
    buffer_of = {entry.tensor.name: entry.tensor.name for entry in graph.inputs}
    first = dict.fromkeys(buffer_of, 0)
    last = dict.fromkeys(buffer_of, 0)
    tensors = arranged.tensors
    buffers = []
    for number, step in enumerate(arranged.steps, start=1):
        shared = isinstance(step, Reshape)
        name = buffer_of[step.sources[0]] if shared else step.output.name
        buffer_of[step.output.name] = name
        first.setdefault(name, number)
        for used in (name, *(buffer_of[source] for source in step.sources)):
            last[used] = number
        if isinstance(step, Convolution | Linear):
            kernel, source = kernels[step.weights.layer], tensors[step.sources[0]]
            needed = family.scratch(step, kernel, source).size
            if needed:
                buffers.append(Buffer(scratch_of(step), needed, number, number))
    last[buffer_of[arranged.output]] = len(arranged.steps) + 1
    buffers += [
        Buffer(name, tensor_bytes(tensors[name]), first[name], last[name]) for name in first
    ]
    return Storage(plan(buffers), buffer_of, tuple(buffers))


def scratch_of(step: Step) -> str:
    """The name of a step's scratch among the buffers."""
    return f"patches of {step.output.name}"

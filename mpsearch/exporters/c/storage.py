"""Where every tensor of a graph lies in the static memory of the C code, and as which type."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from mpsearch.exporters.c.arena import Arena, Buffer, plan
from mpsearch.exporters.c.families import Family
from mpsearch.exporters.c.in_place import written_over
from mpsearch.exporters.c.kernels import Kernel
from mpsearch.exporters.c.layouts import Arranged
from mpsearch.exporters.c.packed import PackedTensor, bits_of
from mpsearch.exporters.c.summing import layer_of
from mpsearch.integer.graph import IntegerGraph, IntegerTensor, Reshape, Step

C_TYPES = {"uint8": "MPS_U8", "uint16": "MPS_U16", "int16": "MPS_I16", "int32": "MPS_I32"}


def c_type(tensor: IntegerTensor) -> str:
    """The name of the tensor's storage type in integers.h."""
    if isinstance(tensor, PackedTensor):
        return f"MPS_U{tensor.stored_bits}"
    return C_TYPES[np.dtype(tensor.dtype).name]


def elements(tensor: IntegerTensor) -> int:
    """Elements of one sample; a scalar has one."""
    return prod(tensor.shape)


def tensor_bytes(tensor: IntegerTensor) -> int:
    """Bytes of one sample."""
    return -(-elements(tensor) * bits_of(tensor) // 8)


@dataclass(frozen=True)
class Storage:
    """The arena, the name of the buffer in which each tensor lies, and all buffers."""

    arena: Arena
    buffer_of: dict[str, str]
    packed: dict[str, int]
    """Of tensors whose codes share bytes, the bits of a code."""
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
    """Plan one sample's run. A reshaped tensor shares the bytes of its source; what can
    be is written over a source that nothing reads later.

    Entries are there before the first step (step 0), the output after the last one.
    """
    tensors = arranged.tensors
    buffer_of = {entry.tensor.name: entry.tensor.name for entry in graph.inputs}
    first = dict.fromkeys(buffer_of, 0)
    last = dict.fromkeys(buffer_of, 0)
    for number, step in enumerate(arranged.steps, start=1):
        shared = isinstance(step, Reshape)
        name = buffer_of[step.sources[0]] if shared else step.output.name
        buffer_of[step.output.name] = name
        first.setdefault(name, number)
        for used in (name, *(buffer_of[source] for source in step.sources)):
            last[used] = number
    last[buffer_of[arranged.output]] = len(arranged.steps) + 1
    buffers, over = [], {}
    for number, step in enumerate(arranged.steps, start=1):
        if (layer := layer_of(step)) is not None:
            kernel, source = kernels[layer.weights.layer], tensors[step.sources[0]]
            needed = family.scratch(layer, kernel, source).size
            if needed:
                buffers.append(Buffer(scratch_of(step), needed, number, number))
        dying = {name for name in map(buffer_of.__getitem__, step.sources) if last[name] == number}
        over[step.output.name] = written_over(arranged, step, kernels, family, buffer_of, dying)
    buffers += [
        Buffer(
            name,
            tensor_bytes(tensors[name]),
            first[name],
            last[name],
            *(over.get(name) or (None, 0)),
        )
        for name in first
    ]
    packed = {name: bits_of(t) for name, t in tensors.items() if isinstance(t, PackedTensor)}
    return Storage(plan(buffers), buffer_of, packed, tuple(buffers))


def scratch_of(step: Step) -> str:
    """The name of a step's scratch among the buffers."""
    return f"patches of {step.output.name}"

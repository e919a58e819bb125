"""Where every tensor of a graph lies in the static memory of the C code."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from mpsearch.exporters.c.arena import Arena, Buffer, plan
from mpsearch.exporters.c.kernels import Kernel, scratch
from mpsearch.exporters.c.layouts import Arranged
from mpsearch.integer.graph import Convolution, IntegerGraph, IntegerTensor, Linear, Reshape, Step

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
    """The arena, and the name of the buffer in which each tensor lies."""

    arena: Arena
    buffer_of: dict[str, str]

    def scratch(self, step: Step) -> int | None:
        """The first byte of what a step's kernel needs; None where it needs nothing."""
        return self.arena.offsets.get(scratch_of(step))

    def offset(self, name: str) -> int:
        """The first byte of a tensor."""
        return self.arena.offsets[self.buffer_of[name]]


def store(graph: IntegerGraph, arranged: Arranged, kernels: Mapping[str, Kernel]) -> Storage:
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
            needed = scratch(step, kernels[step.weights.layer], tensors[step.sources[0]]).size
            if needed:
                buffers.append(Buffer(scratch_of(step), needed, number, number))
    last[buffer_of[arranged.output]] = len(arranged.steps) + 1
    buffers += [
        Buffer(name, tensor_bytes(tensors[name]), first[name], last[name]) for name in first
    ]
    return Storage(plan(buffers), buffer_of)


def scratch_of(step: Step) -> str:
    """The name of a step's scratch among the buffers."""
    return f"patches of {step.output.name}"

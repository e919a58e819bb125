"""Where outputs are put together: in floats, so that every part keeps a scale of its own.

A network with several outputs, or one that returns torch.cat([box, score], 1), ends in a
concatenation. In int8 all of it would have one scale: boxes of 320 pixels would leave five codes
for scores of ±3. So each operand is dequantized with its own scale, and what follows (the
concatenation, and what only orders or clips its values) works on the floats.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mpsearch.errors import InputError
from mpsearch.exporters.litert.layouts import FIRST, Tensors, stored_shape, strided_slice
from mpsearch.exporters.litert.steps import log_softmax, quantize_float
from mpsearch.graph.outputs import Output
from mpsearch.integer.graph import (
    Clamp,
    Concatenate,
    IntegerGraph,
    Permute,
    Reshape,
    Shape,
    Slice,
)
from mpsearch.integer.log_softmax import LogSoftmax

Joining = Concatenate | Reshape | Permute | Slice | Clamp | LogSoftmax
WHOLE = "output"  # the signature's name for a single output, and for several side by side


def joined_tensors(graph: IntegerGraph) -> frozenset[str]:
    """The tensors that the output is made of by ordering alone, from its first concatenations on;
    a log-softmax before that is one of them, as floats have finer steps there than int8.

    A reshape before a concatenation, as several outputs have it, belongs to it.
    """
    made = {step.output.name: step for step in graph.steps}
    reached, pending = set(), [graph.output.name]
    while pending:
        name = pending.pop()
        if isinstance(made.get(name), Joining) and name not in reached:
            reached.add(name)
            pending += made[name].sources
    joined: set[str] = set()
    for step in graph.steps:
        after = isinstance(step, Concatenate | LogSoftmax) or joined.intersection(step.sources)
        if step.output.name in reached and after:
            joined.add(step.output.name)
    for step in reversed(graph.steps):
        name = step.output.name
        readers = {reader.output.name for reader in graph.steps if name in reader.sources}
        if isinstance(step, Reshape) and name in reached and readers and readers <= joined:
            joined.add(name)
    return frozenset(joined)


def read_as_codes(graph: IntegerGraph, joined: frozenset[str]) -> frozenset[str]:
    """Those of the joined tensors that also something else reads, in int8."""
    steps = [step for step in graph.steps if step.output.name not in joined]
    return joined.intersection(name for step in steps for name in step.sources)


@dataclass
class JoinedOutputs:
    """Writes tensors as floats, each once, and gives the outputs their names."""

    tensors: Tensors
    graph: IntegerGraph
    joined: frozenset[str]
    floats: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.made = {step.output.name: step for step in self.graph.steps}
        self.shapes = {name: tensor.shape for name, tensor in self.graph.tensors.items()}

    def codes(self, name: str) -> None:
        """A joined tensor in int8, for what else reads it."""
        quantize_float(self.tensors, name, self.shapes[name], self.real(name))

    def signature(self, outputs: Sequence[Output]) -> dict[str, int]:
        """Name -> tensor: every output in its own shape and, as `output`, all side by side.

        An output of the network's own that is called `output` keeps that name. Class numbers are
        int64, everything else float32.
        """
        name = self.graph.output.name
        if self.graph.gives_classes:
            return {WHOLE: self.tensors.read(name, FIRST)}
        if len(outputs) == 1:
            return {WHOLE: self.real(name)}
        sources = self.made[name].sources if name in self.made else ()
        sizes = [math.prod(self.shapes[source]) for source in sources]
        if sizes != [output.stop - output.start for output in outputs]:
            raise InputError("damaged mpsearch file: its outputs do not match its graph")
        named = {
            output.name: self._named(source, output)
            for output, source in zip(outputs, sources, strict=True)
        }
        return named if WHOLE in named else {WHOLE: self.real(name)} | named

    def real(self, name: str) -> int:
        """The float32 tensor [1, …] of a tensor: dequantized, or ordered from such ones."""
        if name not in self.floats:
            step = self.made.get(name)
            if name in self.joined:
                assert isinstance(step, Joining)
                self.floats[name] = self._ordered(step)
            else:
                target = self._float(name, self.shapes[name])
                source = self.tensors.read(name, FIRST)
                self.tensors.file.operator("DEQUANTIZE", 2, [source], [target], "DequantizeOptions")
                self.floats[name] = target
        return self.floats[name]

    def _named(self, name: str, output: Output) -> int:
        """A tensor of its own for one output, even where the network returns something twice."""
        step = self.made.get(name)
        if isinstance(step, Reshape) and self.shapes[step.sources[0]] == output.shape:
            name = step.sources[0]
        target = self.tensors.file.tensor(output.name, (1, *output.shape), "FLOAT32")
        self.tensors.reshape(self.real(name), target, (1, *output.shape))
        return target

    def _float(self, name: str, shape: Shape) -> int:
        return self.tensors.file.tensor(f"{name} output", stored_shape(shape, FIRST), "FLOAT32")

    def _ordered(self, step: Joining) -> int:
        tensors, shape = self.tensors, step.output.shape
        sources = [self.real(name) for name in step.sources]
        if isinstance(step, Clamp):
            return self._clipped(step, sources[0])
        if isinstance(step, LogSoftmax):
            return log_softmax(self.tensors, step, sources[0])
        target = self._float(step.output.name, shape)
        match step:
            case Concatenate():
                tensors.file.operator(
                    "CONCATENATION", 1, sources, [target], "ConcatenationOptions",
                    axis=step.axis + 1,
                )  # fmt: skip
            case Reshape():
                tensors.reshape(sources[0], target, stored_shape(shape, FIRST))
            case Permute():
                tensors.transpose(sources[0], target, (0, *(axis + 1 for axis in step.axes)))
            case Slice():
                stored = stored_shape(self.shapes[step.sources[0]], FIRST)
                strided_slice(tensors, step, sources[0], target, stored, step.axis + 1)
        return target

    def _clipped(self, step: Clamp, source: int) -> int:
        """MAXIMUM and MINIMUM for the ends that are not the integers' own."""
        file, tensor = self.tensors.file, step.output
        for operator, end, own in (
            ("MAXIMUM", step.low, tensor.low), ("MINIMUM", step.high, tensor.high),
        ):  # fmt: skip
            if end == own:
                continue
            value = np.array([(end - tensor.zero_point) * tensor.scale])
            limit = file.tensor(f"{tensor.name} {operator} output", (1,), "FLOAT32", values=value)
            target = self._float(f"{tensor.name} {operator}", tensor.shape)
            file.operator(operator, 1, [source, limit], [target], "MaximumMinimumOptions")
            source = target
        return source

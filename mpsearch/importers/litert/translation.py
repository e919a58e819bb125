"""A LiteRT graph on its way to steps that the ONNX importer runs.

LiteRT has channels last, torch's convolutions channels first. A tensor stays as its operator wrote
it and is transposed when a reader wants the other layout, once: between the input and the last
pooling there is one transpose. A flattened image stays in torch's order as long as only linear
layers read it; they reorder their columns instead.

Every step runs at once, on zeros that take no memory: shapes are known as LiteRT finds them when it
runs, for a file leaves them open behind a free batch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mpsearch.errors import InputError
from mpsearch.importers.litert.constants import dtype_of, values_of
from mpsearch.importers.litert.names import layer_names
from mpsearch.importers.litert.reading import Array, LiteRtGraph, Tensor
from mpsearch.importers.onnx.calls import Call
from mpsearch.importers.onnx.interpreter import Transient, run_call
from mpsearch.importers.onnx.steps import Step

OPSET = 20  # whose definitions the steps follow
LAST, FIRST, FLAT = "channels last", "channels first", "flattened from channels first"


def to_first(rank: int) -> tuple[int, ...]:
    """The permutation that brings the last axis behind the first: (0, 3, 1, 2)."""
    return (0, rank - 1, *range(1, rank - 1))


def to_last(rank: int) -> tuple[int, ...]:
    """The permutation back: (0, 2, 3, 1)."""
    return (0, *range(2, rank), 1)


@dataclass
class Translation:
    """Steps and constants so far, and under which name each tensor lies in which layout.

    values: what each name stands for at the file's batch size, an array where it follows from
    shapes; a tensor's numbers mean nothing.
    """

    graph: LiteRtGraph
    steps: list[Step] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    values: dict[str, torch.Tensor | Array] = field(default_factory=dict)
    places: dict[str, tuple[int, str]] = field(default_factory=dict)
    forms: dict[int, dict[str, str]] = field(default_factory=dict)
    same: dict[int, int] = field(default_factory=dict)
    images: dict[int, int] = field(default_factory=dict)
    arrays: dict[int, Array] = field(default_factory=dict)
    weights: dict[tuple[int, str], str] = field(default_factory=dict)
    layers: Mapping[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.layers = layer_names(self.graph)
        self.names |= {name for name, _ in (*self.graph.inputs, *self.graph.outputs)}
        for name, number in self.graph.inputs:
            self.forms[number] = {LAST: name}
            zero = torch.zeros((), dtype=dtype_of(self.tensor(number)))
            self.values[name] = zero.expand(self.tensor(number).shape)

    def shape(self, number: int) -> tuple[int, ...]:
        """The shape at the file's batch size, in the file's layout."""
        number = self.origin(number)
        forms = self.forms.get(number)
        if forms is None:
            return self.tensor(number).shape
        layout, name = next(iter(forms.items()))
        shape = tuple(int(size) for size in self.values[name].shape)
        return tuple(shape[axis] for axis in to_last(len(shape))) if layout == FIRST else shape

    def fresh(self, wanted: str) -> str:
        """A name for a tensor of the plan that no other one has."""
        name, count = wanted, 0
        while name in self.names:
            count += 1
            name = f"{wanted} {count}"
        self.names.add(name)
        return name

    def origin(self, number: int) -> int:
        """The tensor that this one is the same as."""
        while number in self.same:
            number = self.same[number]
        return number

    def tensor(self, number: int) -> Tensor:
        """The tensor as the file describes it."""
        return self.graph.tensors[number]

    def is_constant(self, number: int) -> bool:
        """Whether the file holds its numbers."""
        tensor = self.tensor(self.origin(number))
        return tensor.data is not None or (self.origin(number) not in self.forms)

    def array(self, number: int) -> Array:
        """The numbers of a constant, or of what follows from shapes at the file's batch size."""
        number = self.origin(number)
        if number in self.forms:
            known = self.values[self.plain(number)]
            if isinstance(known, torch.Tensor):
                raise InputError(f"{self.name_of(number)!r:.80} depends on the data")
            return known
        if number not in self.arrays:
            self.arrays[number] = values_of(self.tensor(number))
        return self.arrays[number]

    def constant(self, wanted: str, array: Array) -> str:
        """A new constant of the plan."""
        name = self.fresh(wanted)
        self.constants[name] = np.ascontiguousarray(array).reshape(array.shape)
        return name

    def step(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> None:
        """One more step, which is run."""
        step = Step(operator, outputs[0], tuple(inputs), tuple(outputs), attributes)
        self.steps.append(step)
        known = {**{n: self.constants.get(n) for n in inputs}, "": None}
        given = tuple(self.values.get(name, known[name]) for name in inputs)
        call = Call(step, given, Transient(), self.constants, {}, OPSET)
        for name, value in zip(outputs, run_call(call), strict=False):
            if value is None:
                continue
            if isinstance(value, torch.Tensor):
                value = value.new_zeros(()).expand(value.shape)
            self.values[name] = value
            if name in self.places:
                self._check_shape(*self.places[name])

    def _check_shape(self, number: int, layout: str) -> None:
        """What an operator gives must have the shape that the file states for it, if it does."""
        stated = self.tensor(number).signature
        name = self.forms[number][layout]
        found = self.shape(number)
        if stated and (
            len(stated) != len(found)
            or any(s not in (-1, f) for s, f in zip(stated, found, strict=True))
        ):
            raise InputError(
                f"damaged LiteRT file: {name!r:.80} has the shape {list(stated)} in the file, and "
                f"its operator gives {list(found)}"
            )

    def name_of(self, number: int) -> str:
        """What messages call a tensor."""
        return self.tensor(number).name.partition(";")[0] or f"tensor {number}"

    def written(self, number: int, layout: str) -> str:
        """The name of a tensor that is about to be written in this layout."""
        name = self.fresh(self.name_of(number))
        self.forms.setdefault(number, {})[layout] = name
        self.places[name] = (number, layout)
        return name

    def lies_first(self, number: int) -> bool:
        """Whether it is at hand with channels first only."""
        forms = self.forms.get(self.origin(number), {})
        return FIRST in forms and LAST not in forms

    def plain(self, number: int) -> str:
        """The tensor's name in the file's own layout."""
        number = self.origin(number)
        if number in self.forms:
            forms = self.forms[number]
            if LAST not in forms and FIRST in forms:
                self._move(number, forms[FIRST], LAST)
            elif LAST not in forms:
                source = self.plain(self.images[number])
                self.reshape(source, number, LAST, self.shape(number))
            return forms[LAST]
        key = (number, "plain")
        if key not in self.weights:
            self.weights[key] = self.constant(self.name_of(number), self.array(number))
        return self.weights[key]

    def first(self, number: int) -> str:
        """The tensor's name with channels first; a constant is transposed here."""
        number = self.origin(number)
        rank = len(self.shape(number))
        if number in self.forms:
            forms = self.forms[number]
            if FIRST not in forms:
                self._move(number, self.plain(number), FIRST)
            return forms[FIRST]
        key = (number, "first")
        if key not in self.weights:
            turned = self.array(number).transpose(to_first(rank))
            self.weights[key] = self.constant(self.name_of(number), turned)
        return self.weights[key]

    def _move(self, number: int, source: str, layout: str) -> None:
        shape = self.shape(number)
        if math.prod(shape[1:-1]) == 1 or shape[-1] == 1:  # the order of the numbers is the same
            self.reshape(source, number, layout, shape)
            return
        target = self.written(number, layout)
        permutation = to_first(len(shape)) if layout == FIRST else to_last(len(shape))
        self.step("Transpose", [source], [target], perm=list(permutation))

    def reshape(self, source: str, number: int, layout: str, shape: Sequence[int]) -> None:
        """Write tensor `number` as `source` in a shape, which is given in the file's layout."""
        if layout == FIRST:
            shape = tuple(shape[axis] for axis in to_first(len(shape)))
        target = self.written(number, layout)
        sizes = self.constant(f"{target} shape", np.array(shape, dtype=np.int64))
        self.step("Reshape", [source, sizes], [target])

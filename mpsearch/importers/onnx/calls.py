"""One call of an ONNX operator: its inputs as values, its attributes, and where weights go.

A value is a torch tensor, or a numpy array of what is known while the graph is built: constants of
the file and shapes. Sizes that depend on the batch stand in such an array as torch's symbolic
integers (`dtype=object`), so that shape arithmetic keeps the batch free.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch

from mpsearch.errors import InputError
from mpsearch.graph import memory_budget
from mpsearch.importers.onnx.names import layer_of_node, layer_of_tensor
from mpsearch.importers.onnx.steps import Array, Step

Value = torch.Tensor | Array | None
Result = Value | tuple[Value, ...]
Size = int | torch.SymInt
T = TypeVar("T")


class Store(Protocol):
    """Where the tensors of the file live: `fetch` makes one at its first use and keeps it."""

    def fetch(
        self, key: tuple[str, str], wanted: str, make: Callable[[], torch.Tensor], fixed: bool
    ) -> torch.Tensor:
        """The tensor of that key; it is called `wanted` where that name is free."""


@dataclass(frozen=True)
class Call:
    """`rewritten`: the target that `batch.py` found for a Reshape of a file with a fixed batch."""

    step: Step
    values: tuple[Value, ...]
    store: Store
    constants: Mapping[str, Array]
    origins: Mapping[str, str]
    opset: int
    rewritten: tuple[Size, ...] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def has(self, index: int) -> bool:
        """True when the operator was given its optional input."""
        return index < len(self.values) and self.values[index] is not None

    def attribute(self, name: str, default: T) -> T:
        """An attribute as written, or the operator's default."""
        return cast(T, self.step.attributes.get(name, default))

    def is_constant(self, index: int) -> bool:
        """True for an input that the file fixes."""
        return index < len(self.values) and self.step.inputs[index] in self.constants

    def tensor(self, index: int) -> torch.Tensor:
        """The input as a tensor; constants are kept under the file's name for them."""
        value = self.values[index]
        if isinstance(value, torch.Tensor):
            return value
        if value is None:
            raise InputError(f"input {index} is missing")
        if is_symbolic(value):
            return _symbolic_tensor(value)
        name = self.step.inputs[index]
        return self.store.fetch(
            (name, ""),
            self._origin(index),
            lambda: as_torch(value),
            self.is_constant(index),
        )

    def operand(self, index: int) -> torch.Tensor | float:
        """The input of an elementwise operator: a constant of one element becomes a number."""
        value = self.values[index]
        ranks = [v.ndim for v in self.values if isinstance(v, torch.Tensor)]
        if (
            isinstance(value, np.ndarray)
            and value.size == 1
            and value.ndim <= max(ranks, default=-1)
            and value.dtype != bool
        ):
            return cast(float, value.reshape(-1)[0] if is_symbolic(value) else value.item())
        return self.tensor(index)

    def host(self, index: int) -> Array:
        """The input as an array. Raises InputError for one that depends on the data."""
        value = self.values[index]
        if isinstance(value, np.ndarray):
            return value
        raise InputError(
            f"its input {self.step.inputs[index]!r} depends on the data; expected a constant or a "
            "value that follows from shapes"
        )

    def sizes(self, index: int) -> list[Size]:
        """The input as a list of sizes, positions or axes."""
        return [
            value if isinstance(value, torch.SymInt) else int(value)
            for value in self.host(index).reshape(-1)
        ]

    def axes(self, index: int, name: str = "axes") -> list[int] | None:
        """Axes as attribute (older opsets) or as input (newer ones); None when absent."""
        if name in self.step.attributes:
            return [int(axis) for axis in self.step.attributes[name]]
        return [int(axis) for axis in self.sizes(index)] if self.has(index) else None

    def derived(self, label: str, make: Callable[[], Array]) -> torch.Tensor:
        """A tensor that follows from attributes and static shapes, kept with the graph."""
        output = self.step.outputs[0]
        return self.store.fetch(
            (output, label), f"{output}.{label}", lambda: as_torch(make()), False
        )

    def weight(self, index: int, role: str, change: Callable[[Array], Array] | None = None,
               label: str = "") -> torch.Tensor:  # fmt: skip
        """The constant input as the parameter `role` of the step's layer: `conv1.weight`.

        `change` brings it into torch's layout; `label` tells apart several changes of one tensor.
        """
        if not self.is_constant(index):
            return self.tensor(index)
        name, array = self.step.inputs[index], self.host(index)
        found = change(array) if change else array
        original = self.constants.get(self._origin(index))
        if original is not None and np.array_equal(found, original):
            name, label = self._origin(index), ""  # so that a tied weight stays one tensor
        key = (name, f"{role} {label}")
        return self.store.fetch(key, self._layer(index) + role, lambda: as_torch(found), True)

    def _layer(self, index: int) -> str:
        """Where the role follows: after the tensor's own name, the node's or a neighbour's.

        Exporters write equal tensors once, so a bias may carry the name of another layer: it is
        believed where it does not contradict the node.
        """
        own = layer_of_tensor(self._origin(index))
        if own:
            return own
        scope = layer_of_node(self.step.name, self.step.metadata)
        others = [self._origin(i) for i in range(len(self)) if self.is_constant(i)]
        for layer in filter(None, map(layer_of_tensor, others)):
            if layer.startswith(scope):
                return layer
        return (scope or self.step.name or self.step.outputs[0]) + "."

    def _origin(self, index: int) -> str:
        name = self.step.inputs[index]
        return self.origins.get(name, name)


def is_symbolic(array: Array) -> bool:
    """True when a size in it depends on the batch."""
    return array.dtype == object and any(
        isinstance(value, torch.SymInt | torch.SymFloat) for value in array.reshape(-1)
    )


def sizes_array(sizes: Sequence[Size]) -> Array:
    """Sizes as a value: int64 where all are known."""
    if all(isinstance(size, int) for size in sizes):
        return np.array(sizes, dtype=np.int64)
    array = np.empty(len(sizes), dtype=object)
    for index, size in enumerate(sizes):
        array[index] = size
    return array


def as_torch(array: Array) -> torch.Tensor:
    """A tensor of the array's own numbers."""
    if array.dtype == object:
        array = array.astype(np.int64)
    return torch.from_numpy(np.array(array))


def _symbolic_tensor(array: Array) -> torch.Tensor:
    """Sizes as data: `[batch, 3]` -> an int64 tensor."""
    parts = [torch.full((1,), value, dtype=torch.int64) for value in array.reshape(-1)]
    return torch.cat(parts).reshape(array.shape)


def as_type(x: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """The tensor as another type. `x.to` would leave a check of the type in the exported graph."""
    return x if x.dtype == kind else torch.ops.aten._to_copy.default(x, dtype=kind)


def check_elements(shape: Sequence[Any]) -> None:
    """Refuse to make an array that does not fit the load's budget of memory.

    For what numpy allocates; torch's operators are watched while they run.
    """
    count = 8
    for size in shape:
        count *= max(0, int(size)) if isinstance(size, int | np.integer) else 1
    memory_budget.expect(count, f"a tensor of shape {[str(size) for size in shape[:8]]}")


def axis_of(axis: int, rank: int) -> int:
    """`-1` of 4 dimensions -> 3. Raises InputError out of range."""
    if not -rank <= axis < rank:
        raise InputError(f"got axis {axis} for {rank} dimensions")
    return axis % rank


def sizes_of(tensor: torch.Tensor) -> list[Size]:
    """The shape, symbolic where it depends on the batch."""
    shape: Any = tensor.shape
    return list(shape)

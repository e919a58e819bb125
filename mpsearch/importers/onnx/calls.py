"""One call of an ONNX operator: its inputs as values, its attributes, and where weights go.

A value is a torch tensor, or a numpy array of what is known while the graph is built: constants of
the file and shapes. Sizes that depend on the batch stand in such an array as torch's symbolic
integers (`dtype=object`), so that shape arithmetic keeps the batch free.

Names of layers and tensors as the framework that wrote the file knew them.

Exporters keep them in different places: as the initializer's name (`layer1.0.conv1.weight`), as the
node's name (`/layer1/layer1.0/conv1/Conv`, when the weight has become `onnx::Conv_123`) or in the
node's metadata (`pkg.torch.onnx.name_scopes`).
"""

import ast
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import fx

from mpsearch.errors import InputError
from mpsearch.graph import memory_budget
from mpsearch.importers.onnx.steps import Array, Step

_ROLE = re.compile(r"^(.+)[./](weight|kernel|bias|W|w|B|b)(:0)?$|^(.+)_(weight|bias)$")
_SCOPES = "pkg.torch.onnx.name_scopes"
# Attributes of modules: a tensor must not take their place.
_TAKEN = frozenset(dir(fx.GraphModule)) | {"training", "forward", "plan", "tensors"}


class TensorNames:
    """Gives every tensor a qualified name of its own, out of the characters that a graph takes."""

    def __init__(self) -> None:
        self._leaves: set[str] = set()
        self._branches: set[str] = set()

    def fresh(self, wanted: str) -> str:
        """`wanted` as a legal name, with `_1`, `_2`, … where another tensor has it already."""
        legal = legal_path(wanted)
        name, count = legal, 0
        while not self._is_free(name):
            count += 1
            name = _numbered(legal, count)
        self._leaves.add(name)
        parts = name.split(".")
        self._branches.update(".".join(parts[:i]) for i in range(1, len(parts)))
        return name

    def _is_free(self, name: str) -> bool:
        parts = name.split(".")
        above = {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
        return name not in self._branches and not above & self._leaves


def _numbered(name: str, count: int) -> str:
    """The name of another layer: a second weight under a name is not another tensor of its layer.

    `fc.weight` -> `fc_1.weight`, and for the layers of an LSTM `rnn.weight_ih_l0` ->
    `rnn.weight_ih_l1`.
    """
    stacked = re.match(r"(.*_[ih]h_l)0(_reverse)?$", name)
    if stacked:
        return f"{stacked.group(1)}{count}{stacked.group(2) or ''}"
    owner, dot, leaf = name.rpartition(".")
    return f"{owner}_{count}.{leaf}" if dot else f"{leaf}_{count}"


def legal_path(name: str) -> str:
    """`/features/0/weight:0` -> `features.0.weight_0`: identifiers and numbers between dots.

    Two names may become one; `TensorNames` keeps them apart.
    """
    parts = [part for part in re.split(r"[./]+", name) if part]
    return ".".join(_legal_part(part) for part in parts) or "tensor"


def _legal_part(part: str) -> str:
    legal = re.sub(r"[^0-9A-Za-z_]+", "_", part)
    if legal.startswith("__") or not legal.strip("_"):
        legal = "t" + legal
    if legal in _TAKEN or keyword.iskeyword(legal):
        legal += "_"
    return legal


def identifier(name: str) -> str:
    """A Python identifier for an input: `input:0` -> `input_0`."""
    legal = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"x_{legal}" if not legal or legal[0].isdigit() or keyword.iskeyword(legal) else legal


def layer_of_tensor(name: str) -> str:
    """Where a parameter's role follows: `layer1.0.conv1.weight` -> `layer1.0.conv1.`.

    torch's attention has `attn.in_proj_weight` -> `attn.in_proj_`. Empty for a name that tells no
    layer, such as `onnx::Conv_123`.
    """
    match = _ROLE.match(name)
    if match is None or "::" in name:
        return ""
    if match.group(1):
        return match.group(1) + "."
    return match.group(4) + ("_" if "." in name else ".")


def layer_of_node(name: str, metadata: Mapping[str, str]) -> str:
    """`/layer1/layer1.0/conv1/Conv` -> `layer1.0.conv1`; empty when the node stands at the top."""
    scopes = _scopes(metadata)
    if scopes:
        return scopes
    parts = [part for part in name.split("/") if part]
    path: list[str] = []
    for part in parts[:-1]:
        # torch writes an element of a list under the name of the list
        if path and part.startswith(path[-1] + "."):
            path.pop()
        path.append(part)
    return ".".join(path)


def _scopes(metadata: Mapping[str, str]) -> str:
    """The innermost module in torch's list `['', 'encoder', 'encoder.fc', 'linear']`."""
    try:
        scopes = ast.literal_eval(metadata.get(_SCOPES, "[]"))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ""
    if not isinstance(scopes, list) or len(scopes) < 2:
        return ""
    return str(scopes[-2])


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

"""`Call`: one aten operator that is being written, its arguments as ONNX tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx

from mpsearch.exporters.onnx.graph_builder import GraphBuilder, element_type, unsupported
from mpsearch.exporters.onnx.sizes import Form, Found, Size, Sizes
from mpsearch.graph.layers import argument, packet
from mpsearch.graph.tensors import get_tensor

LAST = 2**63 - 1  # as the end of a slice: all of it
# onnxruntime's arithmetic on the CPU has these types; others are computed in int64.
_ARITHMETIC = {torch.float32, torch.float64, torch.int32, torch.int64}


def arithmetic_type(dtype: torch.dtype) -> torch.dtype:
    """The type in which runtimes compute what has `dtype`."""
    return dtype if dtype in _ARITHMETIC else torch.int64


@dataclass(frozen=True)
class Tensor:
    """A tensor of the ONNX graph."""

    name: str
    form: Form

    @property
    def sizes(self) -> Sizes:
        return self.form.sizes

    @property
    def dtype(self) -> torch.dtype:
        return self.form.dtype


Written = Tensor | tuple[Tensor | None, ...]
Operand = Tensor | str


@dataclass
class Call:
    """Writes the ONNX nodes of `node`; `written` has the tensors of the nodes before it.

    Intermediate results are called NODE/OPERATOR, constants NODE/constant.
    """

    build: GraphBuilder
    node: fx.Node
    graph: fx.GraphModule
    found: Mapping[fx.Node, Found]
    written: Mapping[fx.Node, Written]
    count: int = field(default=0)

    @property
    def operator(self) -> str:
        """The aten operator's name."""
        return packet(self.node)

    @property
    def overload(self) -> str:
        """The operator's overload, such as `dim_IntList`."""
        return str(getattr(self.node.target, "_overloadname", ""))

    @property
    def result(self) -> Form:
        """What the node gives: of several tensors the first."""
        form = self.found[self.node]
        if isinstance(form, tuple) and not isinstance(form, Size):
            form = form[0]
        assert isinstance(form, Form)
        return form

    @property
    def results(self) -> tuple[Form | None, ...]:
        """What a node that gives several tensors gives."""
        forms = self.found[self.node]
        assert isinstance(forms, tuple)
        return forms  # type: ignore[return-value]

    def refuse(self, why: str) -> Exception:
        """The error to raise."""
        return unsupported(self.node, why)

    # arguments

    def has(self, name: str) -> bool:
        """Whether the argument is there and not None."""
        return self.given(name) is not None

    def given(self, name: str) -> Any:
        """The argument as it stands in the graph; None where the operator has none of this name."""
        try:
            return argument(self.node, name)
        except KeyError:
            return None

    def flag(self, name: str) -> bool:
        """A yes-or-no argument; False where there is none of this name."""
        return bool(self.given(name))

    def number(self, name: str, default: float | None = None) -> Any:
        """A number that is not computed."""
        value = self.given(name)
        value = default if value is None else value
        if not isinstance(value, int | float):
            raise self.refuse(f"has an argument {name} that is computed")
        return value

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number that is not computed."""
        return int(self.number(name, default))

    def wholes(self, name: str) -> list[int]:
        """A list of whole numbers that are not computed; one number is a list of one."""
        value = self.given(name)
        listed = list(value) if isinstance(value, list | tuple) else [value]
        if not all(isinstance(item, int) for item in listed):
            raise self.refuse(f"has an argument {name} that is computed")
        return [int(item) for item in listed]

    def tensor(self, name: str) -> Tensor:
        """An argument as a tensor; a number becomes a constant."""
        return self.as_tensor(self.given(name))

    def tensors(self, name: str) -> list[Tensor]:
        """A list of tensors."""
        return [self.as_tensor(value) for value in self.given(name)]

    def as_tensor(self, value: Any) -> Tensor:
        """A node, a number, or a number that follows from the size of the batch."""
        if isinstance(value, bool | int | float):
            kind = {bool: torch.bool, int: torch.int64}.get(type(value), torch.float32)
            name = self.constant(torch.tensor(value, dtype=kind).numpy())
            return Tensor(name, Form((), kind))
        if not isinstance(value, fx.Node):
            raise self.refuse(f"takes {value}, which is no tensor")
        form = self.found.get(value)
        if isinstance(form, Size):
            scalar = self.add("Squeeze", [self.extent(form), self.constant(np.array([0]))])
            return Tensor(scalar, Form((), torch.int64))
        if value.op == "get_attr" and value not in self.written:
            values = get_tensor(self.graph, str(value.target)).detach().cpu().contiguous()
            assert isinstance(form, Form)
            return Tensor(self.build.array(f"{value.target}/value", values.numpy()), form)
        written = self.written.get(value)
        if not isinstance(written, Tensor):
            raise self.refuse(f"takes {value}, which is no tensor")
        return written

    def axis(self, name: str, rank: int | None = None) -> int:
        """A dimension, not negative; of a tensor of `rank` dimensions, or of the operator's own."""
        rank = self.tensor("self").form.rank if rank is None else rank
        return self.whole(name) % max(1, rank)

    def axes(self, name: str, rank: int | None = None) -> list[int]:
        """Several dimensions, not negative, in order; all of them where none are named."""
        rank = self.tensor("self").form.rank if rank is None else rank
        if self.given(name) in (None, [], ()):
            return list(range(rank))
        return sorted(axis % max(1, rank) for axis in self.wholes(name))

    def promoted(self, *names: str) -> torch.dtype:
        """The type in which torch computes with these arguments."""
        metas: list[Any] = []
        for name in names:
            value = self.given(name)
            form = self.found.get(value) if isinstance(value, fx.Node) else None
            if isinstance(form, Form):
                metas.append(torch.empty([1] * form.rank, dtype=form.dtype, device="meta"))
            else:
                metas.append(1 if isinstance(value, fx.Node) else value)
        dtype = torch.result_type(metas[0], metas[1])
        assert len(metas) == 2
        return dtype

    # writing

    def fresh(self, kind: str) -> str:
        """A new name for an inner tensor."""
        self.count += 1
        return f"{self.node.name}/{kind}{self.count}"

    def add(self, operator: str, inputs: Sequence[Operand], **attributes: Any) -> str:
        """Add an ONNX node with one result; returns its name."""
        names = [x.name if isinstance(x, Tensor) else x for x in inputs]
        return self.build.add(operator, names, self.fresh(operator), **attributes)

    def several(
        self, operator: str, inputs: Sequence[Operand], count: int, **attributes: Any
    ) -> list[str]:
        """Add an ONNX node with several results; returns their names."""
        names = [x.name if isinstance(x, Tensor) else x for x in inputs]
        outputs = [self.fresh(operator) for _ in range(count)]
        return self.build.several(operator, names, outputs, **attributes)

    def constant(self, values: np.ndarray) -> str:
        """Add a constant in numpy's own type."""
        return self.build.array(self.fresh("constant"), values)

    def scalar(self, value: float, dtype: torch.dtype = torch.float32) -> str:
        """Add a number as a constant of `dtype`."""
        return self.constant(torch.tensor(value, dtype=dtype).numpy())

    def whole_list(self, values: Sequence[int]) -> str:
        """Add a list of int64 as a constant."""
        return self.constant(np.array(values, dtype=np.int64))

    def cast(self, tensor: Tensor, dtype: torch.dtype) -> str:
        """The tensor in another type."""
        if tensor.dtype == dtype:
            return tensor.name
        return self.add("Cast", [tensor], to=element_type(dtype))

    def cast_name(self, name: str, old: torch.dtype, new: torch.dtype) -> str:
        """An inner result in another type."""
        return name if old == new else self.add("Cast", [name], to=element_type(new))

    def in_type(self, name: str, dtype: torch.dtype | None = None) -> str:
        """An argument in `dtype`, or in the type of the result."""
        return self.cast(self.tensor(name), dtype or self.result.dtype)

    def computed(
        self, dtype: torch.dtype, names: Sequence[str], write: Callable[[list[str]], str]
    ) -> str:
        """`write` on the arguments `names` in `dtype`, in a type that runtimes can compute in."""
        kind = arithmetic_type(dtype)
        made = write([self.in_type(name, kind) for name in names])
        return self.cast_name(made, kind, dtype)

    def extent(self, size: Size) -> str:
        """A size as a list of one number."""
        if size.is_fixed:
            return self.whole_list([size.fixed])
        name = self.build.samples
        if size.per_sample != 1:
            name = self.add("Mul", [name, self.whole_list([size.per_sample])])
        if size.fixed:
            name = self.add("Add", [name, self.whole_list([size.fixed])])
        return name

    def bound(self, value: Any) -> str:
        """An end of a slice, or an index, as a list of one number."""
        if isinstance(value, fx.Node):
            size = self.found.get(value)
            if not isinstance(size, Size):
                raise self.refuse("has bounds that are computed")
            return self.extent(size)
        return self.whole_list([int(value)])

    def extents(self, sizes: Sequence[Size]) -> str:
        """Sizes as a list of numbers."""
        if all(size.is_fixed for size in sizes):
            return self.whole_list([size.fixed for size in sizes])
        return self.add("Concat", [self.extent(size) for size in sizes], axis=0)

    def reshape(self, source: Operand, sizes: Sequence[Size]) -> str:
        """The same values in other sizes; the one that has the batch in it may be left open."""
        free = [size for size in sizes if not size.is_fixed]
        if len(free) == 1 and all(size.fixed for size in sizes if size.is_fixed):
            target = self.whole_list([size.fixed if size.is_fixed else -1 for size in sizes])
        else:
            target = self.extents(sizes)
        return self.add("Reshape", [source, target])

    def expand(self, source: Operand, old: Sequence[Size], new: Sequence[Size]) -> str:
        """Repeat along dimensions of size 1 and new ones ahead."""
        padded = [Size(1)] * (len(new) - len(old)) + list(old)
        if padded == list(new) and len(old) == len(new):
            return source.name if isinstance(source, Tensor) else source
        target = [Size(1) if a == b else b for a, b in zip(padded, new, strict=True)]
        return self.add("Expand", [source, self.extents(target)])

    def transpose(self, source: Operand, order: Sequence[int]) -> str:
        """Axis i of the result is the source's axis order[i]."""
        if list(order) == sorted(order):
            return source.name if isinstance(source, Tensor) else source
        return self.add("Transpose", [source], perm=list(order))

    def slice(self, source: Operand, axis: int, start: Any, end: Any, step: int = 1) -> str:
        """source[start:end:step] along an axis."""
        bounds = [self.bound(start), self.bound(end)]
        return self.add(
            "Slice", [source, *bounds, self.whole_list([axis]), self.whole_list([step])]
        )


Writer = Callable[[Call], str | Sequence[str | None]]


def plain(operator: str, **attributes: Any) -> Writer:
    """An ONNX operator of one tensor, in the type of the result."""

    def write(call: Call) -> str:
        names = [parameter.name for parameter in call.node.target._schema.arguments]  # type: ignore[union-attr]
        return call.add(operator, [call.in_type(names[0])], **attributes)

    return write

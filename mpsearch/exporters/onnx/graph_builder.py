"""`GraphBuilder`: nodes and constants of an ONNX graph, in the order in which they are added.

Which ONNX integer type holds codes of given bits, and the bytes that it takes.

What the arguments of aten operators mean for ONNX nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx

from mpsearch.errors import InputError
from mpsearch.graph.layers import argument, groups, is_transposed
from mpsearch.graph.refusals import refused
from mpsearch.integer.operators import integers
from mpsearch.quantization.packing import pack
from mpsearch.running.plugins import onnx_package
from mpsearch.tables.stored_widths import ONNX_BITS

_SAMPLES = "samples/count"
_TYPES = {
    torch.float32: "FLOAT", torch.float64: "DOUBLE", torch.float16: "FLOAT16",
    torch.int64: "INT64", torch.int32: "INT32", torch.int16: "INT16", torch.int8: "INT8",
    torch.uint8: "UINT8", torch.bool: "BOOL",
}  # fmt: skip


def stored_bits(bits: int) -> int:
    """The bits of the type that holds codes of `bits` bits: 3 -> 4, 5 -> 8, 16 -> 16."""
    return next(stored for stored in ONNX_BITS if bits <= stored)


def type_name(bits: int, signed: bool) -> str:
    """The name in onnx.TensorProto: (3, True) -> INT4, (8, False) -> UINT8."""
    return f"{'' if signed else 'U'}INT{stored_bits(bits)}"


def raw_bytes(codes: np.ndarray, bits: int) -> bytes:
    """Codes as the raw data of an initializer: little-endian, two 4-bit codes in a byte, the first
    in the low half: [3, -1] at 4 bits -> F3."""
    return pack(codes, stored_bits(bits)).tobytes()


@dataclass
class GraphBuilder:
    """Nodes and initializers made so far, as onnx protobuf messages.

    Without `clips` a clamp is written as Max and Min: onnxruntime (1.31) does not load a Clip in
    front of 4-bit codes above its basic optimisation level.
    """

    first_input: str
    clips: bool = True
    counted: bool = False
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output, which also names the node; returns `output`."""
        helper = onnx_package().helper
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def several(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs, named after the first; returns `outputs`."""
        helper = onnx_package().helper
        made = helper.make_node(operator, inputs, list(outputs), name=outputs[0], **attributes)
        self.nodes.append(made)
        return list(outputs)

    @property
    def samples(self) -> str:
        """The size of the batch as a list of one number."""
        if not self.counted:
            self.counted = True
            self.add("Shape", [self.first_input], _SAMPLES, start=0, end=1)
        return _SAMPLES

    def array(self, name: str, values: np.ndarray) -> str:
        """Add a constant in numpy's own type; returns `name`."""
        if name not in self.constants:
            self.constants[name] = onnx_package().numpy_helper.from_array(values, name)
        return name

    def real(self, name: str, value: float) -> str:
        """Add a float32 scalar."""
        return self.array(name, np.array(value, dtype=np.float32))

    def clamp(self, source: str, low: float | None, high: float | None, output: str) -> str:
        """Add what limits `source` to [low, high], either end may be None."""
        ends = {"low": low, "high": high}
        names = {
            key: "" if end is None else self.real(f"{output}/{key}", end)
            for key, end in ends.items()
        }
        if self.clips:
            return self.add("Clip", [source, *names.values()], output)
        if low is not None and high is not None:
            source = self.add("Max", [source, names["low"]], f"{output}/raised")
            return self.add("Min", [source, names["high"]], output)
        operator = "Max" if high is None else "Min"
        return self.add(operator, [source, names["low"] or names["high"]], output)

    def whole(self, name: str, values: Sequence[int]) -> str:
        """Add a list of int64."""
        return self.array(name, np.array(values, dtype=np.int64))

    def codes(self, name: str, values: np.ndarray, bits: int, signed: bool) -> str:
        """Add integers of `bits` bits, packed in the smallest type that holds them."""
        if name not in self.constants:
            onnx = onnx_package()
            kind = getattr(onnx.TensorProto, type_name(bits, signed))
            self.constants[name] = onnx.helper.make_tensor(
                name, kind, values.shape, raw_bytes(values, bits), raw=True
            )
        return name

    def leave(
        self, source: str, name: str, inputs: Sequence[str], shape: Sequence[int] | None = None
    ) -> str:
        """Let `source` leave the graph as `name`, in another `shape` if given; returns its name.

        An inner tensor of that name gives way. An input or a constant does not: the output is then
        `NAME_out`.
        """
        while name in (*inputs, *self.constants, *self.left):
            name += "_out"
        source = self.renamed.get(source, source)
        if name != source:
            self._rename(name, f"{name}/inner")
        if shape is not None:
            self.add("Reshape", [source, self.whole(f"{name}/shape", shape)], name)
        elif source in (*inputs, *self.constants, *self.left):
            self.add("Identity", [source], name)
        else:
            self._rename(source, name)
        self.left.append(name)
        return name

    def rename_last(self, start: int, old: str, new: str) -> str:
        """Call the tensor `old` `new` where one of the nodes from number `start` on makes it."""
        made = [node for node in self.nodes[start:] if old in node.output]
        if not made:
            return old
        for node in self.nodes[start:]:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == old:
                        names[place] = new
        made[0].name = new
        return new

    def _rename(self, old: str, new: str) -> None:
        """Everywhere; `renamed` has it for those who know the tensor by its first name."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == old:
                        names[place] = new
            node.name = new if node.name == old else node.name
        first = next((key for key, name in self.renamed.items() if name == old), old)
        self.renamed[first] = new


def unsupported(node: fx.Node, why: str = "has no form in the ONNX export") -> InputError:
    """The error for a node that is not exported, naming operator and node."""
    return refused(node, why)


def element_type(dtype: torch.dtype) -> int:
    """The number of a type in onnx.TensorProto. Raises InputError for one that ONNX lacks."""
    if dtype not in _TYPES:
        raise InputError(f"ONNX files of mpsearch hold no {dtype}")
    return int(getattr(onnx_package().TensorProto, _TYPES[dtype]))


def shape(node: fx.Node) -> tuple[int, ...]:
    """The recorded shape for a batch of one."""
    recorded: tuple[int, ...] = node.meta["shape"]
    return recorded


def spread(value: object, count: int) -> list[int]:
    """One integer per axis: (3, 2) -> [3, 3], ([1, 2], 2) -> [1, 2]."""
    numbers = list(integers(value))
    return numbers * count if len(numbers) == 1 else numbers


def convolution_attributes(node: fx.Node, kernel: list[int]) -> dict[str, Any]:
    """Attributes of Conv and ConvTranspose; "same" puts the odd place at the end."""
    strides, dilations = (
        spread(argument(node, name), len(kernel)) for name in ("stride", "dilation")
    )
    given = argument(node, "padding")
    if given == "valid":
        pads = [0] * (2 * len(kernel))
    elif given == "same":
        whole = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
        pads = [n // 2 for n in whole] + [n - n // 2 for n in whole]
    else:
        pads = spread(given, len(kernel)) * 2
    found: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": strides,
        "dilations": dilations,
        "group": groups(node),
        "pads": pads,
    }
    if is_transposed(node):
        found["output_padding"] = spread(argument(node, "output_padding"), len(kernel))
    return found

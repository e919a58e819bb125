"""`GraphBuilder`: nodes and constants of an ONNX graph, in the order in which they are added."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpsearch.exporters.onnx.storage import raw_bytes, type_name
from mpsearch.running.optional import onnx_package


@dataclass
class GraphBuilder:
    """Nodes and initializers made so far, as onnx protobuf messages.

    Without `clips` a clamp is written as Max and Min: onnxruntime (1.31) does not load a Clip in
    front of 4-bit codes above its basic optimisation level.
    """

    clips: bool = True
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output, which also names the node; returns `output`."""
        helper = onnx_package().helper
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

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

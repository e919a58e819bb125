"""Writing a LiteRT flatbuffer with the schema that ships in ai-edge-litert: one subgraph.

Nothing here decides about numbers: tensors, operators and their constants are written as given.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from mpsearch.quantization.packing import pack
from mpsearch.running.plugins import litert

SCHEMA_VERSION = 3
FILE_IDENTIFIER = b"TFL3"
SIGNATURE = "serving_default"


@dataclass(frozen=True)
class Scales:
    """A value q stands for scales·(q - zero_point), scales per index of axis `axis`, or one."""

    scales: tuple[float, ...]
    zero_point: int = 0
    axis: int = 0


@dataclass
class LiteRtFile:
    """The file as it grows: `tensor` and `operator` add to it, `content` gives its bytes.

    micro: for TensorFlow Lite Micro, which lacks some of LiteRT's operators and types.
    """

    schema: ModuleType = field(default_factory=lambda: litert("schema_py_generated"))
    tensors: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)
    codes: dict[tuple[str, int], int] = field(default_factory=dict)
    buffers: list[Any] = field(default_factory=list)
    micro: bool = False

    def __post_init__(self) -> None:
        self.buffers.append(self.schema.BufferT())  # number 0 means "no data"

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        kind: str,
        scales: Scales | None = None,
        values: npt.NDArray[Any] | None = None,
    ) -> int:
        """The number of a new tensor; `kind` as in the schema: INT8, INT4, FLOAT32, …

        `values` makes it a constant. INT4 and INT2 ones are packed, the first in the lowest bits.
        """
        tensor = self.schema.TensorT()
        tensor.name = name
        tensor.shape = np.array(shape, dtype=np.int32)
        tensor.type = getattr(self.schema.TensorType, kind)
        tensor.buffer = 0 if values is None else self._buffer(kind, values)
        if scales is not None:
            quantization = self.schema.QuantizationParametersT()
            quantization.scale = np.array(scales.scales, dtype=np.float32)
            quantization.zeroPoint = np.full(len(scales.scales), scales.zero_point, dtype=np.int64)
            quantization.quantizedDimension = scales.axis
            tensor.quantization = quantization
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _buffer(self, kind: str, values: npt.NDArray[Any]) -> int:
        buffer = self.schema.BufferT()
        if kind in ("INT4", "INT2"):
            data = pack(values, int(kind[3:]))
        else:
            data = np.frombuffer(values.astype(_LITTLE_ENDIAN[kind]).tobytes(), dtype=np.uint8)
        buffer.data = data
        self.buffers.append(buffer)
        return len(self.buffers) - 1

    def operator(
        self,
        name: str,
        version: int,
        inputs: Iterable[int],
        outputs: Iterable[int],
        options: str = "",
        **values: Any,
    ) -> None:
        """One more operation, in order; `options` names the schema's table, `values` its fields."""
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self.codes.setdefault((name, version), len(self.codes))
        operator.inputs = np.array(list(inputs), dtype=np.int32)
        operator.outputs = np.array(list(outputs), dtype=np.int32)
        if options:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self.schema, f"{options}T")(**values)
        self.operators.append(operator)

    def content(self, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> bytes:
        """The file; `inputs` and `outputs` give the signature's names to tensors."""
        schema = self.schema
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.name = self.tensors, self.operators, "main"
        graph.inputs = np.array(list(inputs.values()), dtype=np.int32)
        graph.outputs = np.array(list(outputs.values()), dtype=np.int32)
        signature = schema.SignatureDefT()
        signature.signatureKey = SIGNATURE
        signature.inputs = [self._named(*entry) for entry in inputs.items()]
        signature.outputs = [self._named(*entry) for entry in outputs.items()]
        model = schema.ModelT()
        model.version, model.description = SCHEMA_VERSION, "mpsearch"
        model.operatorCodes = [self._code(*code) for code in self.codes]
        model.subgraphs, model.buffers, model.signatureDefs = [graph], self.buffers, [signature]
        builder = import_module("flatbuffers").Builder(1 << 16)
        builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _named(self, name: str, number: int) -> Any:
        entry = self.schema.TensorMapT()
        entry.name, entry.tensorIndex = name, number
        return entry

    def _code(self, name: str, version: int) -> Any:
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # what old readers look at
        code.version = version
        return code


_LITTLE_ENDIAN = {
    "INT8": "<i1", "UINT8": "<u1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "BOOL": "?",
    "FLOAT16": "<f2", "FLOAT32": "<f4",
}  # fmt: skip

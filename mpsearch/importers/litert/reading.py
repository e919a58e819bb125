"""A LiteRT flatbuffer as plain data: one graph of tensors and operators, read with checks.

The schema is the one that ships in ai-edge-litert. The file is untrusted: every table is read where
its offset points at, inside of the file or not at all, and what many tables share is counted for
each of them.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mpsearch.errors import InputError, first_line
from mpsearch.graph import memory_budget
from mpsearch.importers.litert.sparsity import Sparsity, read_sparsity
from mpsearch.running.plugins import litert

Array = np.ndarray[Any, Any]

IDENTIFIER = b"TFL3"
SIGNATURE = "serving_default"
_LONGEST_NAME, _HIGHEST_RANK = 256, 8
_BYTES_OF_AN_ENTRY = 2048  # of our own, for a tensor or an operator

# The table of each operator's options, where it has any that matter.
_OPTIONS = {
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"), "Reducer"),
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D"), "Pool2D"),
    "ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div", "CONV_2D": "Conv2D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D", "TRANSPOSE_CONV": "TransposeConv",
    "FULLY_CONNECTED": "FullyConnected", "SOFTMAX": "Softmax", "CONCATENATION": "Concatenation",
    "L2_NORMALIZATION": "L2Norm", "LOCAL_RESPONSE_NORMALIZATION": "LocalResponseNormalization",
    "RESIZE_BILINEAR": "ResizeBilinear", "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighbor",
    "RESHAPE": "Reshape", "SQUEEZE": "Squeeze", "SPACE_TO_DEPTH": "SpaceToDepth",
    "DEPTH_TO_SPACE": "DepthToSpace", "GATHER": "Gather", "STRIDED_SLICE": "StridedSlice",
    "PACK": "Pack", "UNPACK": "Unpack", "LEAKY_RELU": "LeakyRelu", "MIRROR_PAD": "MirrorPad",
    "BATCH_MATMUL": "BatchMatMul", "CUMSUM": "Cumsum", "GELU": "Gelu", "ONE_HOT": "OneHot",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM", "VAR_HANDLE": "VarHandle",
}  # fmt: skip


@dataclass(frozen=True)
class Quantization:
    """A code q stands for scales·(q − zero_points): one of each, or one per index of `axis`."""

    scales: Array
    zero_points: Array
    axis: int


@dataclass(frozen=True)
class Tensor:
    """`kind` as the schema has it: FLOAT32, INT8, …; `data`: the bytes of a constant, else None.

    `signature`: the shape with -1 for sizes that are open.
    """

    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    kind: str
    data: Array | None
    quantization: Quantization | None
    variable: bool
    sparsity: Sparsity | None


@dataclass(frozen=True)
class Operator:
    """One operation: numbers of tensors (None: an input left out) and options by their names."""

    name: str
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LiteRtGraph:
    """Operators in the order in which they run; inputs and outputs under the signature's names."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    notes: tuple[str, ...] = ()


def read_graph(path: str) -> LiteRtGraph:
    """The graph of the file's signature `serving_default`, else the first. Raises InputError."""
    schema = litert("schema_py_generated")
    size = Path(path).stat().st_size
    memory_budget.reserve(size, "the file")
    content = Path(path).read_bytes()
    try:
        return _Reader(schema, content).graph()
    except InputError:
        raise
    except (struct.error, ValueError, IndexError, TypeError, OverflowError) as error:
        raise InputError(
            f"damaged or truncated LiteRT file ({first_line(error)}); copy or convert it again"
        ) from error


class _Reader:
    def __init__(self, schema: ModuleType, content: bytes) -> None:
        self.schema, self.content = schema, content
        self.model = schema.Model.GetRootAs(content, 0)
        self.operator_names = _names(schema.BuiltinOperator)
        self.option_names = _names(schema.BuiltinOptions)
        self.kinds = _names(schema.TensorType)

    def graph(self) -> LiteRtGraph:
        model = self.model
        if model.Version() != 3:
            raise InputError(f"got version {model.Version()} of the LiteRT format; expected 3")
        if not model.SubgraphsLength():
            raise InputError("damaged LiteRT file: no graph in it")
        signature, notes = self._signature()
        number = signature.SubgraphIndex() if signature is not None else 0
        if number >= model.SubgraphsLength():
            raise InputError(f"damaged LiteRT file: its signature names graph {number}")
        graph = model.Subgraphs(number)
        codes = [
            self._code(model.OperatorCodes(i))
            for i in _counted(model.OperatorCodesLength(), "kinds of operators")
        ]
        operators = tuple(
            self._operator(graph.Operators(i), codes)
            for i in _counted(graph.OperatorsLength(), "operators")
        )
        written = {number for operator in operators for number in operator.outputs}
        tensors = tuple(
            self._tensor(graph.Tensors(i), i in written)
            for i in _counted(graph.TensorsLength(), "tensors")
        )
        inputs, outputs = _numbers(graph, "Inputs"), _numbers(graph, "Outputs")
        found = LiteRtGraph(
            tensors,
            operators,
            self._named(
                signature and signature.Inputs, _count(signature, "Inputs"), inputs, tensors
            ),
            self._named(
                signature and signature.Outputs, _count(signature, "Outputs"), outputs, tensors
            ),
            notes,
        )
        _check(found)
        return found

    def _signature(self) -> tuple[Any, tuple[str, ...]]:
        count = self.model.SignatureDefsLength()
        if not count:
            return None, ()
        found = [self.model.SignatureDefs(i) for i in _counted(count, "signatures")]
        names = [_text(entry, 2) for entry in found]
        chosen = names.index(SIGNATURE) if SIGNATURE in names else 0
        if count == 1:
            return found[chosen], ()
        others = ", ".join(repr(name) for i, name in enumerate(names[:8]) if i != chosen)
        return found[chosen], (f"read is the signature {names[chosen]!r}; not: {others}",)

    def _named(
        self, entry_at: Any, count: int, order: Sequence[int], tensors: Sequence[Tensor]
    ) -> tuple[tuple[str, int], ...]:
        """(name, tensor) in the order of the graph; the tensors' own names without a signature."""
        names: dict[int, str] = {}
        for i in _counted(count, "names of inputs and outputs"):
            entry = entry_at(i)
            names[entry.TensorIndex()] = _text(entry, 0)
        found: list[tuple[str, int]] = []
        taken: set[str] = set()
        for place, number in enumerate(order):
            if not 0 <= number < len(tensors):
                raise InputError(f"damaged LiteRT file: no tensor {number}")
            own = tensors[number].name.removeprefix("serving_default_").partition(":")[0]
            name = names.get(number) or own or f"tensor_{place}"
            while name in taken:
                name += "_"
            taken.add(name)
            found.append((name, number))
        return tuple(found)

    def _code(self, code: Any) -> str:
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = self.operator_names.get(number, f"operator {number}")
        return f"CUSTOM {_text(code, 1)}" if name == "CUSTOM" else name

    def _operator(self, operator: Any, codes: Sequence[str]) -> Operator:
        index = operator.OpcodeIndex()
        if index >= len(codes):
            raise InputError(f"damaged LiteRT file: no operator code {index}")
        inputs = tuple(n if n >= 0 else None for n in _numbers(operator, "Inputs"))
        return Operator(
            codes[index],
            inputs,
            _numbers(operator, "Outputs"),
            self._options(operator, codes[index]),
        )

    def _options(self, operator: Any, name: str) -> dict[str, Any]:
        if name not in _OPTIONS:
            return {}
        wanted = f"{_OPTIONS[name]}Options"
        kind, table = (
            self.option_names.get(operator.BuiltinOptionsType()),
            operator.BuiltinOptions(),
        )
        values = getattr(self.schema, f"{wanted}T")
        if kind != wanted or table is None:
            return dict(vars(values()))
        return dict(vars(values.InitFromBuf(table.Bytes, table.Pos)))

    def _tensor(self, tensor: Any, written: bool) -> Tensor:
        name, shape = _text(tensor, 3), _numbers(tensor, "Shape")
        if len(shape) > _HIGHEST_RANK or any(size < 0 for size in shape):
            raise InputError(f"damaged LiteRT file: tensor {name!r} has the shape {shape[:10]}")
        return Tensor(
            name,
            shape,
            _numbers(tensor, "ShapeSignature") or shape,
            self.kinds.get(tensor.Type(), f"type {tensor.Type()}"),
            None if written or tensor.IsVariable() else self._data(tensor.Buffer(), name),
            _quantization(tensor.Quantization(), name),
            bool(tensor.IsVariable()),
            read_sparsity(self.schema, tensor.Sparsity(), f"tensor {name!r:.80}"),
        )

    def _data(self, number: int, name: str) -> Array | None:
        """The bytes of a buffer, in the flatbuffer or, in large files, behind it."""
        if number >= self.model.BuffersLength():
            raise InputError(f"damaged LiteRT file: tensor {name!r} reads buffer {number}")
        buffer = self.model.Buffers(number)
        offset, size = buffer.Offset(), buffer.Size()
        if offset > 1:
            if offset + size > len(self.content):
                raise InputError(
                    f"damaged or truncated LiteRT file: tensor {name!r} needs {size:,} bytes at "
                    f"{offset:,}; the file has {len(self.content):,}"
                )
            return np.frombuffer(self.content, np.uint8, size, offset)
        if buffer.DataIsNone() or not buffer.DataLength():
            return None
        return np.asarray(buffer.DataAsNumpy())


def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _counted(count: int, what: str) -> Iterator[int]:
    memory_budget.reserve(count * _BYTES_OF_AN_ENTRY, f"{count:,} {what}")
    return iter(range(count))


def _count(table: Any, field_name: str) -> int:
    return int(getattr(table, f"{field_name}Length")()) if table is not None else 0


def _numbers(table: Any, field_name: str) -> tuple[int, ...]:
    count = _count(table, field_name)
    memory_budget.reserve(32 * count, f"{count:,} numbers of {field_name}")
    return tuple(int(n) for n in getattr(table, f"{field_name}AsNumpy")()) if count else ()


def _text(table: Any, number: int) -> str:
    """Field `number` of a table, at most its first characters: many may share one long text."""
    inner = table._tab
    offset = inner.Offset(4 + 2 * number)
    if not offset:
        return ""
    start, length = inner.Vector(offset), min(inner.VectorLen(offset), _LONGEST_NAME)
    return bytes(inner.Bytes[start : start + length]).decode(errors="replace")


def _quantization(table: Any, name: str) -> Quantization | None:
    if table is None or not table.ScaleLength():
        if table is not None and table.DetailsType():
            raise InputError(
                f"tensor {name!r} has a quantization of its own (in blocks, or custom); expected "
                "one scale per tensor or per channel"
            )
        return None
    scales = np.asarray(table.ScaleAsNumpy(), dtype=np.float32)
    zeros = np.asarray(table.ZeroPointAsNumpy() if table.ZeroPointLength() else [0], dtype=np.int64)
    if len(zeros) not in (1, len(scales)) or not (
        np.isfinite(scales).all() and (scales >= 0).all()
    ):
        raise InputError(
            f"damaged LiteRT file: tensor {name!r} has {len(scales)} scales and {len(zeros)} zero "
            "points; expected as many of each, and numbers from 0 on"
        )
    return Quantization(scales, zeros, table.QuantizedDimension())


def _check(graph: LiteRtGraph) -> None:
    """Every tensor is written once, before it is read: operators lie in the order they run in."""
    known = {number for _, number in graph.inputs}
    if not graph.inputs or not graph.outputs:
        raise InputError("damaged LiteRT file: a graph without inputs or outputs")
    for operator in graph.operators:
        for number in operator.inputs:
            if number is None:
                continue
            if number >= len(graph.tensors):
                raise InputError(f"damaged LiteRT file: {operator.name} reads tensor {number}")
            tensor = graph.tensors[number]
            fixed = tensor.data is not None or tensor.variable or 0 in tensor.shape
            if not fixed and number not in known:
                raise InputError(
                    f"damaged LiteRT file: {operator.name} reads {tensor.name!r:.80}, which "
                    "nothing has written before"
                )
        for number in operator.outputs:
            if not 0 <= number < len(graph.tensors) or number in known:
                raise InputError(f"damaged LiteRT file: {operator.name} writes tensor {number}")
            known.add(number)
    for name, number in graph.outputs:
        if number not in known:
            raise InputError(f"damaged LiteRT file: nothing writes the output {name!r:.80}")

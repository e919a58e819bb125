"""LiteRT files for tests, written with the exporter's writer; the interpreter finds the shapes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpsearch.exporters.litert.flatbuffer import LiteRtFile, Scales
from mpsearch.running.plugins import litert

Array = np.ndarray[Any, Any]


class Graph:
    """A file under construction: `input`, `const` and `op` give numbers of tensors."""

    def __init__(self, seed: int = 0) -> None:
        self.file = LiteRtFile()
        self.rng = np.random.default_rng(seed)
        self.inputs: dict[str, int] = {}
        self.unknown: list[int] = []

    def input(
        self, name: str, *shape: int, kind: str = "FLOAT32", scales: Scales | None = None
    ) -> int:
        self.inputs[name] = self.file.tensor(name, (1, *shape), kind, scales)
        return self.inputs[name]

    def const(
        self, values: Any, kind: str = "", name: str = "", scales: Scales | None = None
    ) -> int:
        array = np.asarray(values)
        kind = kind or {"f": "FLOAT32", "i": "INT32", "b": "BOOL"}[array.dtype.kind]
        name = name or f"const{len(self.file.tensors)}"
        return self.file.tensor(name, array.shape, kind, scales, array)

    def sparse(self, values: Array, order: Sequence[int], blocks: dict[int, int]) -> Any:
        """A constant that is stored sparsely along the last dimension of `order`, made dense.

        `blocks`: the length of a block along a dimension, in their order; one with any number is
        stored whole.
        """
        schema, rank = self.file.schema, values.ndim
        lengths = [blocks.get(dim, 1) for dim in range(rank)]
        outer = [size // length for size, length in zip(values.shape, lengths, strict=True)]
        parts = values.reshape([n for pair in zip(outer, lengths, strict=True) for n in pair])
        parts = parts.transpose(*(2 * dim for dim in order), *(2 * dim + 1 for dim in range(rank)))
        kept = parts.any(axis=tuple(range(rank, 2 * rank)))
        number = self.const(parts[kept].reshape(-1))
        levels = []
        for size in (*(outer[dim] for dim in order), *blocks.values()):
            levels.append(schema.DimensionMetadataT())
            levels[-1].format, levels[-1].denseSize = schema.DimensionType.DENSE, size
        last, vectors = levels[rank - 1], schema.SparseIndexVector
        last.format = schema.DimensionType.SPARSE_CSR
        last.arraySegmentsType, last.arraySegments = vectors.Uint16Vector, schema.Uint16VectorT()
        last.arrayIndicesType, last.arrayIndices = vectors.Uint8Vector, schema.Uint8VectorT()
        ends = kept.reshape(-1, kept.shape[-1]).sum(1).cumsum()
        last.arraySegments.values = np.array([0, *ends], dtype=np.uint16)
        last.arrayIndices.values = np.nonzero(kept)[-1].astype(np.uint8)
        tensor = self.file.tensors[number]
        tensor.sparsity = schema.SparsityParametersT()
        tensor.shape = np.array(values.shape, dtype=np.int32)
        tensor.sparsity.traversalOrder = np.array([*order, *range(rank, rank + len(blocks))], "i4")
        tensor.sparsity.blockMap = np.array([*blocks], "i4")
        tensor.sparsity.dimMetadata = levels
        return self.op("DENSIFY", [number], shape=values.shape)

    def random(self, *shape: int, name: str = "") -> int:
        return self.const(self.rng.normal(size=shape).astype(np.float32), name=name)

    def op(
        self, name: str, inputs: Sequence[int], options: str = "", kind: str = "FLOAT32",
        outputs: int = 1, scales: Scales | None = None, version: int = 1, called: str = "",
        shape: Sequence[int] | None = None, **values: Any,
    ) -> Any:  # fmt: skip
        """One operator; its output, or several. `shape`: where LiteRT finds it when it runs."""
        numbers = []
        for place in range(outputs):
            label = called or f"{name.lower()}{len(self.file.tensors)}_{place}"
            numbers.append(self.file.tensor(label, shape or (), kind, scales))
        self.unknown += numbers if shape is None else []
        self.file.operator(name, version, inputs, numbers, options, **values)
        return numbers[0] if outputs == 1 else numbers

    def conv(self, x: int, depth: int, filters: int, size: int = 3, **values: Any) -> int:
        """A convolution with a bias, `SAME` and stride 1 where nothing else is said."""
        weight = self.random(filters, size, size, depth, name=f"net/conv{len(self.unknown)}/Conv2D")
        values = {"strideH": 1, "strideW": 1, "padding": 0} | values
        found: int = self.op(
            "CONV_2D", [x, weight, self.random(filters)], "Conv2DOptions", **values
        )
        return found

    def content(self, outputs: "int | Sequence[int] | dict[str, int]") -> bytes:
        """The file with the shapes that the interpreter gives its tensors."""
        if isinstance(outputs, int):
            outputs = [outputs]
        if not isinstance(outputs, dict):
            outputs = {f"y{i}": number for i, number in enumerate(outputs)}
        runner = interpreter(self.file.content(self.inputs, outputs))
        for detail in runner.get_tensor_details():
            if detail["index"] in self.unknown:
                tensor = self.file.tensors[detail["index"]]
                tensor.shape = np.array(detail["shape"], dtype=np.int32)
        return self.file.content(self.inputs, outputs)


def interpreter(content: bytes) -> Any:
    """LiteRT's own kernels on a file."""
    module = litert("interpreter")
    plain = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    found = module.Interpreter(
        model_content=content, num_threads=1, experimental_op_resolver_type=plain
    )
    found.allocate_tensors()
    return found


def run(content: bytes, inputs: Sequence[Array]) -> list[Array]:
    """What LiteRT computes, output by output in the order of the file."""
    runner = interpreter(content)
    for detail, values in zip(runner.get_input_details(), inputs, strict=True):
        runner.set_tensor(detail["index"], values.astype(detail["dtype"]))
    runner.invoke()
    return [runner.get_tensor(detail["index"]).copy() for detail in runner.get_output_details()]

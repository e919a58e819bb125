"""An ONNX file as a checked ModelProto whose tensors are all in memory.

The file is untrusted: weights beside it are read from its own folder only, sizes are compared with
the bytes that are there before anything is allocated, and onnx's checker sees the rest.
"""

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mpsearch.errors import InputError, first_line
from mpsearch.graph import memory_budget
from mpsearch.running.plugins import onnx_package

OLDEST_OPSET = 9
_BYTES_OF_A_NODE, _DEEPEST = 2048, 64
_PROTOBUF_LIMIT = 2**31 - 1
_BITS_OF_FLOATS = {1: 32, 10: 16, 11: 64, 16: 16}
_BITS_OF_INTEGERS = {2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 12: 32, 13: 64}
_BITS = _BITS_OF_FLOATS | _BITS_OF_INTEGERS


def read_model(path: str) -> Any:
    """The checked ModelProto. Raises InputError in one line for anything that is none."""
    onnx = onnx_package("reading an ONNX file")
    if Path(path).stat().st_size > _PROTOBUF_LIMIT:
        raise InputError(f"{path}: over 2 GiB; expected larger weights as external data beside it")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, and OSError
        raise InputError(f"{path}: damaged ONNX file: {first_line(error)}") from error
    opset = opset_of(model)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise InputError(
            f"{path}: got opset {opset or 'none'}; expected {OLDEST_OPSET} to {newest} (what the "
            "installed onnx knows). Export it again, best with opset 18"
        )
    folder = Path(path).resolve().parent
    inside = 0
    for tensor in tensors_of(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _load_external(path, folder, tensor)
            inside += len(tensor.raw_data)
    for value in model.graph.output:
        if value.type.HasField("tensor_type"):
            # runtimes do without it, the checker does not; nobody reads it here
            value.type.tensor_type.shape.SetInParent()
    try:
        if model.functions:
            _check_expansion(model)
            model = import_module("onnx.inliner").inline_local_functions(model)
        if inside + Path(path).stat().st_size < _PROTOBUF_LIMIT:  # the checker serializes it
            onnx.checker.check_model(model)
    except InputError:
        raise
    except Exception as error:  # ValidationError, and what the C++ code throws
        # GroupNormalization of opset 18 was withdrawn, but files and runtimes have it; runtimes
        # write LayerNormalization into files of any opset
        if "is deprecated in domain_version" in str(error) or "No Op registered" in str(error):
            return model
        raise InputError(f"{path}: damaged ONNX file: {first_line(error)}") from error
    return model


def _check_expansion(model: Any) -> None:
    """Functions call functions: count the bytes of all nodes before they are written out."""
    bodies = {(f.domain, f.name): f.node for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size_of(nodes: Any, callers: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in nodes:
            key = (str(node.domain), str(node.op_type))
            if key in callers or len(callers) > _DEEPEST:
                raise InputError(f"its functions call each other without end ({key[1]!r:.80})")
            if key in bodies and key not in sizes:
                sizes[key] = size_of(bodies[key], (*callers, key))
            inner = sum(size_of(a.g.node, callers) for a in node.attribute if a.HasField("g"))
            total += sizes.get(key, 0) + inner + int(node.ByteSize()) + _BYTES_OF_A_NODE
        return total

    memory_budget.reserve(size_of(model.graph.node, ()), "the graph with its functions written out")


def opset_of(model: Any) -> int:
    """Version of the standard operator set; 0 when the file imports none."""
    versions = [int(e.version) for e in model.opset_import if e.domain in ("", "ai.onnx")]
    return max(versions, default=0)


def tensors_of(graph: Any) -> Iterator[Any]:
    """Every TensorProto of the graph, of the attributes of its nodes and of graphs in these."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from tensors_of(inner)


def array_of(tensor: Any) -> "np.ndarray[Any, Any]":
    """The values; floating point of any width becomes float32. Raises InputError."""
    onnx = onnx_package("reading an ONNX file")
    name = tensor.name or "a constant"
    kind = tensor.data_type
    if kind not in _BITS:
        names = {number: kind for kind, number in onnx.TensorProto.DataType.items()}
        found = names.get(kind, kind)
        raise InputError(f"tensor {name} has the type {found}; expected floats, integers or bools")
    if any(size < 0 for size in tensor.dims):
        raise InputError(f"tensor {name} has the shape {list(tensor.dims)[:8]}")
    memory_budget.reserve(
        _elements(tensor) * (4 if kind in _BITS_OF_FLOATS else 8),
        f"tensor {name} of shape {list(tensor.dims)[:8]}",
    )
    if tensor.HasField("raw_data") and len(tensor.raw_data) * 8 != _elements(tensor) * _BITS[kind]:
        raise InputError(
            f"tensor {name}: damaged: {len(tensor.raw_data)} bytes for shape {list(tensor.dims)}"
        )
    try:
        array = onnx.numpy_helper.to_array(tensor)
    except Exception as error:
        raise InputError(f"tensor {name}: damaged: {first_line(error)}") from error
    if kind in _BITS_OF_FLOATS:
        return np.ascontiguousarray(array, dtype=np.float32).reshape(array.shape)
    return np.array(array, dtype=np.int64 if array.dtype.kind == "u" else None)


def _elements(tensor: Any) -> int:
    count = 1
    for size in tensor.dims:
        count *= int(size)
    return count


def _load_external(path: str, folder: Path, tensor: Any) -> None:
    """Put the bytes that `tensor` names into it. They must lie in the model's own folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    file = (folder / location).resolve() if location and "\0" not in location else folder
    if os.path.isabs(location) or ".." in Path(location).parts or folder not in file.parents:
        raise InputError(
            f"{path}: tensor {tensor.name} points at {location[:200]!r}, outside of the model's "
            "folder; it was not read"
        )
    if not file.is_file():
        raise InputError(
            f"{path}: its weights are in {location[:200]!r} beside it, which is missing; "
            "copy both files together"
        )
    if tensor.data_type not in _BITS:
        raise InputError(f"{path}: tensor {tensor.name} has a type that no float model needs")
    size = _elements(tensor) * _BITS[tensor.data_type] // 8
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError:
        raise InputError(f"{path}: tensor {tensor.name}: damaged offset or length") from None
    if length != size or offset < 0 or offset + size > file.stat().st_size:
        raise InputError(
            f"{path}: tensor {tensor.name} needs {size} bytes from {location[:200]!r} at {offset}; "
            f"the file has {file.stat().st_size}"
        )
    memory_budget.reserve(size, f"{path}: tensor {tensor.name}")
    with file.open("rb") as stream:
        stream.seek(offset)
        tensor.raw_data = stream.read(size)
    tensor.data_location = 0
    del tensor.external_data[:]

"""What an ONNX file looks like from outside, without the package `onnx`.

The file is one protobuf message: fields of (number, wire type) with their lengths in front, so the
outermost level can be walked without reading the weights. `ModelProto` has the fields of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; 1 is `ir_version`, 7 is `graph`.
"""

import os
from pathlib import Path
from typing import BinaryIO

_IR_VERSION, _GRAPH = 1, 7
_VARINT, _LENGTH = 0, 2
_WIRE_TYPES = {1: _VARINT, 5: _VARINT} | dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), _LENGTH)


def is_onnx(path: str | os.PathLike[str]) -> bool:
    """True when the whole file reads as a ModelProto with a version and a graph."""
    fields, whole = _walk(Path(path))
    return whole and {_IR_VERSION, _GRAPH} <= fields


def is_damaged_onnx(path: str | os.PathLike[str]) -> bool:
    """True when the file begins as a ModelProto and ends too early, or is called `.onnx`."""
    fields, whole = _walk(Path(path))
    return (not whole and _IR_VERSION in fields and len(fields) > 1) or (
        Path(path).suffix == ".onnx"
    )


def is_ort(head: bytes) -> bool:
    """True for onnxruntime's own flat-buffer format."""
    return head[4:8] == b"ORTM"


def _walk(path: Path) -> tuple[set[int], bool]:
    """(numbers of the outermost fields, True when they fill the file exactly)."""
    fields: set[int] = set()
    end = path.stat().st_size
    with path.open("rb") as stream:
        while stream.tell() < end:
            tag = _varint(stream)
            if tag is None or _WIRE_TYPES.get(tag >> 3) != tag & 7:
                return fields, False
            length = _varint(stream)
            if length is None:
                return fields, False
            fields.add(tag >> 3)
            if tag & 7 == _LENGTH:
                if stream.tell() + length > end:
                    return fields, False
                stream.seek(length, os.SEEK_CUR)
    return fields, True


def _varint(stream: BinaryIO) -> int | None:
    """The next number, seven bits a byte with the lowest first; None where there is none."""
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None

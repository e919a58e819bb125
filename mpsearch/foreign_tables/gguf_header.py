"""Names and shapes of the tensors of a GGUF file: its header alone, bounded, nothing else read.

As the specification has it (ggml, `docs/gguf.md`, versions 2 and 3, little-endian).
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO

MAGIC = b"GGUF"
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of a value by type
_STRING, _ARRAY = 8, 9
_LONGEST = 1 << 16  # bytes of a name
_MOST = 1_000_000  # tensors, keys, and strings of an array
_DIMENSIONS = 8


def tensor_shapes(file: BinaryIO) -> Iterator[tuple[str, list[int]]]:
    """Name and shape of each tensor, output channels first (the file has them last).

    file: at its beginning. Raises ValueError for what is no such file.
    """
    header = _Header(file)
    magic = header.read(len(MAGIC))
    version, tensors, keys = header.unpack("<IQQ")
    if magic != MAGIC or version not in (2, 3):
        raise ValueError(f"a GGUF file of version {version}; expected 2 or 3")
    if max(tensors, keys) > _MOST:
        raise ValueError(f"{tensors} tensors and {keys} keys")
    for _ in range(keys):
        header.skip(header.length(_LONGEST))
        header.skip_value(header.one("<I"))
    for _ in range(tensors):
        name = header.read(header.length(_LONGEST)).decode()
        dimensions = header.one("<I")
        if not 0 <= dimensions <= _DIMENSIONS:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        lengths = list(header.unpack(f"<{dimensions}Q"))
        header.skip(4 + 8)  # its type and where it begins
        if any(length >= 2**40 for length in lengths):
            raise ValueError(f"a tensor of the shape {lengths[::-1]}")
        yield name, lengths[::-1]


class _Header:
    """Reads from its beginning on, and never beyond its end."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.left = file.seek(0, 2)
        file.seek(0)

    def read(self, count: int) -> bytes:
        content = self.file.read(self._taken(count))
        if len(content) < count:
            raise ValueError("it is cut off")
        return content

    def skip(self, count: int) -> None:
        self.file.seek(self._taken(count), 1)

    def _taken(self, count: int) -> int:
        if count > self.left:
            raise ValueError("it is cut off")
        self.left -= count
        return count

    def unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.read(struct.calcsize(form)))

    def one(self, form: str) -> int:
        return self.unpack(form)[0]

    def length(self, most: int) -> int:
        found = self.one("<Q")
        if found > most:
            raise ValueError(f"a length of {found}")
        return found

    def skip_value(self, kind: int) -> None:
        if kind == _STRING:
            self.skip(self.one("<Q"))
        elif kind != _ARRAY:
            self.skip(_size(kind))
        else:
            inner, count = self.unpack("<IQ")
            if inner == _STRING:
                if count > _MOST:
                    raise ValueError(f"{count} strings")
                for _ in range(count):
                    self.skip(self.one("<Q"))
            else:
                self.skip(_size(inner) * count)


def _size(kind: int) -> int:
    if kind not in _SIZES:
        raise ValueError(f"a value of type {kind}")
    return _SIZES[kind]

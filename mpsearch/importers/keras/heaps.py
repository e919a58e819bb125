"""HDF5's global heaps, which hold texts: checked before its library walks through them.

The library steps from object to object by the sizes that it finds, and never ends where one is 0
(tried with HDF5 1.14: an interrupt does not reach it either). Layout: HDF5 File Format
Specification, III.E, with lengths of 8 bytes, as every file of Keras has them.
"""

import mmap
import os
import struct

from mpsearch.errors import InputError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAP = b"GCOL\x01\0\0\0"  # signature and version
_HEAD = 16  # bytes of a heap's header, and of an object's


def check_file(path: str | os.PathLike[str]) -> None:
    """`check_heaps` of a file, which is not read into memory."""
    with open(path, "rb") as stream:
        if os.fstat(stream.fileno()).st_size:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                check_heaps(content)


def check_heaps(content: "bytes | mmap.mmap") -> None:
    """Raise InputError for a heap whose objects do not fill it, and for other lengths than 8."""
    start = bytes(content[:16])
    widths = start[13:15] if start[8:9] in (b"\0", b"\1") else start[9:11]
    if not start.startswith(_SIGNATURE) or widths != b"\x08\x08":
        raise InputError("is no HDF5 file with addresses of 8 bytes from its first byte on")
    place = content.find(_HEAP)
    while place >= 0:
        if not _is_whole(content, place):
            raise InputError("damaged HDF5 file: a heap of texts whose sizes cannot be")
        place = content.find(_HEAP, place + 1)


def _is_whole(content: "bytes | mmap.mmap", place: int) -> bool:
    if place + _HEAD > len(content):
        return False
    end = place + struct.unpack_from("<Q", content, place + 8)[0]
    at = place + _HEAD
    if end > len(content):
        return False
    while at + _HEAD <= end:
        number, _, _, size = struct.unpack_from("<HHIQ", content, at)
        step = size if number == 0 else _HEAD + -(-size // 8) * 8  # 0 is free room
        if step < _HEAD or at + step > end:
            return False
        at += step
    return True

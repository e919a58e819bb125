"""The one reader of `.npz`: plain arrays whose headers say no more than their bytes hold."""

import os
from collections.abc import Collection
from math import prod
from typing import IO, Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.files.zip_file import Archive, open_archive

Array = np.ndarray[Any, Any]

_HEADER = 10_000  # bytes of a header, which numpy parses as a Python literal
_LONGEST, _DIMENSIONS = 1 << 40, 32  # an empty array may name any length
_BLOCK = 1 << 22


def read_npz(
    source: str | os.PathLike[str] | bytes, name: str = "", kinds: Collection[str] = "fiub"
) -> dict[str, Array]:
    """The arrays by name of a file, or of the bytes of one that is called `name`.

    kinds: the kinds of numbers, as numpy calls them, that are expected. Raises InputError in one
    line for a damaged archive, for members that are no arrays, and for arrays whose shape needs
    other than the bytes that are there: before anything is allocated.
    """
    with open_archive(source, name) as archive:
        return {
            member.removesuffix(".npy"): _array(archive, member, kinds) for member in archive.sizes
        }


def _array(archive: Archive, member: str, kinds: Collection[str]) -> Array:
    called = ascii(member.removesuffix(".npy"))[:80]
    if not member.endswith(".npy"):
        raise InputError(f"{archive.name}: a zip archive with other things than arrays in it")
    with archive.stream(member) as stream:
        try:
            shape, fortran, dtype = _header(stream)
        except Exception as error:  # whatever numpy's parser of literals raises
            text = str(error).splitlines() or [type(error).__name__]
            raise InputError(
                f"{archive.name}: array {called} has a damaged header: {text[0][:120]}"
            ) from error
        if dtype.kind not in kinds:
            expected = "numbers or texts" if "U" in kinds else "numbers"
            raise InputError(
                f"{archive.name}: array {called} has type {str(dtype)[:40]}; expected {expected}"
            )
        size, left = prod(shape) * dtype.itemsize, archive.sizes[member] - stream.tell()
        if min(shape, default=0) < 0 or max(shape, default=0) > _LONGEST or size != left:
            raise InputError(
                f"{archive.name}: array {called} has {left} bytes, which its shape "
                f"{str(shape)[:60]} does not fit"
            )
        flat = np.empty(prod(shape), dtype)
        room = flat.view(np.uint8).data
        for start in range(0, size, _BLOCK):  # a short one is seen at the end of the stream
            stream.readinto(room[start : start + _BLOCK])  # type: ignore[attr-defined]
    if dtype.kind == "U":  # numpy believes any 32 bits to be a character
        codes = flat.view(np.uint32 if dtype.isnative else np.dtype(np.uint32).newbyteorder())
        if ((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes < 0xE000))).any():
            raise InputError(f"{archive.name}: array {called} holds what is no text")
    native = flat.astype(dtype.newbyteorder("="), copy=False)
    return native.reshape(shape, order="F" if fortran else "C")


def _header(content: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(content)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"version {version[0]}.{version[1]} of the format")
    shape, fortran, dtype = read(content, max_header_size=_HEADER)
    if dtype.itemsize == 0 or len(shape) > _DIMENSIONS:
        raise ValueError(f"type {str(dtype)[:40]} and {len(shape)} dimensions")
    return shape, fortran, dtype

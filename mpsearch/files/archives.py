"""The one reader of zip archives: plain members only, and never more bytes than announced.

`zipfile` raises a dozen kinds of errors on damaged archives and unpacks whatever it is told to.
Read here are members that are stored or deflated, not encrypted, whose name is there once.

The one reader of `.npz`: plain arrays whose headers say no more than their bytes hold.
"""

import contextlib
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import prod
from typing import IO, Any

import numpy as np

from mpsearch.errors import InputError

EXPANSION = 100  # what unpacks to more than so many times its size was made to,
_FREE = 1 << 20  # but for a few constant numbers, which nobody need fear
_DAMAGE = (
    zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, KeyError, IndexError,
    OverflowError, EOFError, OSError, struct.error, zlib.error,
)  # fmt: skip
_ENCRYPTED = 1


@dataclass(frozen=True)
class Archive:
    """An open archive: the sizes of its members by name, unpacked, and their bytes."""

    sizes: dict[str, int]
    name: str
    file: zipfile.ZipFile

    def read(self, member: str) -> bytes:
        """The bytes of a member. Raises InputError where it is missing or damaged."""
        with self.stream(member) as stream:
            return stream.read(self.sizes[member])

    @contextlib.contextmanager
    def stream(self, member: str) -> Iterator[IO[bytes]]:
        """The bytes of a member, to be read to their end; errors are those of `read`."""
        if member not in self.sizes:
            raise InputError(f"{self.name}: damaged archive: it has no {member}")
        with _damage_named(self.name), self.file.open(member) as stream:
            yield stream
            if stream.read(1) or stream.tell() != self.sizes[member]:  # at the end the CRC is seen
                raise zipfile.BadZipFile(f"{member} has another size than it says")


@contextlib.contextmanager
def open_archive(source: str | os.PathLike[str] | bytes, name: str = "") -> Iterator[Archive]:
    """Open a file, or the bytes of one that is called `name`, for reading.

    Raises InputError in one line for a damaged archive, an encrypted member or one that is packed
    in another way, and where all members together would unpack to over 100 times the file's size.
    """
    name = os.fspath(source) if not isinstance(source, bytes) else name
    stream: Any = io.BytesIO(source) if isinstance(source, bytes) else source
    size = len(source) if isinstance(source, bytes) else _size(source)
    with contextlib.ExitStack() as stack:
        with _damage_named(name):
            file = stack.enter_context(zipfile.ZipFile(stream))
            yielded = Archive(_checked(file, size), name, file)
        yield yielded


def _size(path: str | os.PathLike[str]) -> int:
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise InputError(f"{os.fspath(path)} is a pipe or device; expected a file")
    return found.st_size


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether a file ends like a zip archive; what is in it may be damaged."""
    try:
        return zipfile.is_zipfile(path)
    except _DAMAGE:  # raised for some ends of zip64
        return False


def _checked(file: zipfile.ZipFile, size: int) -> dict[str, int]:
    """The sizes by name of members that can be read as they say."""
    sizes: dict[str, int] = {}
    for entry in file.infolist():
        called = ascii(entry.filename)[:80]
        if entry.flag_bits & _ENCRYPTED:
            raise zipfile.BadZipFile(f"{called} is encrypted; expected a plain file")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"{called} is packed in a way that is not read")
        if entry.filename in sizes:
            raise zipfile.BadZipFile(f"{called} is there twice")
        sizes[entry.filename] = entry.file_size
    if sum(sizes.values()) > EXPANSION * size + _FREE:
        raise zipfile.BadZipFile(f"it would unpack to over {EXPANSION} times its size")
    return sizes


@contextlib.contextmanager
def _damage_named(name: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except _DAMAGE as error:
        text = str(error).splitlines() or [type(error).__name__]
        raise InputError(f"{name}: damaged archive: {text[0][:200]}") from error


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

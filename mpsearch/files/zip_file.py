"""The one reader of zip archives: plain members only, and never more bytes than announced.

`zipfile` raises a dozen kinds of errors on damaged archives and unpacks whatever it is told to.
Read here are members that are stored or deflated, not encrypted, whose name is there once.
"""

import contextlib
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

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

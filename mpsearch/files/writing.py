"""Atomic writes, files of unfinished runs, digests: a file is there whole, or it is not there."""

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mpsearch.errors import InputError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces it, on failure it is removed.

    The bytes are flushed to the disk before the rename, so that a power cut leaves the old file or
    the new one. Raises OSError that names `path` (a full disk, a missing folder), and InputError
    for a folder or device, which a rename would replace.
    """
    target = Path(os.path.realpath(path))  # a link stays a link to the new content
    if target.exists() and not target.is_file():
        raise InputError(f"cannot write {path}: it is not a regular file")
    with naming(path):
        # The suffix stays, because writers such as matplotlib choose the format by it.
        handle, name = tempfile.mkstemp(
            prefix=f".{_short(target.stem)}.", suffix=_short(target.suffix), dir=target.parent
        )
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(_mode_of_new_files())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let an OSError name this file: those of writing name none, others a temporary file of it."""
    try:
        yield
    except OSError as error:
        hidden = error.filename is None or Path(os.fsdecode(error.filename)).name.startswith(".")
        if hidden and error.errno is not None:
            error.filename = os.fspath(path)
            error.filename2 = None
        raise


def hidden_path(output: str | os.PathLike[str], run_digest: str, ending: str) -> Path:
    """Where a run that makes `output` keeps its state: `out.csv` -> `.out.csv.0123456789abcdef.`
    and the ending, beside it."""
    target = Path(output)
    return (
        target.parent / f".{_short(target.name)}.{run_digest.removeprefix('sha256:')[:16]}.{ending}"
    )


def read_limited(path: str | os.PathLike[str], mebibytes: int, noun: str) -> bytes:
    """The bytes of a file that a user named or that lies beside one.

    Raises InputError for more than `mebibytes` MiB (a device may never end) and for a pipe with a
    name, which would wait for ever; those of a shell, `<(…)`, are read. OSError as `open` does.
    """
    name = os.fspath(path)
    if not name.startswith(("/dev/", "/proc/")) and stat.S_ISFIFO(os.stat(path).st_mode):
        raise InputError(f"{name} is a pipe; expected a file")
    with open(path, "rb") as file:
        content = file.read((mebibytes << 20) + 1)
    if len(content) > mebibytes << 20:
        raise InputError(f"{name} is too large for {noun}; expected less than {mebibytes} MiB")
    return content


def open_own(path: Path, create: bool = False) -> IO[bytes]:
    """Open a file of an unfinished run for reading, and for writing where it may be created.

    Anybody who can write to the folder can put something in its place, so InputError for a link,
    for what is no regular file (a pipe would wait for ever), and for a file of another user or of
    two names.
    """
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    wrong = InputError(f"{path} is not a file that mpsearch wrote here; delete it to begin anew")
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise wrong from None
        raise
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
        os.close(handle)
        raise wrong
    return os.fdopen(handle, "r+b" if create else "rb")


def _short(name: str) -> str:
    """A name that leaves room for ours around it: file systems take 255 bytes."""
    return name if len(os.fsencode(name)) <= 150 else digest(os.fsencode(name))[-32:]


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write text (UTF-8) or bytes to `path` in one step."""
    # a name from the command line may hold bytes that are no UTF-8: half of a surrogate pair
    data = content.encode(errors="replace") if isinstance(content, str) else content
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def digest(*parts: bytes | str) -> str:
    """SHA-256 of the parts, each preceded by its length, as `sha256:` and 64 hex digits."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return "sha256:" + state.hexdigest()


def _mode_of_new_files() -> int:
    """0o666 less the umask: mkstemp makes private files, ordinary output is not private."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask

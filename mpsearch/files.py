"""Atomic writes and digests: a file is there whole, or it is not there."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mpsearch.errors import InputError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces it, on failure it is removed.

    The bytes are flushed to the disk before the rename, so that a power cut leaves the old file or
    the new one. Raises OSError as the system gives it (a full disk, a missing folder), and
    InputError for a folder or device, which a rename would replace.
    """
    target = Path(os.path.realpath(path))  # a link stays a link to the new content
    if target.exists() and not target.is_file():
        raise InputError(f"cannot write {path}: it is not a regular file")
    # The suffix stays, because writers such as matplotlib choose the format by it.
    handle, name = tempfile.mkstemp(
        prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent
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


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write text (UTF-8) or bytes to `path` in one step."""
    data = content.encode() if isinstance(content, str) else content
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

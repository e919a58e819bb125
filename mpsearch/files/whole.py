"""Atomic writes, files of unfinished runs, digests: a file is there whole, or it is not there.

The one reader of CSV files with a header whose cells are texts, by column.

The one reader of TOML files: bounded in size and depth, numbers that doubles hold.
"""

import contextlib
import csv
import errno
import hashlib
import io
import os
import stat
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from mpsearch.errors import InputError, closest, did_you_mean


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


def like_file(path: str | os.PathLike[str]) -> str:
    """`; did you mean 'runs/profile.csv'?`: what its folder has instead of a file that is missing;
    empty where that has nothing like it."""
    missing = Path(path)
    try:
        there = [entry.name for entry in os.scandir(missing.parent)]
    except (OSError, ValueError):
        return ""
    close = closest(missing.name, there)
    return "" if close is None else f"; did you mean {str(missing.with_name(close))!r}?"


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


Rows = list[dict[str, str]]
LARGEST_CSV_MIB = 256


def read_rows(path: str | os.PathLike[str], columns: Iterable[str]) -> Rows:
    """The rows of a CSV file by its header; cells that a row lacks are empty.

    Raises InputError for a missing column, for what is no UTF-8 or no CSV, and for a file of more
    than `LARGEST_CSV_MIB` MiB.
    """
    try:
        content = read_limited(path, LARGEST_CSV_MIB, "a table")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}{like_file(path)}") from None
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        header = list(reader.fieldnames or ())
        rows = [{key: value or "" for key, value in row.items() if key} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path} as CSV: {error}") from None
    for column in columns:
        if column not in header:
            there = ascii(", ".join(header[:20]))[1:-1]
            close = did_you_mean(column, header)
            raise InputError(f"{path} has no column {column!r}{close}; it has {there[:300]}")
    return rows


LARGEST_TOML_MIB = 1
_WHOLE = 1 << 63  # TOML promises integers of 64 bits


def read_toml(
    path: str | os.PathLike[str], parse_float: Callable[[str], float | Decimal] = float
) -> dict[str, Any]:
    """The document of a file. Raises InputError for what is no TOML, OSError where none is read."""
    content = read_limited(path, LARGEST_TOML_MIB, "a TOML file")
    try:
        document = tomllib.loads(content.decode("utf-8"), parse_float=parse_float)
    except RecursionError:
        raise InputError(f"{path} is not a TOML file: too many lists in each other") from None
    except ValueError as error:
        raise InputError(f"{path} is not a TOML file: {str(error)[:200]}") from None
    todo: list[Any] = [document]
    while todo:
        value = todo.pop()
        if isinstance(value, dict | list):
            todo += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int) and not -_WHOLE <= value < _WHOLE:
            raise InputError(f"{path}: a number takes more than 64 bits")
    return document

"""Finished work of a long run, kept on disk so that a killed run goes on where it was.

One line per finished piece, the start of a SHA-256 and then JSON, flushed to the disk before the
next begins. The file's name holds a digest of everything that the values depend on: a changed
model, data set or setting gets a file of its own and never reads another's. Several processes write
a file each and read all of them.
"""

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from mpsearch.errors import InputError
from mpsearch.files.whole import hidden_path, naming, open_own

_DIGITS = 16  # of the SHA-256 of a line


class Journal:
    """Values by key for one run; use as a context manager, `discard` when the run is complete.

    Entering raises InputError for a journal that was changed by others, or is no plain file of the
    user's own, and says which file to delete. Without an output, which nothing is kept for, it is
    in memory alone.
    """

    def __init__(
        self, output: str | os.PathLike[str] | None, run_digest: str, rank: int = 0
    ) -> None:
        self._stem = None if output is None else hidden_path(output, run_digest, "")
        self._path = self._stem and self._stem.with_name(f"{self._stem.name}{rank}.partial")
        self._values: dict[str, Any] = {}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "Journal":
        if self._path is None:
            return self
        for path in self._all():
            if path != self._path:
                with open_own(path) as other:
                    self._values.update(_read(path, other.read())[0])
        self._file = open_own(self._path, create=True)
        try:
            own, whole = _read(self._path, self._file.read())
            self._values.update(own)
            self._file.truncate(whole)
            self._file.seek(whole)
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        if not self._values:
            for path in self._all():
                path.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        """The files of this run: of every process. A name may hold what a pattern would expand."""
        if self._stem is None:
            return []
        start, end = self._stem.name, ".partial"
        return sorted(
            self._stem.with_name(name)
            for name in os.listdir(self._stem.parent)
            if name.startswith(start) and name.endswith(end)
            and name[len(start) : -len(end)].isdecimal()
        )  # fmt: skip

    @property
    def path(self) -> Path:
        """The file of this process."""
        assert self._path is not None
        return self._path

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> Any:
        """The value of a finished piece, or None."""
        return self._values.get(key)

    def put(self, key: str, value: Any) -> None:
        """Keep a finished piece; it is on the disk when this returns."""
        content = json.dumps([key, value]).encode()
        if self._path is not None:
            assert self._file is not None
            with naming(self._path):
                self._file.write(_sign(content) + b" " + content + b"\n")
                self._file.flush()
                os.fsync(self._file.fileno())
        self._values[key] = value

    def adopt(self, values: Mapping[str, Any]) -> None:
        """Take over pieces that other processes finished and keep."""
        self._values.update(values)

    def values(self) -> Mapping[str, Any]:
        """All finished pieces by key."""
        return dict(self._values)

    def discard(self) -> None:
        """Forget everything: the results are written."""
        self._values.clear()


def _sign(content: bytes) -> bytes:
    return sha256(content).hexdigest()[:_DIGITS].encode()


def _read(path: Path, content: bytes) -> tuple[dict[str, Any], int]:
    """(pieces, bytes of whole lines); a kill may have come in the middle of the last line.

    Only what `put` wrote is parsed: a line whose digest is another's is an InputError.
    """
    values: dict[str, Any] = {}
    whole = 0
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        signed, _, piece = line[:-1].partition(b" ")
        if signed != _sign(piece):
            raise InputError(
                f"{path}: line {number} is not as mpsearch wrote it; delete this file of an "
                "unfinished run to begin anew"
            )
        key, value = json.loads(piece)
        values[key] = value
        whole += len(line)
    return values, whole

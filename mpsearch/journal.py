"""Finished work of a long run, kept on disk so that a killed run goes on where it was.

One JSON line per finished piece, flushed to the disk before the next begins. The file's name holds
a digest of everything that the values depend on: a changed model, data set or setting gets a file
of its own and never reads another's. Several processes write a file each and read all of them.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any


class Journal:
    """Values by key for one run; use as a context manager, `discard` when the run is complete."""

    def __init__(self, output: str | os.PathLike[str], run_digest: str, rank: int = 0) -> None:
        target = Path(output)
        short = run_digest.removeprefix("sha256:")[:16]
        self._stem = f".{target.name}.{short}"
        self.path = target.parent / f"{self._stem}.{rank}.partial"
        self._values: dict[str, Any] = {}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "Journal":
        for path in sorted(self.path.parent.glob(f"{self._stem}.*.partial")):
            if path != self.path:
                self._values.update(_read(path)[0])
        own, whole = _read(self.path) if self.path.exists() else ({}, 0)
        self._values.update(own)
        self._file = self.path.open("ab")
        self._file.truncate(whole)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        assert self._file is not None
        self._file.close()
        if not self._values:
            for path in self.path.parent.glob(f"{self._stem}.*.partial"):
                path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> Any:
        """The value of a finished piece, or None."""
        return self._values.get(key)

    def put(self, key: str, value: Any) -> None:
        """Keep a finished piece; it is on the disk when this returns."""
        assert self._file is not None
        self._file.write(json.dumps([key, value]).encode() + b"\n")
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


def _read(path: Path) -> tuple[dict[str, Any], int]:
    """(pieces, bytes of whole lines); a kill may have come in the middle of the last line."""
    values: dict[str, Any] = {}
    whole = 0
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        try:
            key, value = json.loads(line)
        except ValueError:
            break
        values[key] = value
        whole += len(line)
    return values, whole

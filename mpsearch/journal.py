"""Finished work of a long run, kept on disk so that a killed run goes on where it was.

One JSON line per finished piece, flushed to the disk before the next begins. The file's name holds
a digest of everything that the values depend on: a changed model, data set or setting gets a file
of its own and never reads another's.
"""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any


class Journal:
    """Values by key for one run; use as a context manager, and `discard` when the run is
    complete."""

    def __init__(self, output: str | os.PathLike[str], run_digest: str) -> None:
        target = Path(output)
        short = run_digest.removeprefix("sha256:")[:16]
        self.path = target.parent / f".{target.name}.{short}.partial"
        self._values: dict[str, Any] = {}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "Journal":
        whole = 0
        if self.path.exists():
            for line in self.path.read_bytes().splitlines(keepends=True):
                try:
                    key, value = json.loads(line)
                except ValueError:
                    break  # the kill came in the middle of this line
                if not line.endswith(b"\n"):
                    break
                self._values[key] = value
                whole += len(line)
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
            self.path.unlink(missing_ok=True)

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

    def discard(self) -> None:
        """Forget everything: the results are written."""
        self._values.clear()

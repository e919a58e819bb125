"""The folder of one run of an experiment: measured rows, stored one by one, and its models."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mpsearch.choice import Choice
from mpsearch.errors import InputError
from mpsearch.evaluation import Evaluation, row_from_json, row_to_json
from mpsearch.files import write_atomic

FORMAT, VERSION = "mpsearch.run", 1
FILE = "run.json"


@dataclass(frozen=True)
class Measured:
    """One row: what was measured, the bytes of the stored file, the seconds that it took."""

    evaluation: Evaluation
    file_bytes: int | None = None
    seconds: float = 0.0


@dataclass
class RunStore:
    """`rows` by name, `seconds` by stage and `assignments` by name, all kept in `folder`/run.json.

    A row is written as soon as it is measured: what a killed run has measured is kept.
    """

    folder: Path
    identity: str
    rows: dict[str, Measured] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    assignments: dict[str, dict[str, str]] = field(default_factory=dict)

    @staticmethod
    def open(folder: Path, identity: str) -> "RunStore":
        """Read what is stored, or begin. Raises InputError where it belongs to something else."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        if not path.exists():
            store = RunStore(folder, identity)
            store._write()
            return store
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT or document["version"] != VERSION:
                raise ValueError(f"format {document['format']!r} {document['version']!r}")
            rows = {name: _row(one) for name, one in document["rows"].items()}
            stored = str(document["identity"])
            seconds = {str(key): float(value) for key, value in document["seconds"].items()}
            assignments = {str(key): dict(one) for key, one in document["assignments"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: not the record of a run: {error}; delete it to begin anew"
            ) from None
        if stored != identity:
            raise InputError(
                f"{folder} holds a run with other data or settings; give another folder with -o, "
                "or delete it"
            )
        return RunStore(folder, identity, rows, seconds, assignments)

    def measure(self, name: str, make: Callable[[], Measured]) -> Measured:
        """The row `name`: the stored one, or made now, timed and stored."""
        if name not in self.rows:
            started = time.monotonic()
            row = make()
            self.rows[name] = replace(row, seconds=time.monotonic() - started)
            self._write()
        return self.rows[name]

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Keep the seconds that the block takes."""
        started = time.monotonic()
        yield
        self.seconds[stage] = time.monotonic() - started
        self._write()

    def note_assignment(self, name: str, choices: Mapping[str, Choice]) -> None:
        """Keep which bits every layer got."""
        self.assignments[name] = {layer: str(choice) for layer, choice in choices.items()}
        self._write()

    def _write(self) -> None:
        document = {
            "format": FORMAT,
            "version": VERSION,
            "identity": self.identity,
            "rows": {
                name: {
                    **row_to_json(row.evaluation),
                    "file_bytes": row.file_bytes,
                    "seconds": row.seconds,
                }
                for name, row in self.rows.items()
            },
            "seconds": self.seconds,
            "assignments": self.assignments,
        }
        write_atomic(self.folder / FILE, json.dumps(document, indent=1) + "\n")


def _row(document: Mapping[str, Any]) -> Measured:
    file_bytes = document["file_bytes"]
    return Measured(
        row_from_json(document),
        None if file_bytes is None else int(file_bytes),
        float(document["seconds"]),
    )

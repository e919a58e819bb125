"""The folder of one run of an experiment: measured rows, stored one by one, and its models."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation, row_from_json, row_to_json
from mpsearch.files.json_file import (
    by_name,
    check_form,
    null_or,
    number,
    read_document,
    text,
    whole,
)
from mpsearch.files.whole import write_atomic
from mpsearch.tables.choice import Choice

FORMAT, VERSION = "mpsearch.run", 1
FILE = "run.json"
LARGEST_MIB = 256


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
            document = read_document(path, "record of a run", FORMAT, VERSION, LARGEST_MIB, "")
            check_form(document, _FORM, "")
            rows = {name: _row(one, name) for name, one in document["rows"].items()}
        except (ValueError, InputError) as error:
            raise InputError(
                f"{path}: not the record of a run: {error}; delete it to begin anew"
            ) from None
        if document["identity"] != identity:
            raise InputError(
                f"{folder} holds a run with other data or settings; give another folder with -o, "
                "or delete it"
            )
        return RunStore(folder, identity, rows, document["seconds"], document["assignments"])

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


_FORM = {
    "identity": text,
    "rows": by_name({"file_bytes": null_or(whole()), "seconds": number(0)}),
    "seconds": by_name(number(0)),
    "assignments": by_name(by_name(text)),
}


def _row(document: Mapping[str, Any], name: str) -> Measured:
    row = row_from_json(document, f"rows[{name!a}]")
    return Measured(row, document["file_bytes"], float(document["seconds"]))

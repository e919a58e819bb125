"""Which steps of a run are finished: `run.json`, with each step's command and what it read and
wrote, so that a second run does again only what would come out differently.

A step is as before when its command is the same, the files that it reads are those that it read,
and the files that it writes are those that it, or a later step which adds to them, left.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mpsearch.errors import InputError
from mpsearch.files.json_file import by_name, check_form, list_of, number, read_document, text
from mpsearch.files.whole import write_atomic

FORMAT, VERSION = "mpsearch.steps", 1
FILE = "run.json"
LARGEST_MIB = 1
MISSING = "missing"  # in place of a digest


@dataclass(frozen=True)
class Step:
    """One call of `mpsearch`."""

    name: str
    """`profile`: each step of a run has another."""
    words: tuple[str, ...]
    """The command line after `mpsearch`."""
    reads: tuple[str, ...]
    """The files that decide what comes out, beside the command; paths as in the command."""
    writes: tuple[str, ...]
    """The files that it leaves."""

    @property
    def command(self) -> str:
        """The command line as a shell takes it."""
        return shlex.join(["mpsearch", *self.words])


@dataclass(frozen=True)
class Finished:
    """A finished step; `read` and `written`: the digest of each file by its path."""

    name: str
    command: str
    read: Mapping[str, str]
    written: Mapping[str, str]
    seconds: float


@dataclass
class Record:
    """The finished steps by name, in the order in which they ended; kept in `path`."""

    path: Path
    version: str
    """Of the program: another one may compute something else, and does all steps again."""
    steps: dict[str, Finished] = field(default_factory=dict)

    @staticmethod
    def open(folder: str | os.PathLike[str], version: str) -> "Record":
        """The record in a folder, or a new one. Raises InputError for a file that is none."""
        path = Path(folder, FILE)
        record = Record(path, version)
        if not path.exists():
            return record
        try:
            document = read_document(path, "record of a run", FORMAT, VERSION, LARGEST_MIB, "")
            check_form(document, _FORM, "")
        except (ValueError, InputError) as error:
            raise InputError(
                f"{path}: not the record of a run: {error}; delete it to begin anew, or choose "
                "another folder with -o"
            ) from None
        if document["mpsearch"] == version:
            found = [Finished(**{key: one[key] for key in _STEP}) for one in document["steps"]]
            record.steps = {one.name: one for one in found}
        return record

    def is_as_before(self, step: Step) -> bool:
        """Whether the step would do again what it did."""
        known = self.steps.get(step.name)
        if known is None or known.command != step.command:
            return False
        return known.read == _digests(step.reads) and self._left(step) == _digests(step.writes)

    def _left(self, step: Step) -> dict[str, str]:
        """Of every file that the step writes, what the last step that wrote it left."""
        left = dict.fromkeys(step.writes, MISSING)
        for one in self.steps.values():
            left |= {path: found for path, found in one.written.items() if path in left}
        return left

    def begin(self, step: Step) -> dict[str, str]:
        """Forget it, and the later ones that add to its files; the digests of what it reads."""
        names = [*self.steps]
        later = names[names.index(step.name) :] if step.name in names else []
        for name in later:
            if name == step.name or {*self.steps[name].written} & {*step.writes}:
                del self.steps[name]
        self._write()
        return _digests(step.reads)

    def finish(self, step: Step, read: Mapping[str, str], seconds: float) -> None:
        """Keep that the step is finished; `read` is what `begin` gave."""
        written = _digests(step.writes)
        self.steps[step.name] = Finished(step.name, step.command, read, written, seconds)
        self._write()

    def _write(self) -> None:
        steps = [asdict(one) for one in self.steps.values()]
        document = {"format": FORMAT, "version": VERSION, "mpsearch": self.version, "steps": steps}
        write_atomic(self.path, json.dumps(document, indent=1) + "\n")


_STEP = {
    "name": text, "command": text, "read": by_name(text), "written": by_name(text),
    "seconds": number(0),
}  # fmt: skip
_FORM = {"mpsearch": text, "steps": list_of(_STEP)}


def _digests(paths: tuple[str, ...]) -> dict[str, str]:
    return {path: _digest(path) for path in paths}


def _digest(path: str) -> str:
    if not os.path.isfile(path):
        return MISSING
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()

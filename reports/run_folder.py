"""Reading a run: the folder that profile, solve, front and evaluate wrote their files to."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mpsearch.device.profile import DeviceProfile, load_device_profile
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluations, load_evaluations
from mpsearch.foreign_tables.reading import read_again
from mpsearch.pareto.files import read_json
from mpsearch.pareto.front import Front
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.provenance import load_provenance, table_of
from mpsearch.tables.table import LayerTable

USUAL = {
    "profile": "profile.csv",
    "assignment": "assignment.json",
    "front": "front.json",
    "evaluation": "evaluation.json",
    "device": "device.json",
}
OPTIONAL = ("device",)  # not every run has been on a device; a table's front is computed
DAMAGED = "what cannot be read"
MADE_BY = {
    "profile": "mpsearch profile model.pt",
    "assignment": "mpsearch solve -o assignment.json",
    "front": "mpsearch front -o front.csv",
    "evaluation": "mpsearch evaluate model.pt --assignment assignment.json",
}


@dataclass(frozen=True)
class Run:
    """What a run folder holds; None and empty: not there.

    paths: piece (a key of USUAL) -> the file that was read;
    missing: one phrase for each piece that was not there, with the command that makes it.
    folder: its own name, without what it lies in; date: of its newest piece, `2026-11-29` in UTC.
    in_memory: whether the pieces are objects of a program, and not read from files.
    """

    table: LayerTable | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    assignment: Assignment | None = None
    front: Front | None = None
    evaluations: Evaluations | None = None
    device: DeviceProfile | None = None
    paths: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    folder: str = ""
    date: str = ""
    in_memory: bool = False

    @property
    def foreign(self) -> bool:
        """Whether it has formats of other tools, which are measured by these."""
        table = self.table.choices if self.table is not None else ()
        chosen = self.assignment.layers.values() if self.assignment is not None else ()
        return any(choice.label for choice in (*table, *chosen))


def read_run(
    folder: str | os.PathLike[str] = ".", named: Mapping[str, str | None] | None = None
) -> Run:
    """Read what is in `folder`; `named` gives other files by piece, and those must exist.

    The table is the one that the assignment was solved from, where that lies there under another
    name. A damaged file is listed as missing, with the reason. Raises InputError when there is
    nothing at all, and for a damaged file that was named.
    """
    given = {piece: path for piece, path in (named or {}).items() if path is not None}
    if Path(folder).is_file():
        raise InputError(
            f"{folder} is a file; expected the folder of a run",
            "name files by --assignment, --profile, --front, --evaluation",
        )
    if not Path(folder).is_dir():
        raise InputError(f"there is no run folder {folder}; expected one with {USUAL['profile']}")
    paths = {}
    missing = []
    usual_paths = {piece: os.path.join(folder, usual) for piece, usual in USUAL.items()}
    assigned = given.get("assignment", usual_paths["assignment"])
    usual_paths["profile"] = _table_path(usual_paths["profile"], assigned)
    for piece, usual in USUAL.items():
        path = given.get(piece, usual_paths[piece])
        if piece in given or Path(path).exists():
            paths[piece] = os.path.normpath(path)
        elif piece not in OPTIONAL and (piece != "front" or "profile" not in paths):
            missing.append(f"{usual} (made by `{MADE_BY[piece]}`)")
    if not paths:
        raise InputError(
            f"{folder} has none of {', '.join(USUAL.values())}; name a run folder, or make one "
            "with `mpsearch profile model.pt` and `mpsearch solve`"
        )

    def read(piece: str, reader: Callable[[str], Any]) -> Any:
        """The piece, None where it is not there; a damaged one is an error where it is named."""
        if piece not in paths:
            return None
        try:
            return reader(paths[piece])
        except InputError as error:
            if piece in given:
                raise
            damaged.append(" ".join(str(error).split()))
            return None

    damaged: list[str] = []
    table = read("profile", lambda path: read_again(path, _search_of(assigned)))
    provenance = read("profile", load_provenance) or {}
    if table is not None and not provenance:
        missing.append("profile.json (where the numbers come from; `mpsearch profile`)")
    run = Run(
        table=table,
        provenance=provenance,
        assignment=read("assignment", Assignment.load),
        front=read("front", lambda path: read_json(Path(path).with_suffix(".json"))),
        evaluations=read("evaluation", load_evaluations),
        device=read("device", load_device_profile),
        paths=paths,
        missing=(*missing, *(f"{DAMAGED}: {text}" for text in damaged)),
        folder=Path(os.path.abspath(folder)).name,
        date=_newest(paths.values()),
    )
    pieces = (run.table, run.assignment, run.front, run.evaluations, run.device)
    if all(piece is None for piece in pieces):
        raise InputError(damaged[0])
    if run.foreign:
        ours = [f"{USUAL['evaluation']} ", f"{Path(USUAL['profile']).stem}.json "]
        run = replace(run, missing=tuple(o for o in run.missing if not o.startswith(tuple(ours))))
    return run


def _newest(paths: Iterable[str]) -> str:
    """The day, in UTC, on which the newest of these files was written; empty without any."""
    times = [Path(path).stat().st_mtime for path in paths if Path(path).is_file()]
    return datetime.fromtimestamp(max(times), UTC).date().isoformat() if times else ""


def _search_of(assignment: str) -> Mapping[str, tuple[str, ...]]:
    """What an assignment records of how its table was read; nothing where it is damaged."""
    try:
        return Assignment.load(assignment).search if Path(assignment).exists() else {}
    except InputError:
        return {}


def _table_path(usual: str, assignment: str) -> str:
    """The table that the assignment was solved from, where it is beside the usual one."""
    try:
        chosen = Assignment.load(assignment) if Path(assignment).exists() else None
        found = table_of(chosen, usual, Path(assignment).parent)
    except InputError:  # what is damaged is read again, and said
        return usual
    return usual if found is None else str(found)

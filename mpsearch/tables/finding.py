"""The table that an assignment was solved from: the named one, the usual one, or one beside it."""

import os
from pathlib import Path

from mpsearch.errors import InputError
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.table import LayerTable

MOST_FILES, LARGEST_MIB = 200, 64  # that are looked into for a table


def table_of(
    assignment: Assignment | None, usual: str | os.PathLike[str], *folders: str | os.PathLike[str]
) -> Path | None:
    """`usual` where the assignment is of it, else the CSV with the assignment's digest beside it.

    folders: where else to look. Where none has that digest, `usual` where it is there, else None.
    Files that are no tables are passed over. Raises InputError where `usual` itself is damaged.
    """
    path = Path(usual)
    there = path if path.exists() else None
    wanted = None if assignment is None else assignment.table_digest
    if wanted is None or (there is not None and LayerTable.read_csv(there).digest == wanted):
        return there
    places = dict.fromkeys([path.parent, *map(Path, folders)])
    others = [other for place in places for other in sorted(place.glob("*.csv")) if other != path]
    for other in others[:MOST_FILES]:
        if other.is_file() and other.stat().st_size <= LARGEST_MIB << 20:
            try:
                if LayerTable.read_csv(other).digest == wanted:
                    return other
            except (InputError, UnicodeDecodeError):
                continue
    return there


def is_of_another(assignment: Assignment, table: LayerTable) -> bool:
    """Whether the assignment says that it was solved from another table than this one."""
    return assignment.table_digest not in (None, table.digest)


def not_its_table(assignment: Assignment, table: LayerTable) -> str:
    """What to say of a table that is not the assignment's, in one line."""
    return (
        f"the assignment was solved from another table ({str(assignment.table_digest)[:19]}) than "
        f"{table.source}; name that one with --profile, or solve again"
    )

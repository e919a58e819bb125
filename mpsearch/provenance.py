"""Where a table's numbers come from: `profile.json` beside `profile.csv`."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpsearch.errors import InputError

FORMAT, VERSION = "mpsearch.provenance", 1


def provenance_path(table: str | os.PathLike[str]) -> Path:
    """`profile.csv` -> `profile.json`."""
    return Path(table).with_suffix(".json")


def sound_provenance(table: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The same for what needs none, such as a search in the table: empty for a damaged file too."""
    try:
        return load_provenance(table)
    except InputError:
        return {}


def model_digest_of(provenance: Mapping[str, Any]) -> str | None:
    """Operators and weights that the table is of; None where nobody says."""
    digest = provenance.get("model_digest")
    return digest if isinstance(digest, str) else None


def load_provenance(table: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The provenance beside a table; empty when there is none (a hand-written table)."""
    path = provenance_path(table)
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file: {error}") from error
    known = isinstance(document, dict) and document.get("format") == FORMAT
    return document if known else {}

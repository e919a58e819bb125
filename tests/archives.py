"""Damaging the header of an mpsearch file, for tests of what its reader refuses."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpsearch.network_file import HEADER


def edit_header(path: Path, change: Callable[[Any], object]) -> None:
    """Rewrite the header of an mpsearch file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(members[HEADER])
    change(header)
    members[HEADER] = json.dumps(header).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)

"""Changing an mpsearch file by hand, for tests of what its reader takes and refuses."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from mpsearch.graph.network_file import HEADER


def edit_header(path: Path, change: Callable[[Any], object]) -> None:
    """Rewrite the header of an mpsearch file."""
    members = _members(path)
    header = json.loads(members[HEADER])
    change(header)
    _write(path, {**members, HEADER: json.dumps(header).encode()})


def edit_tensors(path: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Rewrite the tensors of an mpsearch file, weights and sample."""
    members = {
        name: content
        if name == HEADER
        else save({key: change(tensor) for key, tensor in load(content).items()})
        for name, content in _members(path).items()
    }
    _write(path, members)


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)

"""Computed features on disk, so that only the first run waits for them."""

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from mpsearch.errors import InputError
from mpsearch.files.npz_file import read_npz
from mpsearch.files.writing import write_atomic

DIGEST_BYTES = 32


def cache_folder() -> Path:
    """`$MPSEARCH_CACHE`, or `$XDG_CACHE_HOME/mpsearch`, or `~/.cache/mpsearch`."""
    own = os.environ.get("MPSEARCH_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "mpsearch"


def cached(
    name: str, key: str, build: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays of `build()`, cached under `key`, a digest of sources and settings.

    A file is the SHA-256 of an .npz archive and then the archive: a damaged one is noticed and
    built again, and nothing in it is ever executed. A folder that cannot be written to costs only
    the time.
    """
    path = cache_folder() / f"{name}-{key.removeprefix('sha256:')[:24]}.features"
    found = _read(path)
    if found is not None:
        return found
    arrays = dict(build())
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    content = buffer.getvalue()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, hashlib.sha256(content).digest() + content)
    return arrays


def _read(path: Path) -> dict[str, np.ndarray] | None:
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    content = stored[DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != stored[:DIGEST_BYTES]:
        return None
    try:
        return read_npz(content, str(path), kinds="fiubU")
    except InputError:
        return None

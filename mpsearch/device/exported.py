"""What a device gets of a C export: sources, samples, and the reference's integers to compare."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from mpsearch.c_export.folder import DOCUMENT, FORMAT, VERSION
from mpsearch.choice import Choice
from mpsearch.device.profile import network_digest
from mpsearch.errors import InputError
from mpsearch.files import digest

_SOURCE = re.compile(r"[a-z][a-z0-9_]{0,40}\.[ch]")
_INPUT, _OUTPUT = "check/input.f32", "check/output.txt"
LARGEST = 1 << 28


@dataclass(frozen=True)
class Exported:
    """A C export that was read and found unchanged.

    sources: C files by name. steps: the layer that each step counts for. samples: float32 of all
    samples. one: that of the first. expected: a line of integers for each sample, from the
    reference.
    """

    digest: str
    network: str
    sources: Mapping[str, bytes]
    steps: tuple[str, ...]
    samples: bytes
    one: bytes
    expected: tuple[str, ...]
    constant_bytes: int
    arena_bytes: int
    model_digest: str | None = None
    quantized_digest: str | None = None


def read_export(folder: str | os.PathLike[str]) -> Exported:
    """Read a folder of `mpsearch export --format c`.

    Raises InputError for anything else, for a file that is missing or was changed after the export,
    and for an export of an mpsearch whose program cannot be timed.
    """
    place = Path(folder)
    raw, document = _document(place)
    try:
        contents = _contents(place, dict(document["files"]))
        samples, results = contents[_INPUT], contents[_OUTPUT].decode("ascii")
        expected = tuple(results.splitlines())
        size = 4 * sum(prod(map(int, entry["shape"])) for entry in document["inputs"])
        if size <= 0 or not expected or len(samples) != size * len(expected):
            raise ValueError(f"{_INPUT} does not hold the samples of {_OUTPUT}")
        choices = {
            str(layer["layer"]): Choice(int(layer["w_bits"]), int(layer["a_bits"]))
            for layer in document["layers"]
        }
        exported = Exported(
            digest=digest(raw),
            network=network_digest(choices),
            sources={name: data for name, data in contents.items() if _SOURCE.fullmatch(name)},
            steps=tuple(str(step["layer"]) for step in document["steps"]),
            samples=samples,
            one=samples[:size],
            expected=expected,
            constant_bytes=sum(map(int, document["constant_bytes"].values())),
            arena_bytes=int(document["arena"]["peak_bytes"]),
            model_digest=_digest(document, "model_digest"),
            quantized_digest=_digest(document, "quantized_digest"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{place / DOCUMENT} is damaged: {str(error)[:200]}; export again"
        ) from None
    if b"--warm-up" not in exported.sources.get("main.c", b""):
        raise InputError(
            f"{place} was written by an older mpsearch, whose program cannot be timed; export again"
        )
    return exported


def _digest(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key} is no text")
    return value


def _document(folder: Path) -> tuple[bytes, Mapping[str, Any]]:
    try:
        raw = (folder / DOCUMENT).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise InputError(
            f"{folder} is not a C export: it has no {DOCUMENT}; make one with "
            "`mpsearch export QUANTIZED --format c -o FOLDER`"
        ) from None
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{folder / DOCUMENT} is not JSON: {str(error)[:200]}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(f'{folder / DOCUMENT} is not of a C export; expected "format": "{FORMAT}"')
    if document.get("version") != VERSION:
        raise InputError(
            f"{folder} has version {ascii(document.get('version'))[:50]}; this mpsearch reads "
            f"{VERSION}"
        )
    return raw, document


def _contents(folder: Path, listed: Mapping[str, Any]) -> dict[str, bytes]:
    """Every listed file that a device needs, as it was exported."""
    contents = {}
    for name, expected in listed.items():
        if not (_SOURCE.fullmatch(name) or name in (_INPUT, _OUTPUT)):
            continue
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path} is missing; export again")
        if path.stat().st_size > LARGEST or digest(content := path.read_bytes()) != expected:
            raise InputError(
                f"{path} was changed after the export; export again, its figures would be those of "
                "another network"
            )
        contents[name] = content
    return contents

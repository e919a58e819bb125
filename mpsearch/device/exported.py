"""What a device gets of a C export: sources, samples, and the reference's integers to compare."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from mpsearch.errors import InputError
from mpsearch.exporters.c.folder import DOCUMENT, FORMAT, LARGEST_MIB, VERSION
from mpsearch.files.json_file import read_document
from mpsearch.files.json_form import by_name, check_form, list_of, null_or, text, whole
from mpsearch.files.writing import digest
from mpsearch.tables.choice import Choice
from mpsearch.tables.evidence_digests import network_digest

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
        check_form(document, _FORM, "")
        contents = _contents(place, document["files"])
        samples, results = contents[_INPUT], contents[_OUTPUT].decode("ascii")
        expected = tuple(results.splitlines())
        size = 4 * sum(prod(entry["shape"]) for entry in document["inputs"])
        if size <= 0 or not expected or len(samples) != size * len(expected):
            raise ValueError(f"{_INPUT} does not hold the samples of {_OUTPUT}")
        choices = {layer["layer"]: Choice.from_json(layer) for layer in document["layers"]}
        exported = Exported(
            digest=digest(raw),
            network=network_digest(choices),
            sources={name: data for name, data in contents.items() if _SOURCE.fullmatch(name)},
            steps=tuple(step["layer"] for step in document["steps"]),
            samples=samples,
            one=samples[:size],
            expected=expected,
            constant_bytes=sum(document["constant_bytes"].values()),
            arena_bytes=document["arena"]["peak_bytes"],
            model_digest=document.get("model_digest"),
            quantized_digest=document.get("quantized_digest"),
        )
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{place / DOCUMENT} is damaged: {str(error)[:200]}; export again"
        ) from None
    if b"--warm-up" not in exported.sources.get("main.c", b""):
        raise InputError(
            f"{place} was written by an older mpsearch, whose program cannot be timed; export again"
        )
    return exported


_FORM = {
    "files": by_name(text),
    "inputs": list_of({"shape": list_of(whole(1, 1 << 31))}),
    "layers": list_of({"layer": text, "w_bits": whole(1, 64), "a_bits": whole(1, 64)}),
    "steps": list_of({"layer": text}),
    "constant_bytes": by_name(whole()),
    "arena": {"peak_bytes": whole()},
    "model_digest?": null_or(text),
    "quantized_digest?": null_or(text),
}


def _document(folder: Path) -> tuple[bytes, Mapping[str, Any]]:
    if not (folder / DOCUMENT).is_file():
        raise InputError(
            f"{folder} is not a C export: it has no {DOCUMENT}; make one with "
            "`mpsearch export QUANTIZED --format c -o FOLDER`"
        )
    place = folder / DOCUMENT
    document = read_document(place, DOCUMENT, FORMAT, VERSION, LARGEST_MIB, f"there is no {place}")
    return place.read_bytes(), document


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

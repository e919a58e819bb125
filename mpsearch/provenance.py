"""Where a table's numbers come from: `profile.json` beside `profile.csv`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpsearch.errors import InputError
from mpsearch.json_file import read_json
from mpsearch.json_form import by_name, check_form, list_of, null_or, number, text, whole

FORMAT, VERSION = "mpsearch.provenance", 1
LARGEST_MIB = 64


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
    document = read_json(path, "profile.json", LARGEST_MIB)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        return {}
    try:
        check_form(document, _FORM, "")
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from None
    return document


_SIZE = null_or(whole())
_FORM = {
    **dict.fromkeys(("data?", "loss?", "metric?", "model_digest?"), null_or(text)),
    **dict.fromkeys(("fp32_bytes?", "macs?", "float_bytes_outside_layers?"), _SIZE),
    "float_operators?": {
        "operators": list_of({"name": text, "operator": text, "bytes": whole(), "macs": whole()}),
        "others?": null_or(by_name(whole())),
        **dict.fromkeys(("bytes", "macs"), whole()),
        **dict.fromkeys(("share_of_fp32_bytes", "share_of_w8a8_bops"), number(0)),
    },
}

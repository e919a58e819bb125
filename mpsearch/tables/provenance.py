"""Where a table's numbers come from: `profile.json` beside `profile.csv`."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpsearch.errors import InputError
from mpsearch.files.json_file import read_json
from mpsearch.files.json_form import by_name, check_form, list_of, null_or, number, text, whole
from mpsearch.tables.limits import column_of

if TYPE_CHECKING:
    from mpsearch.tables.table import LayerTable

FORMAT, VERSION = "mpsearch.provenance", 1
LARGEST_MIB = 64
WEIGHTS_ALONE = ("hessian", "pyhessian", "weight-mse")  # metrics built on the weights' error


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


def unpriced_activations(
    table: "LayerTable", provenance: Mapping[str, Any], paid: Iterable[str]
) -> list[str]:
    """A sentence where bits of activations are saved for one of the columns `paid`, and the
    table's Ω is of a metric that does not see them; else nothing."""
    metric = provenance.get("metric")
    if metric not in WEIGHTS_ALONE or len(set(table.a_bits.tolist())) < 2:
        return []
    columns = [column for column in map(column_of, paid) if _counts_activations(table, column)]
    if not columns:
        return []
    return [
        f"Ω by {metric} is of the weights alone: activations of fewer bits cost nothing in it and "
        f"save {columns[0]}; profile with an output metric, such as sqnr, to have them priced"
    ]


def _counts_activations(table: "LayerTable", column: str) -> bool:
    """Whether other bits of the activations alone change the column; BOPS by definition."""
    if column == "bops":
        return True
    if column not in table.columns:
        return False
    seen: dict[tuple[str, str], Any] = {}
    values = table.column(column).tolist()
    return any(
        seen.setdefault((row.layer, row.choice.weights), value) != value
        for row, value in zip(table.rows(), values, strict=True)
    )


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

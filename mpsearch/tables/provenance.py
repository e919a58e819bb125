"""Where a table's numbers come from: `profile.json` beside `profile.csv`.

What a measurement is of: digests of weights, bits and data, kept beside every figure.

Whoever measures writes an `Origin`; whoever uses the figures compares it with the network that the
figures are used for. Weights are the digest of the float network (`Network.digest`), which
profile.json and assignment.json hold too: a network that was fine-tuned or repaired has that of the
float network which it came from.

The table that an assignment was solved from: the named one, the usual one, or one beside it.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpsearch.errors import InputError
from mpsearch.files.json_file import (
    anything,
    by_name,
    check_form,
    list_of,
    null_or,
    number,
    read_json,
    text,
    whole,
)
from mpsearch.files.whole import digest
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import column_of
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable

if TYPE_CHECKING:
    from mpsearch.tables.table import LayerTable


FORMAT, VERSION = "mpsearch.provenance", 1
LIFETIMES = "lifetimes"  # which tensors live at the same time: `integer.template`
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
    own = {choice.a_bits for choice in table.choices if not choice.label}
    if metric not in WEIGHTS_ALONE or len(own) < 2:
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
    **dict.fromkeys(("data?", "loss?", "metric?", "model_digest?", "model_file?"), null_or(text)),
    **dict.fromkeys(("fp32_bytes?", "macs?", "float_bytes_outside_layers?"), _SIZE),
    "shapes?": null_or(by_name(list_of(whole(1)))),
    "float_operators?": {
        "operators": list_of({"name": text, "operator": text, "bytes": whole(), "macs": whole()}),
        "others?": null_or(by_name(whole())),
        **dict.fromkeys(("bytes", "macs"), whole()),
        **dict.fromkeys(("share_of_fp32_bytes", "share_of_w8a8_bops"), number(0)),
    },
}


SHOWN = 3  # layers that a message names
ORIGIN = {  # what `origin_to_json` adds to a row
    **dict.fromkeys(("model_digest?", "data_digest?", "quantized_digest?"), null_or(text)),
    "assignment_digest?": null_or(text),
    "layers?": null_or(by_name(text)),
    "post_training?": null_or(by_name(anything)),
}


@dataclass(frozen=True)
class Origin:
    """What was measured, by digests; None: not known.

    model: operators and weights of the float network. layers: the bits; None for the float network
    itself. data: the samples, in their order. quantized: the integers that ran, where they were
    read from a file. post_training: the settings of `PostTraining` that they were made with.
    """

    model: str | None = None
    layers: Mapping[str, Choice] | None = None
    data: str | None = None
    quantized: str | None = None
    post_training: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Judged:
    """The network that figures are used for.

    models: who says which weights it has -> their digest: {"the assignment": "sha256:…"}; empty
    where nobody does. layers: its bits; None where they are not asked about.
    """

    models: Mapping[str, str] = field(default_factory=dict)
    layers: Mapping[str, Choice] | None = None


def origin_to_json(origin: Origin) -> dict[str, Any]:
    """The keys of a row of evaluation.json; none where nothing is known."""
    document: dict[str, Any] = {
        "model_digest": origin.model,
        "data_digest": origin.data,
        "quantized_digest": origin.quantized,
        "post_training": None if origin.post_training is None else dict(origin.post_training),
    }
    if origin.layers is not None:
        document["assignment_digest"] = network_digest(origin.layers)
        document["layers"] = {name: str(choice) for name, choice in origin.layers.items()}
    return {key: value for key, value in document.items() if value is not None}


def origin_from_json(row: Mapping[str, Any]) -> Origin:
    """Read these keys of a row that has the form ORIGIN. Raises ValueError for layers that are not
    those of their digest."""
    layers = None
    if row.get("layers") is not None:
        try:
            layers = {name: Choice.called(bits) for name, bits in row["layers"].items()}
        except ValueError:
            raise ValueError("its layers have no bits such as w8a8") from None
        if row.get("assignment_digest") != network_digest(layers):
            raise ValueError("its layers are not those of its assignment_digest")
    return Origin(
        row.get("model_digest"), layers, row.get("data_digest"), row.get("quantized_digest"),
        row.get("post_training"),
    )  # fmt: skip


def check_weights(digest: str | None, what: str, judged: Judged, remedy: str) -> None:
    """Raise InputError where `what` is of other weights than the network judged."""
    for who, expected in judged.models.items():
        if digest is not None and digest != expected:
            raise InputError(
                f"{what} is of other weights than {who}: {digest[:19]}, there {expected[:19]}",
                remedy,
            )


def check_bits(layers: Mapping[str, Choice] | None, what: str, judged: Judged, remedy: str) -> None:
    """Raise InputError, which names the layers, where `what` is of other bits."""
    wanted = judged.layers
    if wanted is None or layers == wanted:
        return
    if layers is None:
        raise InputError(f"{what} is of the float network, not of the assignment", remedy)
    if set(layers) != set(wanted):
        names = _listed(sorted(set(layers) ^ set(wanted)))
        raise InputError(
            f"{what} is of another network than the assignment: only one of them has the layers "
            f"{names}",
            remedy,
        )
    names = _listed([
        f"{name} ({layers[name]}, in the assignment {choice})"
        for name, choice in wanted.items() if layers[name] != choice
    ])  # fmt: skip
    raise InputError(f"{what} is of other bits than the assignment: layers {names}", remedy)


def check_tied(tied: bool, what: str, remedy: str, unverified: bool) -> None:
    """Raise InputError for figures that do not say what they are of, unless that is accepted."""
    if not tied and not unverified:
        raise InputError(
            f"{what} is not tied to a network: it does not say which weights, bits and data it is "
            "of (older versions wrote no digests)",
            f"{remedy}, or accept it with --unverified",
        )


def _listed(words: list[str]) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more


def network_digest(choices: Mapping[str, Choice]) -> str:
    """Ties a profile to an assignment: digest of `NAME=w4a8` of all layers, sorted by name."""
    return digest(*(f"{name}={choices[name]}" for name in sorted(choices)))


MOST_FILES, LARGEST_TABLE_MIB = 200, 64  # that are looked into for a table


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
        if other.is_file() and other.stat().st_size <= LARGEST_TABLE_MIB << 20:
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

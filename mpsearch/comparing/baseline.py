"""`Baseline`: what a network took and reached, in a file that later runs compare with."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import mpsearch
from mpsearch.comparing.layers import LAYERS, LayerChange, NetworkLayer, changes_between
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation, row_from_json, row_to_json
from mpsearch.files.json_file import by_name, check_form, flag, null_or, number, read_document, text
from mpsearch.files.whole import digest, write_atomic
from mpsearch.running.streams import json_text
from mpsearch.tables.table import LayerTable

FORMAT, VERSION = "mpsearch.baseline", 1
LARGEST_MIB = 64
DEVICE = ("steady", "process", "cold", "peak_memory_bytes", "energy_j", "instructions")


@dataclass(frozen=True)
class Identity:
    """Which network, by digests; None: not known.

    layers: of the layers' names; shapes: with weights and MACs of each, where the table has them;
    weights: of operators and weights, as profile.json has it; table, assignment: of those files'
    content.
    """

    layers: str | None = None
    shapes: str | None = None
    weights: str | None = None
    table: str | None = None
    assignment: str | None = None


@dataclass(frozen=True)
class Baseline:
    """What was known of a network; None and empty: not known.

    totals: `size_bytes`, `bops`, `ram_bytes` for the processor `ram_target` (None: any); device:
    median seconds by mode (`steady`, `process`, `cold`),
    `peak_memory_bytes`, `energy_j`, `instructions`. row: accuracy with one entry per sample, so
    that another network can be paired with it on the same data. layers: by name, in network order;
    empty in older files.
    """

    identity: Identity
    totals: Mapping[str, int | float] = field(default_factory=dict)
    device: Mapping[str, int | float] = field(default_factory=dict)
    device_host: str | None = None
    row: Evaluation | None = None
    data_name: str | None = None
    data_digest: str | None = None
    held_out: bool = True
    source: str = "baseline"
    ram_target: str | None = None
    layers: Mapping[str, NetworkLayer] = field(default_factory=dict)


def layers_digest(names: Mapping[str, Any]) -> str:
    """SHA-256 of the layers' names, whatever their order."""
    return digest(json.dumps(sorted(names)))


def shapes_digest(table: LayerTable) -> str | None:
    """SHA-256 of names, weights and MACs of the layers; None for a table without the numbers."""
    if not all(layer.weights for layer in table.layers):
        return None
    return digest(
        json.dumps(sorted((layer.name, layer.weights, layer.macs) for layer in table.layers))
    )


@dataclass(frozen=True)
class Difference:
    """How a network differs from that of a baseline.

    architecture: whether their layers, weights or MACs differ; None: not known. changes: which
    layers, as far as both say it; empty where one of them names none. shared: how many layers both
    have.
    """

    architecture: bool | None
    changes: tuple[LayerChange, ...] = ()
    shared: int = 0


def difference_from(
    baseline: Baseline, identity: Identity, layers: Mapping[str, NetworkLayer]
) -> Difference:
    """Layer by layer where both name theirs, else by the digests of names and shapes."""
    if baseline.layers and layers:
        changes = changes_between(baseline.layers, layers)
        shared = len(baseline.layers.keys() & layers.keys())
        return Difference(any(change.of_shape for change in changes), changes, shared)
    one, other = baseline.identity, identity
    pairs = ((one.shapes, other.shapes), (one.layers, other.layers))
    known = [first == second for first, second in pairs if None not in (first, second)]
    return Difference(not all(known) if known else None)


def is_same_network(baseline: Baseline, identity: Identity) -> bool:
    """Whether weights and bits are known to be those of the baseline."""
    one = baseline.identity
    known = one.weights is not None and one.assignment is not None
    return known and (one.weights, one.assignment) == (identity.weights, identity.assignment)


def check_same_data(baseline: Baseline, data_digest: str) -> None:
    """Raise InputError where the baseline's accuracy was measured on other data."""
    if baseline.data_digest != data_digest:
        raise InputError(
            f"the accuracy in {baseline.source} is of another dataset: {baseline.data_digest} "
            f"({baseline.data_name!a}), and here it is {data_digest}",
            "measure on the same data in the same order, or write the baseline again with "
            "--update-baseline",
        )


def save_baseline(baseline: Baseline, path: str | os.PathLike[str]) -> None:
    """Write the file in one step; the same facts give the same bytes.

    Raises InputError where nothing is known.
    """
    if not (baseline.totals or baseline.device or baseline.row):
        raise InputError(
            "there is nothing to write a baseline from; expected at least one of an assignment "
            "with its table, an evaluation.json and a device.json"
        )
    identity = baseline.identity
    row = baseline.row
    document = {
        "format": FORMAT,
        "version": VERSION,
        "mpsearch": mpsearch.__version__,
        "digests": {
            "layers": identity.layers,
            "shapes": identity.shapes,
            "model": identity.weights,
            "table": identity.table,
            "assignment": identity.assignment,
        },
        "totals": dict(baseline.totals),
        **({} if baseline.ram_target is None else {"ram_target": baseline.ram_target}),
        **({"layers": {name: layer.to_json() for name, layer in baseline.layers.items()}}
           if baseline.layers else {}),
        "device": {"host": baseline.device_host, **baseline.device} if baseline.device else None,
        "accuracy": None if row is None else {
            "data": {
                "name": baseline.data_name,
                "digest": baseline.data_digest,
                "held_out": baseline.held_out,
            },
            "row": row_to_json(row),
        },
    }  # fmt: skip
    content = json_text(document, indent=2, allow_nan=False)
    write_atomic(path, content + "\n")


_TEXT, _AMOUNT = null_or(text), number(0, 1e30)
_BASELINE = {
    "digests": dict.fromkeys(("layers", "shapes", "model", "table", "assignment"), _TEXT),
    "totals": by_name(_AMOUNT),
    "ram_target?": _TEXT,
    "layers?": LAYERS,
    "device": null_or({"host?": _TEXT, **{f"{one}?": _AMOUNT for one in DEVICE}}),
    "accuracy": null_or({
        "data": {"name?": _TEXT, "digest?": _TEXT, "held_out?": flag}, "row": {},
    }),
}  # fmt: skip


def load_baseline(path: str | os.PathLike[str]) -> Baseline:
    """Read what `save_baseline` wrote. Raises InputError for anything else."""
    name = os.fspath(path)
    missing = (
        f"there is no baseline {name}; write one with `mpsearch gate --update-baseline {name}`"
    )
    document = read_document(path, "baseline", FORMAT, VERSION, LARGEST_MIB, missing)
    try:
        check_form(document, _BASELINE, "")
        return _parse(document, name)
    except (ValueError, InputError) as error:
        raise InputError(f"{name} is a damaged baseline: {error}; write it again") from None


def _parse(document: Mapping[str, Any], name: str) -> Baseline:
    digests, accuracy = document["digests"], document["accuracy"]
    device = dict(document["device"] or {})
    host = device.pop("host", None)
    data = {} if accuracy is None else accuracy["data"]
    row = None if accuracy is None else row_from_json(accuracy["row"], "accuracy.row")
    if row is not None and row.n == 0:
        raise ValueError("its accuracy has no samples")
    if row is not None and row.origin.data not in (None, data.get("digest")):
        raise ValueError("its accuracy is of other data than it says")
    return Baseline(
        identity=Identity(
            layers=digests["layers"],
            shapes=digests["shapes"],
            weights=digests["model"],
            table=digests["table"],
            assignment=digests["assignment"],
        ),
        totals=document["totals"],
        device={key: value for key, value in device.items() if key in DEVICE},
        device_host=host,
        row=row,
        data_name=data.get("name"),
        data_digest=data.get("digest"),
        held_out=data.get("held_out", True),
        source=name,
        ram_target=document.get("ram_target"),
        layers={
            layer: NetworkLayer.from_json(facts)
            for layer, facts in document.get("layers", {}).items()
        },
    )

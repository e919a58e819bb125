"""One side of a comparison: what a file, a run folder or an object says of its network."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mpsearch.comparing import baseline as baselines
from mpsearch.comparing.layers import NetworkLayer, layers_of, totals_of_layers
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation, load_evaluations
from mpsearch.files.json_file import read_json
from mpsearch.tables.assignment import FORMAT as ASSIGNMENT
from mpsearch.tables.assignment import Assignment, recomputed_totals
from mpsearch.tables.provenance import (
    is_of_another,
    not_its_table,
    sound_provenance,
    table_of,
)
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable

TABLE, CHOSEN, MEASURED = "profile.csv", "assignment.json", "evaluation.json"
EXPECTED = (
    "expected a profile.csv, an assignment.json, a baseline of `mpsearch gate`, a model file or a "
    "run folder"
)
LARGEST_MIB = 64


@dataclass(frozen=True)
class Side:
    """What is known of one network; None and empty: not known."""

    source: str
    """The file or folder that it was read from."""
    layers: Mapping[str, NetworkLayer] = field(default_factory=dict)
    """By name, in network order."""
    totals: Mapping[str, int | float] = field(default_factory=dict)
    """Resource column, or `omega` -> what the network takes at its bits."""
    table: LayerTable | None = None
    """The layer table, where no bits are chosen."""
    metric: str | None = None
    """What Ω is by."""
    model_digest: str | None = None
    """Of the float network: operators and weights."""
    row: Evaluation | None = None
    """Its measurement."""
    data_name: str | None = None
    """What it was measured on."""
    data_digest: str | None = None
    """Of those samples, in their order."""
    notes: tuple[str, ...] = ()
    """What a reader should know, a sentence each."""


def side_of(subject: Any) -> Side:
    """What a path or an object says of its network. Raises InputError for anything else, and for
    a damaged file."""
    if isinstance(subject, LayerTable):
        return _of_table(subject, subject.source)
    if isinstance(subject, Solution):
        table = subject.table
        said = {} if table is None else table.provenance
        return _of_assignment(subject.to_assignment(), table, "the solution", said)
    if isinstance(subject, Assignment):
        return _of_assignment(subject, None, "the assignment")
    if not isinstance(subject, str | os.PathLike):
        return _of_network(subject)
    path = Path(subject)
    if path.is_dir():
        return _of_folder(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; {EXPECTED}")
    if path.suffix.lower() == ".csv":
        return _of_table(LayerTable.read_csv(path), str(path), sound_provenance(path))
    if path.suffix.lower() == ".json":
        return _of_json(path)
    return _of_model(path)


def _of_network(subject: object) -> Side:
    """A network in memory, quantized or float; torch is there where one is."""
    from mpsearch.comparing.networks import layers_of_network
    from mpsearch.graph.network import Network
    from mpsearch.quantization.quantized import QuantizedNetwork

    if isinstance(subject, QuantizedNetwork):
        layers = layers_of_network(subject.source, subject.assignment)
        return Side(
            "the quantized network", layers, totals_of_layers(layers),
            model_digest=subject.model_digest,
        )  # fmt: skip
    if isinstance(subject, Network):
        layers = layers_of_network(subject, None)
        return Side("the network", layers, model_digest=subject.digest)
    raise InputError(
        f"got {type(subject).__name__}; expected what mpsearch.profile, solve or apply returned, "
        f"or a path: {EXPECTED.removeprefix('expected ')}"
    )


def _of_folder(folder: Path) -> Side:
    """A run: its assignment where there is one, else its table."""
    for name in (CHOSEN, TABLE):
        if (folder / name).exists():
            return replace(side_of(folder / name), source=str(folder))
    raise InputError(f"{folder} has neither {CHOSEN} nor {TABLE}; {EXPECTED}")


def _of_json(path: Path) -> Side:
    document = read_json(path, "file to compare", LARGEST_MIB)
    form = document.get("format") if isinstance(document, dict) else None
    if form == baselines.FORMAT:
        return _of_baseline(baselines.load_baseline(path))
    if form != ASSIGNMENT:
        raise InputError(f"{path} is neither an assignment nor a baseline; {EXPECTED}")
    assignment = Assignment.load(path)
    found = table_of(assignment, path.parent / TABLE)
    table = None if found is None else LayerTable.read_csv(found)
    provenance = {} if found is None else sound_provenance(found)
    side = _of_assignment(assignment, table, str(path), provenance)
    return _measured(side, path.parent / MEASURED, assignment)


def _of_table(table: LayerTable, source: str, provenance: Mapping[str, Any] | None = None) -> Side:
    said = provenance or {}
    return Side(
        source, layers_of(None, table), table=table, metric=said.get("metric"),
        model_digest=said.get("model_digest"),
    )  # fmt: skip


def _of_assignment(
    assignment: Assignment, table: LayerTable | None, source: str,
    provenance: Mapping[str, Any] | None = None,
) -> Side:  # fmt: skip
    notes = []
    if table is not None and is_of_another(assignment, table):
        notes = [f"{source}: {not_its_table(assignment, table)}"]
        table = None
    totals: dict[str, int | float] = dict(assignment.totals)
    if assignment.omega is not None:
        totals["omega"] = assignment.omega
    try:
        layers = layers_of(assignment, table)
        if table is not None:
            totals = {
                "omega": table.total(assignment.layers, "omega"),
                **recomputed_totals(assignment, table),
            }
    except InputError as error:  # a hand-written assignment beside a table of another network
        notes = [f"left out: {' '.join(error.lines)}"]
        layers, table = layers_of(assignment, None), None
    said = {} if table is None else provenance or {}
    return Side(
        source, layers, totals, metric=said.get("metric"),
        model_digest=assignment.model_digest or said.get("model_digest"), notes=tuple(notes),
    )  # fmt: skip


def _of_baseline(stored: baselines.Baseline) -> Side:
    return Side(
        stored.source, stored.layers, stored.totals, model_digest=stored.identity.weights,
        row=stored.row, data_name=stored.data_name, data_digest=stored.data_digest,
        notes=() if stored.layers else (f"{stored.source} names no layers: write it again",),
    )  # fmt: skip


def _of_model(path: Path) -> Side:
    """A model's file, quantized or float: its layers, and what they take at their bits."""
    from mpsearch.comparing.networks import layers_of_network, read_model
    from mpsearch.importers.loading import ModelSource

    found = read_model(ModelSource(str(path)))
    layers = layers_of_network(found.network, found.choices)
    side = Side(str(path), layers, model_digest=found.model_digest)
    if found.choices is None:
        return side
    side = replace(side, totals=totals_of_layers(layers))
    return _measured(side, path.parent / MEASURED, None, found.integers)


def _measured(
    side: Side, path: Path, assignment: Assignment | None, quantized: str | None = None
) -> Side:
    """The side with the row of evaluation.json that is of its network, where there is one."""
    if not path.is_file():
        return side
    try:
        stored = load_evaluations(path)
    except InputError as error:
        return replace(side, notes=(*side.notes, f"left out: {' '.join(error.lines)}"))
    for row in stored.rows:
        if quantized is not None and row.origin.quantized != quantized:
            continue
        bits = None if assignment is None else dict(assignment.layers)
        if bits is not None and (row.origin.layers is None or dict(row.origin.layers) != bits):
            continue
        if None not in (side.model_digest, row.origin.model) and (
            row.origin.model != side.model_digest
        ):
            continue
        if "integers" not in row.name:
            return replace(
                side, row=row, data_name=stored.data_name, data_digest=stored.data_digest
            )
    return replace(side, notes=(*side.notes, f"left out: no row of {path} is of {side.source}"))

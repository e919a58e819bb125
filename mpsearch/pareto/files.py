"""`front.csv` for reading and plotting, `front.json` with the assignments."""

import csv
import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError
from mpsearch.files.json_file import read_document
from mpsearch.files.json_form import (
    anything,
    by_name,
    check_form,
    flag,
    list_of,
    null_or,
    number,
    text,
    whole,
)
from mpsearch.files.writing import write_atomic
from mpsearch.pareto.front import Front
from mpsearch.pareto.measured_points import check_measured, measurement_of
from mpsearch.running.foreign_text import json_text
from mpsearch.tables.choice import Choice

FORMAT = "mpsearch.front"
VERSION = 1
LARGEST_MIB = 1024


def write_csv(front: Front, path: str | os.PathLike[str]) -> None:
    """One row per point: omega, resource totals, one count per choice, what was measured."""
    columns: dict[str, list[Any]] = {"omega": front.omega.tolist()}
    columns |= {name: values.tolist() for name, values in front.totals.items()}
    for position, choice in enumerate(front.choices):
        columns[str(choice)] = front.counts[:, position].tolist()
    for name, measured in front.measured.items():
        columns[name] = ["" if np.isnan(value) else value for value in measured.tolist()]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_atomic(path, stream.getvalue())


def to_document(front: Front) -> dict[str, Any]:
    """The front as JSON: `assignments[point][layer]` is an index into `choices`."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "exact": front.exact,
        "epsilon": front.epsilon if np.isfinite(front.epsilon) else None,
        "resource": front.resource,
        "limits": dict(front.limits),
        "at_least": dict(front.at_least),
        "search": {option: list(values) for option, values in front.search.items()},
        "table_digest": front.table_digest,
        "choices": [str(choice) for choice in front.choices],
        "layers": list(front.layers),
        "omega": front.omega.tolist(),
        "totals": {name: values.tolist() for name, values in front.totals.items()},
        "measured": {
            name: [None if np.isnan(value) else value for value in values.tolist()]
            for name, values in front.measured.items()
        },
        "measurement": measurement_of(front),
        "assignments": front.assignments.tolist(),
    }


def keep_measured(
    front: Front, path: str | os.PathLike[str], model_digest: str | None = None
) -> tuple[Front, str]:
    """(the front with what an older front.json at `path` holds measured of the same assignments,
    what was left out and why).

    `front` itself where there is no such file, where it is of other layers, and where it was
    measured on other weights than `model_digest`, those of the front's table.
    """
    if not Path(path).is_file():
        return front, ""
    try:
        before = read_json(path)
    except InputError:  # it is about to be replaced
        return front, ""
    if not before.measurement or (before.layers, before.choices) != (front.layers, front.choices):
        return front, ""
    measured_on = before.measurement.get("model_digest")
    if None not in (model_digest, measured_on) and model_digest != measured_on:
        return front, (
            f"{os.fspath(path)} held points that were measured on other weights than the table's; "
            "they were left out: measure them again with `mpsearch evaluate MODEL --front`"
        )
    place = {row.tobytes(): point for point, row in enumerate(before.assignments)}
    there = np.array([place.get(row.tobytes(), -1) for row in front.assignments])
    measured = {
        name: np.where(there >= 0, values[there], np.nan)
        for name, values in before.measured.items()
    }
    if all(np.isnan(values).all() for values in measured.values()):
        return front, ""
    return replace(front, measured=measured, measurement=before.measurement), ""


def write_json(front: Front, path: str | os.PathLike[str]) -> None:
    """Write the whole front, compactly."""
    document = to_document(front)
    write_atomic(path, json_text(document, separators=(",", ":")) + "\n")


def _epsilon(document: dict[str, Any]) -> float:
    """Null, and no value beside `"exact": false`: nothing is promised."""
    value = document.get("epsilon")
    if document["exact"]:
        return 0.0
    return np.inf if value is None else float(value)


def read_json(path: str | os.PathLike[str]) -> Front:
    """Read what `write_json` wrote; raises InputError for anything else."""
    name = os.fspath(path)
    missing = f"there is no front {name}; make one with `mpsearch front`"
    document = read_document(path, "front.json", FORMAT, VERSION, LARGEST_MIB, missing)
    try:
        check_form(document, _FORM, "")
        front = Front(
            resource=document["resource"],
            layers=tuple(document["layers"]),
            choices=tuple(Choice.parse(one) for one in document["choices"]),
            omega=np.array(document["omega"], dtype=np.float64),
            totals={key: _totals(values) for key, values in document["totals"].items()},
            assignments=_assignments(document),
            epsilon=_epsilon(document),
            limits=document["limits"],
            at_least=document.get("at_least", {}),
            search={key: tuple(values) for key, values in document.get("search", {}).items()},
            table_digest=document["table_digest"],
            measured={
                key: np.array(values, dtype=np.float64)
                for key, values in document.get("measured", {}).items()
            },
            measurement=dict(document.get("measurement", {})),
        )
        check_measured(front)
    except (InputError, ValueError, OverflowError) as error:
        raise InputError(f"{name} is a damaged front.json: {error}") from None
    return front


_LIMITS = by_name(number())
_FORM = {
    "exact": flag,
    "epsilon?": null_or(number(0)),
    "resource": text,
    "limits": _LIMITS,
    "at_least?": _LIMITS,
    "search?": by_name(list_of(text)),
    "table_digest": text,
    "choices": list_of(text, 1),
    "layers": list_of(text, 1),
    "omega": list_of(number()),
    "totals": by_name(list_of(number())),
    "measured?": by_name(list_of(null_or(number()))),
    "measurement?": {
        "samples?": whole(), "held_out?": flag, "data?": text, "calibration?": text, "fp32?": {},
        "model_digest?": text, "assignments_digest?": text,
    },
    "assignments": list_of(list_of(anything)),
}  # fmt: skip


def _totals(values: list[int] | list[float]) -> NDArray[Any]:
    whole_numbers = all(type(value) is int for value in values)
    if whole_numbers and any(abs(value) >= 1 << 62 for value in values):
        return np.array(values, dtype=object)
    return np.array(values, dtype=np.int64 if whole_numbers and values else np.float64)


def _assignments(document: dict[str, Any]) -> NDArray[np.int8]:
    """Indices [P, L]. Raises ValueError where columns and rows are of different lengths."""
    points, layers = len(document["omega"]), len(document["layers"])
    indices = np.array(document["assignments"])  # ValueError for rows of different lengths
    if not points:
        indices = np.zeros((0, layers), dtype=np.int8)
    columns = (*document["totals"].values(), *document.get("measured", {}).values())
    if (
        any(len(values) != points for values in columns)
        or len(document["assignments"]) != points
        or document["resource"] not in document["totals"]
        or len(set(document["layers"])) != layers
        or indices.shape != (points, layers)
        or indices.dtype.kind != "i"
        or ((indices < 0) | (indices >= min(len(document["choices"]), 128))).any()
    ):
        raise ValueError("its columns do not agree")
    return indices.astype(np.int8)

"""`front.csv` for reading and plotting, `front.json` with the assignments."""

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mpsearch.choice import Choice
from mpsearch.errors import InputError
from mpsearch.files import write_atomic
from mpsearch.front import Front
from mpsearch.measured_points import check_measured, measurement_of

FORMAT = "mpsearch.front"
VERSION = 1


def write_csv(front: Front, path: str | os.PathLike[str]) -> None:
    """One row per point: omega, resource totals, one count per choice, what was measured."""
    columns: dict[str, list[Any]] = {"omega": front.omega.tolist()}
    columns |= {name: values.tolist() for name, values in front.totals.items()}
    for position, choice in enumerate(front.choices):
        columns[str(choice)] = front.counts[:, position].tolist()
    for name, measured in front.measured.items():
        columns[name] = ["" if np.isnan(value) else value for value in measured.tolist()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_atomic(path, text.getvalue())


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
    write_atomic(path, json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n")


def _epsilon(document: dict[str, Any]) -> float:
    """Null, and no value beside `"exact": false`: nothing is promised."""
    value = document.get("epsilon")
    if document["exact"]:
        return 0.0
    return np.inf if value is None else float(value)


def read_json(path: str | os.PathLike[str]) -> Front:
    """Read what `write_json` wrote; raises InputError for anything else."""
    name = os.fspath(path)
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no front {name}; make one with `mpsearch front`") from None
    except (ValueError, IsADirectoryError) as error:
        raise InputError(f"{name} is not a front.json: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(f'{name} is not a front.json; expected "format": {FORMAT!r}')
    if document.get("version") != VERSION:
        raise InputError(f"{name} has version {document.get('version')}; this mpsearch reads 1")
    try:
        front = Front(
            resource=document["resource"],
            layers=tuple(document["layers"]),
            choices=tuple(Choice.parse(text) for text in document["choices"]),
            omega=np.array(document["omega"], dtype=np.float64),
            totals={key: np.array(values) for key, values in document["totals"].items()},
            assignments=np.array(document["assignments"], dtype=np.int8).reshape(
                len(document["omega"]), len(document["layers"])
            ),
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
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{name} is a damaged front.json: {type(error).__name__} {error}"
        ) from None
    lengths = {len(values) for values in (*front.totals.values(), *front.measured.values())}
    inside = (front.assignments >= 0) & (front.assignments < len(front.choices))
    if lengths - {len(front)} or front.resource not in front.totals or not inside.all():
        raise InputError(f"{name} is a damaged front.json: its columns do not agree")
    try:
        check_measured(front)
    except ValueError as error:
        raise InputError(f"{name} is a damaged front.json: {error}") from None
    return front

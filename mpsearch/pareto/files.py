"""`front.csv` for reading and plotting, `front.json` with the assignments.

What a front keeps of its measured points: which assignments they are, in ranges that can be.

Which points of a front to look at: spread over its length, or named by what they take.

Answers from a stored front: the optimum under any budget, by a look-up.
"""

import csv
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError
from mpsearch.files.json_file import (
    anything,
    by_name,
    check_form,
    flag,
    list_of,
    null_or,
    number,
    read_document,
    text,
    whole,
)
from mpsearch.files.whole import digest, write_atomic
from mpsearch.pareto.front import Front
from mpsearch.running.streams import json_text
from mpsearch.statistics import ROUNDING
from mpsearch.tables.choice import Choice
from mpsearch.tables.units import format_amount, parse_amount, whole_number

RANGES = {
    "accuracy": (0.0, 1.0),
    "agreement": (0.0, 1.0),
    "drop": (-1.0, 1.0),
    "loss": (-np.inf, np.inf),
}


def measurement_of(front: Front) -> dict[str, Any]:
    """What was measured on what, with the digest of the assignments that were measured."""
    if not front.measurement:
        return {}
    return {**front.measurement, "assignments_digest": points_digest(front)}


def points_digest(front: Front) -> str:
    """SHA-256 of layers and choices of every measured point, in the front's order."""
    names = [str(choice) for choice in front.choices]
    measured = front.measured.get(front.score)
    points = [] if measured is None else np.flatnonzero(~np.isnan(measured)).tolist()
    rows = (front.assignments[point].astype(np.int8).tobytes() for point in points)
    return digest("\n".join(front.layers), " ".join(names), *rows)


def check_measured(front: Front) -> None:
    """Raise ValueError for values that nothing measures, an interval without its value, and points
    whose assignments are not those that were measured."""
    for name, (least, most) in RANGES.items():
        ends = [front.measured.get(f"{name}{end}") for end in ("_low", "", "_high")]
        if any(values is None for values in ends):
            continue
        low, value, high = (values for values in ends if values is not None)
        room = ROUNDING * np.maximum(1.0, np.abs(value))
        with np.errstate(invalid="ignore"):
            wrong = (value < least) | (value > most) | (value < low - room) | (value > high + room)
        if wrong.any():
            raise ValueError(
                f"{name} is {value[wrong][0]:g} in [{low[wrong][0]:g}, {high[wrong][0]:g}] at a "
                "measured point"
            )
    stored = front.measurement.get("assignments_digest")
    if stored is not None and stored != points_digest(front):
        raise ValueError("the assignments of its measured points are not those that were measured")


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
        "choices": [
            choice.to_json() if choice.label and (choice.w_bits or choice.a_bits) else str(choice)
            for choice in front.choices
        ],
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
            choices=tuple(
                Choice.called(one) if isinstance(one, str) else Choice.from_json(one)
                for one in document["choices"]
            ),
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


def _choice(value: Any, where: str) -> None:
    """`w4a8`; `{"choice": "Q4_K", "w_bits": 4.5}` where the name does not say the bits."""
    check_form(value, {"choice": text} if isinstance(value, dict) else text, where)


_LIMITS = by_name(number())
_FORM = {
    "exact": flag,
    "epsilon?": null_or(number(0)),
    "resource": text,
    "limits": _LIMITS,
    "at_least?": _LIMITS,
    "search?": by_name(list_of(text)),
    "table_digest": text,
    "choices": list_of(_choice, 1),
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


def spread(amounts: NDArray[np.float64], count: int) -> list[int]:
    """At most `count` positions of rising `amounts` [P], the two ends first, then between them.

    Each further one is the point nearest to the middle, in the logarithm, of the widest gap that is
    left: [1, 2, 4, 8, 16] and 3 -> [0, 2, 4]. What is chosen for a smaller count is chosen for a
    larger one too. Where an amount is not positive the gaps are those of the amounts themselves.
    """
    if count < 2:
        raise InputError(f"got {count} points of the front; expected at least 2, its ends")
    place = np.log(amounts) if amounts[0] > 0 else amounts
    chosen = sorted({0, len(amounts) - 1})
    while len(chosen) < min(count, len(amounts)):
        # A gap without points inside cannot be halved.
        gaps = [
            (place[right] - place[left], -left, left, right)
            for left, right in pairwise(chosen)
            if right - left > 1
        ]
        _, _, left, right = max(gaps)
        inside = np.arange(left + 1, right)
        middle = (place[left] + place[right]) / 2
        chosen = sorted([*chosen, int(inside[np.argmin(np.abs(place[inside] - middle))])])
    return chosen


def points_of(front: Front, count: str, amounts: Iterable[str] = ()) -> list[int]:
    """`"12"` or `"all"`, or instead of them the points of least Ω within amounts such as `"145KB"`.

    Raises InputError for what is none of these, and for an amount that no point is within.
    """
    if not len(front):
        raise InputError("the front has no points; are its limits infeasible?")
    named = sorted({_within(front, text) for text in amounts})
    if named:
        return named
    if count == "all":
        return list(range(len(front)))
    points = whole_number(count)
    if points is None:
        raise InputError(f"got --points {count!r}; expected a number such as 12, or all")
    return spread(front.totals[front.resource].astype(np.float64), points)


def _within(front: Front, text: str) -> int:
    column = front.resource
    amount = parse_amount(column, text)
    if not isinstance(amount, Fraction):
        raise InputError(f"got --point {text!r}; expected an absolute {column}, as 145KB is a size")
    point = front.best_within(float(amount))
    if point is None:
        least = format_amount(column, float(front.totals[column][0]))
        raise InputError(
            f"no point of the front is within {text}; its smallest {column} is {least}"
        )
    return point


def answer(
    front: Front,
    table_digest: str,
    limits: Mapping[str, int | float],
    at_least: Mapping[str, int | float] | None = None,
    recorded: Mapping[str, tuple[str, ...]] | None = None,
) -> int | None:
    """The point of least Ω within the limits; None where they are infeasible.

    `{"size_bytes": 145000}` for a front of size against Ω: the same optimum as `solve`. A front
    that was made under limits answers only with the same ones. recorded: what both are asked beside
    limits, `{"for": ("torchao",)}`. Raises InputError for a front of
    another table, one that is not exact, and limits that it was not made for.
    """
    if front.table_digest != table_digest:
        raise InputError(
            f"the front is of another table ({front.table_digest[:19]}, the table is "
            f"{table_digest[:19]})",
            "make the table's own with `mpsearch front`",
        )
    if not front.exact:
        raise InputError(
            "the front is not exact, so it does not answer for `solve`",
            "make an exact one with a larger `mpsearch front --memory`",
        )
    if dict(front.search) != dict(recorded or {}):
        if not front.search:
            raise InputError(
                f"the front is of all tools, and --for {recorded['for'][0] if recorded else ''} of "
                "one",
                "make the tool's own with `mpsearch front --for`, or solve the table",
            )
        words = " ".join(f"--{option} {v}" for option, vs in front.search.items() for v in vs)
        raise InputError(
            f"the front was made with {words}, so it does not answer for the whole table",
            "make another one with `mpsearch front`, or solve the table",
        )
    fixed = dict(front.limits)
    within = fixed.pop(front.resource, None)
    asked = dict(limits)
    limit = asked.pop(front.resource, None)
    beyond = within is not None and (limit is None or limit > within)
    if asked != fixed or beyond or dict(at_least or {}) != dict(front.at_least):
        made = _words(front.limits, front.at_least)
        got = _words(limits, at_least or {})
        raise InputError(
            f"got the limits {got or 'none'}; the front is {front.resource} against Ω with "
            f"{made or 'no limits'}",
            "make another one with `mpsearch front`, or solve the table",
        )
    if limit is None:
        return len(front) - 1 if len(front) else None
    return front.best_within(limit)


def _words(limits: Mapping[str, int | float], at_least: Mapping[str, int | float]) -> str:
    upper = [f"{name} <= {value}" for name, value in limits.items()]
    return ", ".join([*upper, *(f"{name} >= {value}" for name, value in at_least.items())])

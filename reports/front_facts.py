"""The facts of a Pareto front: its points, what was measured at them, what they choose.

Points of the front as a table: for readers without the script or without the picture.
"""

import string
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from mpsearch.pareto.front import Front, front
from mpsearch.reports.facts import (
    AssignmentsFacts,
    FrontFacts,
    MeasuredFacts,
    Point,
    PredictionFacts,
)
from mpsearch.reports.prose import NAMES
from mpsearch.reports.style import Table
from mpsearch.statistics import kendall, spearman
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import format_amount

FRONT_WORK = 6_000_000  # states times layers of the search: a report waits seconds for its front
FRONT_STATES = 200_000
SHOWN = 1_000  # points whose assignment can be read
CODED = 150_000  # characters for assignments: on a page of a MB they are not the largest part
ALPHABET = string.digits + string.ascii_letters
FEWEST = 3  # points that can be ranked


def table_front(table: LayerTable, resource: str | None = None) -> Front:
    """The table's front, over size where it is a column; not exact where that would take long."""
    columns = table.columns
    resource = resource or ("size_bytes" if "size_bytes" in columns else columns[0])
    states = min(FRONT_STATES, max(1000, FRONT_WORK // len(table.layers)))
    return front(table, resource, max_states=states)


def finite(found: Front) -> Front:
    """The front without points whose Ω or resource total is no number."""
    totals = found.totals[found.resource].astype(np.float64)
    kept = np.isfinite(found.omega) & np.isfinite(totals)
    return found if kept.all() else found.part(kept)


def front_facts(found: Front) -> FrontFacts:
    """The facts of a front with at least one point."""
    return FrontFacts(
        resource=found.resource,
        exact=found.exact,
        limits=found.limits,
        omega=tuple(found.omega.tolist()),
        totals=tuple(found.totals[found.resource].tolist()),
        measured=measured_facts(found),
        assignments=assignments_facts(found),
    )


def measured_facts(found: Front) -> MeasuredFacts | None:
    """The measured points of a front; None where none is."""
    accuracy = found.measured.get(found.score)
    if accuracy is None or np.isnan(accuracy).all():
        return None
    there = np.flatnonzero(~np.isnan(accuracy))
    ends = [found.measured.get(f"{found.score}_{end}") for end in ("low", "high")]
    low, high = (accuracy if end is None else end for end in ends)
    fp32 = _fp32_row(found)
    share, ends_of_fp32 = fp32.get("accuracy"), fp32.get("accuracy_interval")
    samples = found.measurement.get("samples", 0)
    return MeasuredFacts(
        totals=tuple(found.totals[found.resource][there].tolist()),
        omega=tuple(found.omega[there].tolist()),
        accuracy=tuple(accuracy[there].tolist()),
        low=tuple(low[there].tolist()),
        high=tuple(high[there].tolist()),
        fp32=float(share) if isinstance(share, int | float) else None,
        fp32_interval=_interval(ends_of_fp32),
        data=str(found.measurement.get("data", "")),
        samples=samples if isinstance(samples, int) else 0,
        score=found.score,
    )


def _fp32_row(found: Front | None) -> Mapping[str, Any]:
    """What front.json says of the float network, which nobody has checked."""
    row = found.measurement.get("fp32") if found is not None else None
    return row if isinstance(row, Mapping) else {}


def _interval(ends: object) -> tuple[float, float] | None:
    if isinstance(ends, list | tuple) and len(ends) == 2:
        low, high = ends
        if isinstance(low, int | float) and isinstance(high, int | float):
            return float(low), float(high)
    return None


def assignments_facts(found: Front) -> AssignmentsFacts | None:
    """The assignments of at most 1,000 points, fewer where there are many layers."""
    layers = len(found.layers)
    room = min(SHOWN, CODED // max(layers, 1))
    if not layers or room < 2 or len(found.choices) > len(ALPHABET):
        return None
    points = found.thin(room)
    letters = np.array(list(ALPHABET))
    codes = ["".join(row) for row in letters[found.assignments[points]].tolist()]
    choices = tuple(map(str, found.choices))
    return AssignmentsFacts(found.layers, choices, tuple(points.tolist()), tuple(codes))


def fp32_point(found: Front | None, size_bytes: int | None, bops: int | None) -> Point | None:
    """The float network as a point: its Ω is 0; None where neither size nor BOPS is known."""
    row = _fp32_row(found)
    known = {"size_bytes": size_bytes or row.get("size_bytes"), "bops": bops or row.get("bops")}
    totals = {column: value for column, value in known.items() if isinstance(value, int)}
    return Point("FP32", 0.0, totals) if totals else None


def prediction_facts(found: Front | None) -> tuple[PredictionFacts, ...]:
    """Ω against measured loss and points lost, where at least three points were measured."""
    if found is None:
        return ()
    facts = []
    loss = "loss" if found.score == "accuracy" else "divergence"
    for measure, column, scale in ((loss, "loss", 1.0), ("points lost", "drop", 100.0)):
        values = found.measured.get(column)
        if values is None:
            continue
        there = np.flatnonzero(np.isfinite(values) & np.isfinite(found.omega))
        if len(there) < FEWEST:
            continue
        nothing = np.full(len(found), np.nan)
        low, high = (scale * found.measured.get(f"{column}_{e}", nothing) for e in ("low", "high"))
        omega = tuple(found.omega[there].tolist())
        measured = tuple((scale * values[there]).tolist())
        facts.append(
            PredictionFacts(
                measure, omega, measured, tuple(low[there].tolist()), tuple(high[there].tolist()),
                spearman(omega, measured), kendall(omega, measured),
            )
        )  # fmt: skip
    return tuple(facts)


MOST = 60


def point_text(found: FrontFacts, point: int) -> str:
    """`Ω 0.0012, size 219.0 KB, accuracy 83.22 % (78.45 to 87.10 %)`."""
    total = found.totals[point]
    name = NAMES.get(found.resource, found.resource)
    text = f"Ω {found.omega[point]:.4g}, {name} {format_amount(found.resource, total).strip()}"
    accuracy = _accuracy(found, point)
    if accuracy is None:
        return text
    share, low, high = (100 * value for value in accuracy)
    assert found.measured is not None
    return f"{text}, {found.measured.score} {share:.2f} % ({low:.2f} to {high:.2f} %)"


def _accuracy(found: FrontFacts, point: int) -> tuple[float, float, float] | None:
    """A front's points all differ in their totals, so the total finds the measurement."""
    if found.measured is None or found.totals[point] not in found.measured.totals:
        return None
    place = found.measured.totals.index(found.totals[point])
    return found.measured.accuracy[place], found.measured.low[place], found.measured.high[place]


def front_points_table(found: FrontFacts) -> Table | None:
    """At most 60 of the points whose assignment is kept: totals, accuracy, layers by choice."""
    shown = found.assignments
    if shown is None:
        return None
    step = max(1, -(-len(shown.points) // MOST))
    places = sorted({*range(0, len(shown.points), step), len(shown.points) - 1})
    used = [place for place, letter in enumerate(ALPHABET) if any(letter in c for c in shown.codes)]
    score = [] if found.measured is None else [f"{found.measured.score}, %"]
    rows = []
    for place in places:
        point = shown.points[place]
        counts = Counter(shown.codes[place])
        accuracy = _accuracy(found, point)
        words = "" if accuracy is None else f"{100 * accuracy[0]:.2f}"
        rows.append(
            [format_amount(found.resource, found.totals[point]), f"{found.omega[point]:.4g}"]
            + ([words] if score else [])
            + [str(counts.get(ALPHABET[choice], 0)) for choice in used]
        )
    name = NAMES.get(found.resource, found.resource)
    header = [name, "total Ω", *score]
    header += [shown.choices[choice] for choice in used]
    part = "" if len(rows) == len(found.omega) else f" of {len(found.omega):,}"
    return Table(f"{len(rows)} points{part}, with the layers at each choice", header, rows)

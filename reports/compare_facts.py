"""From several run folders to the facts of their comparison, as plain data.

Comparing two staircases: the area that a front dominates, and where one passes another.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import inf, isclose

import numpy as np

import mpsearch
from mpsearch.errors import InputError
from mpsearch.pareto.front import Front
from mpsearch.reports.accuracy_facts import check_evidence, untied
from mpsearch.reports.facts import MeasuredFacts, Number
from mpsearch.reports.front_facts import finite, measured_facts, table_front
from mpsearch.reports.gather import answer_facts, fitting_table
from mpsearch.reports.run_folder import DAMAGED, Run
from mpsearch.tables.table import LayerTable

Corner = tuple[float, float]


@dataclass(frozen=True)
class Lead:
    """From this total on `ahead` has the lower Ω: 0 the first front, 1 the second."""

    start: float
    ahead: int


def hypervolume(
    totals: Sequence[float], omega: Sequence[float], ideal: Corner, reference: Corner
) -> float:
    """The part of the box from `ideal` to `reference` that the front dominates, from 0 to 1.

    A place (x, y) is dominated where some point has no larger total than x and no larger Ω than y
    (Zitzler and Thiele, 1998; both are minimised). Points by rising total and falling Ω; those
    beyond the reference add nothing. A box without area: 0.
    """
    whole = (reference[0] - ideal[0]) * (reference[1] - ideal[1])
    if whole <= 0:
        return 0.0
    area = 0.0
    for place, (x, y) in enumerate(zip(totals, omega, strict=True)):
        end = totals[place + 1] if place + 1 < len(totals) else inf
        left, right = max(x, ideal[0]), min(end, reference[0])
        low = max(y, ideal[1])
        if right > left and reference[1] > low:
            area += (right - left) * (reference[1] - low)
    return area / whole


def leads(
    first: tuple[Sequence[float], Sequence[float]],
    second: tuple[Sequence[float], Sequence[float]],
) -> tuple[Lead, ...]:
    """Who has the lower Ω within which total, as the limit grows; each entry is a change of lead.

    Fronts as (totals, Ω). Ω that agree to 12 digits are a tie, which changes no lead; before a
    front begins it has none.
    """
    corners = sorted({*first[0], *second[0]})
    found: list[Lead] = []
    at = [-1, -1]
    fronts = (first, second)
    for total in corners:
        best = []
        for which, (totals, omega) in enumerate(fronts):
            while at[which] + 1 < len(totals) and totals[at[which] + 1] <= total:
                at[which] += 1
            best.append(omega[at[which]] if at[which] >= 0 else inf)
        if best[0] == best[1] or isclose(best[0], best[1], rel_tol=1e-12):
            continue
        ahead = 0 if best[0] < best[1] else 1
        if not found or found[-1].ahead != ahead:
            found.append(Lead(total, ahead))
    return tuple(found)


MOST = 12  # colours times dashes that are told apart


@dataclass(frozen=True)
class ComparedRun:
    """One run. omega: as compared, which is Ω itself, or its part of the front's largest.

    metric, data: of the table's provenance, empty where not known. chosen: (total, Ω as compared).
    judged: Ω of the same points in the judge's table (`CompareFacts.judge`), where it has them.
    """

    name: str
    metric: str
    data: str
    exact: bool
    totals: tuple[Number, ...]
    omega: tuple[float, ...]
    chosen: tuple[Number, float] | None
    measured: MeasuredFacts | None
    hypervolume: float = 0.0
    judged: tuple[float, ...] = ()
    judged_hypervolume: float | None = None


@dataclass(frozen=True)
class Meeting:
    """Two runs and the totals from which one of them has the lower Ω."""

    first: str
    second: str
    leads: tuple[Lead, ...]


@dataclass(frozen=True)
class CompareFacts:
    """relative: Ω of each run is divided by that of its own smallest network, as their scales are
    not the same; judge: then the run in whose Ω all are judged too, empty where it has no table.
    ideal, reference: the corners (total, Ω) of the hypervolumes' box. missing: files that cannot
    be read."""

    version: str
    resource: str
    relative: bool
    runs: tuple[ComparedRun, ...]
    ideal: tuple[float, float]
    reference: tuple[float, float]
    meetings: tuple[Meeting, ...]
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    judge: str = ""


def compare(runs: Mapping[str, Run]) -> CompareFacts:
    """Compare fronts by name.

    Raises InputError for fewer than two of one resource, for over 12, and for a run whose figures
    are of another network.
    """
    if len(runs) > MOST:
        raise InputError(f"got {len(runs)} runs; at most {MOST} can be told apart in one figure")
    for name, run in runs.items():
        try:
            check_evidence(run)
        except InputError as error:
            raise InputError(*error.lines_after(f"{name}: ")) from None
    warnings = [f"{name}: {text}" for name, run in runs.items() for text in untied(run)]
    resource = _resource(runs)
    fronts = {name: _front(name, run, resource, warnings) for name, run in runs.items()}
    there = {name: front for name, front in fronts.items() if front is not None}
    if len(there) < 2:
        raise InputError(
            "expected at least two runs with a front of one resource; "
            + ("; ".join(warnings) or "make them with `mpsearch front -o front.csv`")
        )
    relative = _relative(runs, there, warnings)
    compared = [_run(name, runs[name], front, relative) for name, front in there.items()]
    ideal = (
        float(min(run.totals[0] for run in compared)), min(min(run.omega) for run in compared),
    )  # fmt: skip
    reference = (
        float(max(run.totals[-1] for run in compared)), max(max(run.omega) for run in compared),
    )  # fmt: skip
    compared = [
        replace(run, hypervolume=hypervolume(run.totals, run.omega, ideal, reference))
        for run in compared
    ]
    judge = compared[0].name if relative and runs[compared[0].name].table is not None else ""
    if judge:
        compared = _judged(compared, there, runs[judge].table)
    return CompareFacts(
        version=mpsearch.__version__,
        resource=resource,
        relative=relative,
        runs=tuple(compared),
        ideal=ideal,
        reference=reference,
        meetings=tuple(
            Meeting(a.name, b.name, leads((a.totals, a.omega), (b.totals, b.omega)))
            for a, b in combinations(compared, 2)
        ),
        missing=tuple(
            f"{name}: {text}"
            for name, run in runs.items()
            for text in run.missing
            if text.startswith(DAMAGED)
        ),
        warnings=tuple(warnings),
        judge=judge,
    )


def _judged(
    compared: list[ComparedRun], fronts: Mapping[str, Front], table: LayerTable | None
) -> list[ComparedRun]:
    """The runs with Ω of their points in `table`, and the hypervolumes of what is best of them."""
    assert table is not None
    judged = {run.name: omega_in(table, fronts[run.name]) for run in compared}
    known = {name: omega for name, omega in judged.items() if omega is not None}
    ends = [fronts[name].totals[fronts[name].resource][[0, -1]] for name in known]
    ideal = float(min(end[0] for end in ends)), min(min(omega) for omega in known.values())
    reference = float(max(end[1] for end in ends)), max(max(omega) for omega in known.values())
    found = []
    for run in compared:
        omega = known.get(run.name)
        if omega is not None:
            best = np.minimum.accumulate(omega).tolist()  # a point may be beaten by a smaller one
            part = hypervolume(run.totals, best, ideal, reference)
            run = replace(run, judged=tuple(omega), judged_hypervolume=part)
        found.append(run)
    return found


def omega_in(table: LayerTable, front: Front) -> list[float] | None:
    """Total Ω of a front's points in another table; None where it lacks layers or choices."""
    if front.layers != table.layer_names or not set(front.choices) <= set(table.choices):
        return None
    columns = np.array([table.choices.index(choice) for choice in front.choices])
    rows = table.row_index[np.arange(len(front.layers)), columns[front.assignments]]
    if (rows < 0).any():
        return None
    totals: list[float] = table.omega[rows].sum(axis=1).tolist()
    return totals


def run_names(folders: Sequence[str]) -> tuple[str, ...]:
    """The shortest ends of the paths that differ: ("x/a/run", "x/b/run") -> ("a/run", "b/run")."""
    parts = [os.path.abspath(folder).split(os.sep) for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path[-length:]) for path in parts]
        if len(set(names)) == len(names):
            return tuple(names)
    raise InputError("got the same run folder twice; name different ones")


def _resource(runs: Mapping[str, Run]) -> str:
    """The first stored front's, else the size."""
    stored = [run.front.resource for run in runs.values() if run.front is not None]
    tables = [run.table for run in runs.values() if run.table is not None]
    if stored:
        return stored[0]
    return "size_bytes" if not tables or "size_bytes" in tables[0].columns else tables[0].columns[0]


def _front(name: str, run: Run, resource: str, warnings: list[str]) -> Front | None:
    found = run.front
    stale = found is not None and run.table and found.table_digest != run.table.digest
    if stale or (found is not None and found.resource != resource):
        found = None
    if found is None and run.table is not None and resource in run.table.columns:
        found = table_front(run.table, resource)
    if found is None or not len(kept := finite(found)):
        warnings.append(f"{name} has no front of {resource} and is left out")
        return None
    return kept


def _relative(runs: Mapping[str, Run], fronts: Mapping[str, Front], warnings: list[str]) -> bool:
    """Whether Ω is not on one scale: other metrics, other layers, or nobody knows."""
    metrics = {str(runs[name].provenance.get("metric", "")) for name in fronts}
    if len({front.layers for front in fronts.values()}) > 1:
        warnings.append("the runs are of networks with different layers")
        return True
    if len({run_front.table_digest for run_front in fronts.values()}) == 1:
        return False
    if "" in metrics:
        warnings.append("not every run says which metric made its Ω")
    return len(metrics) > 1 or "" in metrics


def _run(name: str, run: Run, front: Front, relative: bool) -> ComparedRun:
    unit = float(front.omega[0]) if relative and front.omega[0] > 0 else 1.0
    answer = answer_facts(run.assignment, fitting_table(run, []))
    chosen = None
    if answer is not None and front.resource in answer.point.totals:
        omega = answer.point.omega
        chosen = (answer.point.totals[front.resource], omega / unit) if omega == omega else None
    return ComparedRun(
        name=name,
        metric=str(run.provenance.get("metric", "")),
        data=str(run.provenance.get("data", "")),
        exact=front.exact,
        totals=tuple(front.totals[front.resource].tolist()),
        omega=tuple((front.omega / unit).tolist()),
        chosen=chosen,
        measured=measured_facts(front),
    )

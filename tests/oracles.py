"""Independent oracles, written from the definitions and not from the code."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable, Row


def exact(value: float) -> Fraction:
    """The decimal that stands in the file."""
    return Fraction(repr(value))


def by_layer(table: LayerTable) -> dict[str, dict[Choice, Row]]:
    rows: dict[str, dict[Choice, Row]] = {}
    for row in table.rows():
        rows.setdefault(row.layer, {})[row.choice] = row
    return rows


def every_assignment(table: LayerTable) -> Iterable[dict[str, Choice]]:
    """All assignments in which the layers of a group agree."""
    rows = by_layer(table)
    units: dict[str, list[str]] = {}
    for layer in table.layers:
        units.setdefault(f"group {layer.group}" if layer.group else layer.name, []).append(
            layer.name
        )
    options = [
        sorted(set.intersection(*(set(rows[name]) for name in unit))) for unit in units.values()
    ]
    for picked in itertools.product(*options):
        yield {
            name: choice
            for unit, choice in zip(units.values(), picked, strict=True)
            for name in unit
        }


def omega_of(table: LayerTable, assignment: Mapping[str, Choice]) -> Fraction:
    rows = by_layer(table)
    return sum((exact(rows[name][c].omega) for name, c in assignment.items()), Fraction(0))


def total_of(table: LayerTable, assignment: Mapping[str, Choice], column: str) -> Fraction:
    rows = by_layer(table)
    values = (rows[name][choice].resources[column] for name, choice in assignment.items())
    return sum((exact(value) for value in values), Fraction(0))


def brute_force(
    table: LayerTable, limits: Mapping[str, float]
) -> tuple[Fraction, dict[str, Choice]] | None:
    """The least total Ω over all assignments, and one that has it; None if none is feasible."""
    best: tuple[Fraction, dict[str, Choice]] | None = None
    for assignment in every_assignment(table):
        if all(float(total_of(table, assignment, c)) <= most for c, most in limits.items()):
            omega = omega_of(table, assignment)
            if best is None or omega < best[0]:
                best = omega, assignment
    return best


def naive_front(points: Sequence[tuple[float, ...]]) -> set[tuple[float, ...]]:
    """The distinct points that no other point beats or equals in every coordinate."""
    distinct = set(points)
    return {
        p
        for p in distinct
        if not any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in distinct)
    }

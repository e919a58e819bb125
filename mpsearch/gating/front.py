"""A small front of characters, for places that show no pictures."""

import math
from collections.abc import Sequence

import numpy as np

from mpsearch.errors import InputError
from mpsearch.gating.evidence import Evidence
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import format_size

WIDTH, HEIGHT = 60, 12
EXACT = 400  # layers; the exact front of more would take longer than the rest of the gate
STATES = 20_000
PRICES = 300
COLUMN = "size_bytes"


def picture(evidence: Evidence) -> list[str] | None:
    """Ω against size: the front, the judged assignment and one choice everywhere; None without an
    assignment, its table and sizes."""
    table, assignment = evidence.table, evidence.assignment
    if table is None or assignment is None or COLUMN not in table.columns:
        return None
    try:
        return _drawn(table, assignment)
    except InputError:  # no front, no picture: it is not what the gate is for
        return None


def _drawn(table: LayerTable, assignment: Assignment) -> list[str] | None:
    found = _front(table) if len(table.layers) <= EXACT else supported(table)
    points = [("·", size, omega) for size, omega in found]
    legend = []
    for choice in _everywhere(table):
        mark = str(choice.w_bits)[-1]
        size = float(table.uniform_total(COLUMN, choice))
        points.append((mark, size, float(table.uniform_total("omega", choice))))
        legend.append(f"{mark} {choice} everywhere")
    own = float(table.total(assignment.layers, COLUMN))
    points.append(("●", own, float(table.total(assignment.layers, "omega"))))
    positive = [(mark, size, omega) for mark, size, omega in points if omega > 0]
    if not positive:
        return None
    return [*plot(positive), "· front   ● judged   " + "   ".join(legend)]


def _front(table: LayerTable) -> list[tuple[float, float]]:
    from mpsearch.pareto.front import front

    found = front(table, COLUMN, max_states=STATES)
    return list(zip(found.totals[COLUMN].tolist(), found.omega.tolist(), strict=True))


def supported(table: LayerTable) -> list[tuple[float, float]]:
    """(size, Ω) of points on the front's convex hull: for each of many prices p the choices that
    minimise Ω + p size, layer by layer (Everett, Operations Research 11, 1963). Where there are
    hundreds of layers the hull is as good as the front."""
    from mpsearch.knapsack.instance import Instance

    instance = Instance.build(table, {}, extra_columns=(COLUMN,), paid=(COLUMN,))
    allowed = instance.allowed
    omega = instance.omega.astype(np.float64) / 10.0 ** instance.digits[0]
    size = instance.resources[0].astype(np.float64) / 10.0 ** instance.digits[1]
    rows = np.arange(len(allowed))
    span = size.max(axis=1, where=allowed, initial=0) - size.min(
        axis=1, where=allowed, initial=np.inf
    )
    worth = omega.max(axis=1, where=allowed, initial=0)[span > 0] / span[span > 0]
    worth = worth[worth > 0]
    if not len(worth):
        return []
    points = set()
    for price in np.geomspace(worth.min() * 1e-4, worth.max() * 1e2, PRICES):
        best = np.where(allowed, omega + price * size, np.inf).argmin(axis=1)
        points.add((float(size[rows, best].sum()), float(omega[rows, best].sum())))
    return sorted(points)


def _everywhere(table: LayerTable) -> list[Choice]:
    """At most four choices that every layer has, with other weight bits each."""
    by_bits: dict[int, Choice] = {}
    for position, choice in enumerate(table.choices):
        if (table.row_index[:, position] >= 0).all():
            by_bits[choice.w_bits] = choice
    return [by_bits[bits] for bits in sorted(by_bits)][:4]


def plot(points: Sequence[tuple[str, float, float]]) -> list[str]:
    """Marks at (size, Ω), Ω on a logarithmic axis; later marks lie over earlier ones."""
    sizes = [size for _, size, _ in points]
    logs = [math.log10(omega) for _, _, omega in points]
    left, right, low, high = min(sizes), max(sizes), min(logs), max(logs)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for (mark, size, _), log in zip(points, logs, strict=True):
        x = round((size - left) / (right - left or 1) * (WIDTH - 1))
        y = round((high - log) / (high - low or 1) * (HEIGHT - 1))
        grid[y][x] = mark
    labels = [""] * HEIGHT
    labels[0], labels[-1] = f"{10**high:.2g}", f"{10**low:.2g}"
    labels[HEIGHT // 2] = "Ω"
    lines = [
        f"{label:>8} │{''.join(row)}".rstrip() for label, row in zip(labels, grid, strict=True)
    ]
    first, last = format_size(left), format_size(right)
    return [*lines, f"{'':>8} └{'─' * WIDTH}", f"{'':>10}{first}{last:>{WIDTH - len(first)}}"]

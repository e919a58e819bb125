"""A front within a stated factor, for tables of which the exact one would take too long.

The choices of each layer on its lower convex hull, taken up in order of what they save per weight,
lead through all assignments that are best at some price: between two of them no assignment costs
less than the line that joins them (Dyer, Mathematical Programming 1984; Zemel, Information
Processing Letters 1984). Of these only as many are kept as the factor needs, and where one step
alone is longer, the changes after it that still fit come between.

What a missing point can cost is not taken from that line but from the Lagrangian bound at its price
(mpsearch.solvers.dual), summed over all layers, less what rounding can be.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LARGE = 1_000  # decisions from which on a front without further limits is made this way
EPSILON = 0.01  # unless another one is asked for
TRIED = 4_000  # changes that are tried to fill up what a step leaves
MOST = 20_000  # points
TINY = 5e-324  # the smallest double above 0

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Path:
    """Changes of one layer each [N], by falling saving per weight; sums [N + 1] before each."""

    start: Ints  # [L]: the lightest choices
    layer: Ints
    choice: Ints
    weight: Floats
    cost: Floats
    weights: Floats
    costs: Floats

    def fill(self, position: int, room: float) -> tuple[list[int], float, float]:
        """The changes after a corner that still fit into the room: weight and cost with them."""
        taken: list[int] = []
        left_out = set()
        weight, cost = float(self.weights[position]), float(self.costs[position])
        for n in range(position, min(position + TRIED, len(self.layer))):
            layer = int(self.layer[n])
            if layer not in left_out and self.weight[n] <= room:
                taken.append(n)
                room -= float(self.weight[n])
                weight += float(self.weight[n])
                cost += float(self.cost[n])
            else:
                left_out.add(layer)  # its later changes start from this one
        return taken, weight, cost


def hull_front(
    allowed: NDArray[np.bool_],
    costs: NDArray[np.int64] | Floats,
    weights: NDArray[np.int64] | Floats,
    limit: float,
    base: float,
    epsilon: float,
) -> tuple[NDArray[np.int8], float]:
    """Choices [L, P] by rising weight, and the ε that is proven of them, below `epsilon` or not.

    allowed, costs, weights: [L, C], numbers >= 0, a least one of 0 in each row; `base` is what
    costs are counted from. Every assignment within `limit` has a point that weighs no more and
    costs at most 1 + ε times as much.
    """
    cost, weight = costs.astype(np.float64), weights.astype(np.float64)
    path = _path(allowed, cost, weight)
    points, totals = _points(path, limit, base, epsilon)
    bound = _Bound(allowed, cost, weight, path, base)
    factor = 1.0
    below = 1 if weights.dtype == np.int64 else 0  # a budget below the next point is whole too
    ends = [one[0] - below for one in totals[1:]]
    if totals[-1][0] < path.weights[-1]:
        ends.append(min(limit, float(path.weights[-1])))
    for (_, known), end in zip(totals, ends, strict=False):
        low = bound.at(end)
        factor = max(factor, (base + known) / low if low > 0 else np.inf)
    return _assignments(path, points), factor * (1 + 1e-12) - 1


def _path(allowed: NDArray[np.bool_], cost: Floats, weight: Floats) -> _Path:
    rows = np.arange(len(allowed))
    lightest = np.where(allowed, weight, np.inf)
    lightest = lightest == lightest.min(axis=1, keepdims=True)
    start = np.where(lightest, cost, np.inf).argmin(axis=1)
    found = []
    current = start.copy()
    for _ in range(allowed.shape[1]):
        saved = cost[rows, current][:, None] - cost
        added = weight - weight[rows, current][:, None]
        useful = allowed & (saved > 0) & (added > 0)
        slope = np.divide(saved, added, out=np.zeros_like(saved), where=useful)
        steepest = slope.max(axis=1)
        # of equal ones the lightest: every corner of the hull is a point of its own
        tied = useful & (slope == steepest[:, None])
        following = np.where(tied, added, np.inf).argmin(axis=1)
        moved = np.flatnonzero(steepest > 0)
        if not len(moved):
            break
        step = following[moved]
        found.append((steepest[moved], moved, step, added[moved, step], -saved[moved, step]))
        current[moved] = step
    slope, layer, choice, add, less = (
        np.concatenate([one[part] for one in found]) if found else np.zeros(0) for part in range(5)
    )
    # A layer's slopes fall from step to step but for rounding: `running` keeps their order.
    running = np.full(len(allowed), np.inf)
    ordered, place = [], 0
    for one in found:
        part = np.minimum(slope[place : place + len(one[0])], running[one[1]])
        running[one[1]] = part
        ordered.append(part)
        place += len(part)
    order = np.argsort(-np.concatenate(ordered), kind="stable") if found else np.zeros(0, np.int64)
    start_cost = float(cost[rows, start].sum())
    return _Path(
        start=start,
        layer=layer[order].astype(np.int64),
        choice=choice[order].astype(np.int64),
        weight=add[order],
        cost=less[order],
        weights=np.concatenate([[0.0], np.cumsum(add[order])]),
        costs=start_cost + np.concatenate([[0.0], np.cumsum(less[order])]),
    )


Point = tuple[int, list[int]]  # a corner after so many changes, and which later ones beside them


def _points(
    path: _Path, limit: float, base: float, epsilon: float
) -> tuple[list[Point], list[tuple[float, float]]]:
    """The points that are kept, and of each (weight, cost)."""
    last = int(np.searchsorted(path.weights, limit, side="right")) - 1
    points: list[Point] = [(0, [])]
    totals = [(0.0, float(path.costs[0]))]
    position = 0  # the last corner of the path that is no heavier than the last point
    while len(points) < MOST:
        known = totals[-1][1]
        least = (base + known) / (1 + epsilon) - base
        # the farthest corner up to which no budget costs more than the factor
        corner = min(int(np.searchsorted(-path.costs, -least, side="right")) - 1, last)
        if corner > position:
            position = corner
        elif position == len(path.layer):
            break
        else:
            # One step is longer than that: a point where the line to its end costs as much.
            step = float(path.weight[position])
            share = (path.costs[position] - least) / max(-path.cost[position], TINY)
            room = min(max(float(share), 0.0) * step, limit - float(path.weights[position]))
            taken, weight, cost = path.fill(position, room)
            if cost < known and weight > totals[-1][0]:
                points.append((position, taken))
                totals.append((weight, cost))
                continue
            if position >= last:
                break
            position += 1
        points.append((position, []))
        totals.append((float(path.weights[position]), float(path.costs[position])))
    return points, totals


class _Bound:
    """No assignment of a total weight costs less than this, base included."""

    def __init__(
        self, allowed: NDArray[np.bool_], cost: Floats, weight: Floats, path: _Path, base: float
    ) -> None:
        self.cost = np.where(allowed, cost, np.inf)
        self.weight = np.where(allowed, weight, 0.0)
        self.path, self.base = path, base
        self.size = base + float(np.where(allowed, cost, 0.0).max(axis=1).sum())

    def at(self, total: float) -> float:
        """At the price of the path's change that the total falls into."""
        path = self.path
        place = int(np.searchsorted(path.weights, total, side="left")) - 1
        place = min(max(place, 0), len(path.layer) - 1)
        price = float(-path.cost[place] / path.weight[place]) if len(path.layer) else 0.0
        value = float((self.cost + price * self.weight).min(axis=1).sum())
        paid = price * total
        margin = (self.size + abs(value) + paid) * (len(self.cost) + 8) * 2.0**-50
        return self.base + value - paid - margin


def _assignments(path: _Path, points: list[Point]) -> NDArray[np.int8]:
    """Follow the path once: the choices [L, P]."""
    chosen = np.zeros((len(path.start), len(points)), dtype=np.int8)
    current = path.start.astype(np.int8)
    done = 0
    for number, (position, taken) in enumerate(points):
        for n in range(done, position):
            current[path.layer[n]] = path.choice[n]
        done = position
        chosen[:, number] = current
        for n in taken:
            chosen[path.layer[n], number] = path.choice[n]
    return chosen

"""Random problems for judging solvers: small enough for exhaustive search, nasty on purpose.

Ties, equal layers, equal choices, zero Ω, groups, missing choices, Ω totals from 1e-12 to 1e6,
BOPS up to 1e13, one to three limits, limits that are met exactly, limits that exclude each other,
one layer, one choice.
"""

import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpsearch.knapsack.instance import Instance
from mpsearch.knapsack.problem import Problem, scale
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable, Row

MOST = 200_000  # assignments of one instance
COLUMNS = ("size_bytes", "bops", "latency_s")
BITS = (2, 3, 4, 5, 6, 8)
WIDTHS = (1, 2, 2, 3, 3, 4, 4, 4, 4, 5, 5, 6, 6, 6, 6)  # choices per layer


@dataclass(frozen=True, eq=False)
class Case:
    """A problem, and the least cost of all its assignments (None: infeasible)."""

    seed: int
    problem: Problem
    best: int | None


def random_case(seed: int) -> Case:
    """The problem of this seed, scaled as `solve` scales it, with its exhaustive optimum."""
    rng = random.Random(f"mpsearch {seed}")
    while True:
        problem = _problem(rng)
        if problem.allowed.any(axis=1).all():  # else `solve` knows the answer without asking
            best = enumerate_costs(problem)
            return Case(seed, problem, int(best.min()) if len(best) else None)


def enumerate_costs(problem: Problem) -> NDArray[np.int64]:
    """The costs of all feasible assignments, in integers: sums over all combinations at once."""
    costs = np.zeros(1, dtype=np.int64)
    used = np.zeros((len(problem.limits), 1), dtype=np.int64)
    for layer in range(len(problem.allowed)):
        choices = [c for c in range(problem.allowed.shape[1]) if problem.allowed[layer, c]]
        costs = np.concatenate([costs + problem.costs[layer, c] for c in choices])
        used = np.concatenate(
            [used + problem.weights[:, layer, c][:, None] for c in choices], axis=1
        )
        fits = (used <= problem.limits[:, None]).all(axis=0)  # weights only grow
        costs, used = costs[fits], used[:, fits]
    return costs


def _problem(rng: random.Random) -> Problem:
    table = _table(rng, rng.choice([1, *range(2, 13), *range(6, 13)]), rng.choice(WIDTHS))
    limits = _limits(rng, table)
    instance = Instance.build(table, limits, exclude=_exclude(rng, table))
    if any(low > most for low, most in zip(instance.base[1:], instance.limits, strict=True)):
        # `solve` finds this without a solver; what is left are limits that exclude each other
        for position, (column, limit) in enumerate(limits.items()):
            least = instance.resource_value(position, instance.base[1 + position])
            raised = max(limit, least * rng.choice([1, 1.02, 1.1, 1.3]))
            limits[column] = raised if column == "latency_s" else math.ceil(raised)
        instance = Instance.build(table, limits, exclude=_exclude(rng, table))
    problem, shift = scale(instance, None)
    if rng.random() < 0.4 or not problem.allowed.any(axis=1).all():
        return problem
    costs = np.sort(enumerate_costs(problem))
    if not len(costs):
        return problem
    # As `solve` does: scale by a feasible assignment, from the optimum itself to a poor one.
    known = int(costs[int(len(costs) * rng.random() ** 4)])
    lost = len(problem.allowed) if shift else 0  # at most one unit per layer by rounding down
    return scale(instance, instance.base[0] + ((known + lost) << shift))[0]


def _table(rng: random.Random, layers: int, choices: int) -> LayerTable:
    """Rows as a profile has them, Ω falling with the bits in most layers but not in all."""
    bits = sorted(rng.sample(BITS, choices))
    scale_ = 10 ** rng.uniform(-12, 6)
    grouped = rng.random() < 0.3
    described = [
        Layer(f"layer{i}", "conv2d", rng.choice(["", "", "a", "b"]) if grouped else "")
        for i in range(layers)
    ]
    rows: list[Row] = []
    for number, layer in enumerate(described):
        if number and rng.random() < 0.2:
            before = rows[-choices:]
            rows += [Row(layer.name, r.choice, r.omega, 0.0, r.resources) for r in before]
            continue
        weights = rng.choice([16, 100, rng.randrange(1, 10**7)])
        macs = weights * rng.choice([1, 49, rng.randrange(1, 15_000)])
        height = 10 ** rng.uniform(-3, 3)
        for b in bits:
            omega = scale_ * height * 4.0**-b * rng.uniform(0.5, 2)
            omega = omega if rng.random() < 0.7 else rng.choice([float(f"{omega:.1g}")] * 4 + [0.0])
            resources: dict[str, int | float] = {
                "size_bytes": -(-weights * b // 8),
                "bops": macs * b * b,
                "latency_s": round(rng.uniform(1e-5, 1e-2), 9),
            }
            if rng.random() < 0.1 and rows and rows[-1].layer == layer.name:
                resources = dict(rows[-1].resources)  # an equal choice
            rows.append(Row(layer.name, Choice(b, 8), omega, 0.0, resources))
    return LayerTable.from_rows(described, rows)


def _limits(rng: random.Random, table: LayerTable) -> dict[str, int | float]:
    """One to three limits, from nearly nothing to loose, often exactly attainable."""
    tight, least = rng.random() < 0.2, rng.random() < 0.15
    limits: dict[str, int | float] = {}
    for column in rng.sample(COLUMNS, rng.randint(1, 3)):
        totals = [float(table.uniform_total(column, choice)) for choice in table.choices]
        share = rng.uniform(0, 0.1) if tight else rng.uniform(0, 0.7)
        limit = min(totals) + share * (max(totals) - min(totals))
        if least:  # raised to about the least total: with the random latency_s they exclude
            limit = 0.0
        elif rng.random() < 0.4:
            picked = {name: rng.choice(table.choices) for name in table.layer_names}
            limit = float(table.total(picked, column))
        limits[column] = limit if column == "latency_s" else int(limit)
    return limits


def _exclude(rng: random.Random, table: LayerTable) -> dict[str, set[Choice]]:
    """Leave choices out, the same for layers of one group, until few assignments are left."""
    units: dict[str, list[str]] = {}
    for layer in table.layers:
        units.setdefault(f"group {layer.group}" if layer.group else layer.name, []).append(
            layer.name
        )
    kept = {unit: list(table.choices) for unit in units}
    for unit in kept:
        if rng.random() < 0.2 and len(kept[unit]) > 1:
            kept[unit].remove(rng.choice(kept[unit]))
    while _number(kept) > MOST:
        largest = [unit for unit in kept if len(kept[unit]) > 2] or list(kept)
        unit = rng.choice(largest)
        kept[unit].remove(rng.choice(kept[unit]))
    return {
        name: set(table.choices) - set(kept[unit])
        for unit, names in units.items()
        for name in names
    }


def _number(kept: dict[str, list[Choice]]) -> int:
    number = 1
    for choices in kept.values():
        number *= len(choices)
    return number

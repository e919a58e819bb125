"""How long a proven answer takes, beside the engines that people use for it.

Run `python benchmarks/solvers.py`; `--quick` leaves 2,000 layers and more out.

Random tables in the manner of HAWQ (weights over three decades, MACs from a random resolution, Ω
falling by 4 per bit times noise), limits on size and BOPS between 40 and 70 % of their ranges.
Ours is the whole of `mpsearch.solve` from the table in memory to the Solution. The engines are
called through their own API on the same properly scaled problem, gap zero, building their model
included, importing them not. Every answer is re-evaluated exactly from the table. `unscaled CBC` is
what HAWQ, MCT and ModelOpt do: PuLP on raw Ω, bytes and BOPS with default settings.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from mpsearch.knapsack.instance import Instance
from mpsearch.knapsack.problem import Problem, scale
from mpsearch.search.proof import guess
from mpsearch.search.solving import find_solver, solve
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable

SIZES = [(54, (2, 4, 6, 8), 9), (300, (2, 3, 4, 5, 6, 8), 7), (2_000, (2, 4, 6, 8), 5)]
LARGE = (10_000, (2, 3, 4, 5, 6, 8), 3)
ENGINES = ["pulp", "highs", "mathopt-scip", "ortools"]
SLOW = {"ortools": 2_000}  # from this many layers on it takes minutes
Chosen = np.ndarray


def random_table(layers: int, bits: tuple[int, ...], seed: int) -> LayerTable:
    """One table [layers x bits], vectorised."""
    rng = np.random.default_rng(seed)
    width = len(bits)
    b = np.array(bits)
    weights = (10 ** rng.uniform(3, 6, layers)).astype(np.int64)
    macs = weights * rng.integers(1, 1024, layers)
    height = 10 ** rng.uniform(-4, 0, layers)
    omega = 1e-3 * height[:, None] * 4.0**-b * rng.uniform(0.5, 2, (layers, width))
    return LayerTable(
        layers=tuple(Layer(f"layer{n}") for n in range(layers)),
        layer_index=np.repeat(np.arange(layers), width),
        choices=tuple(Choice(each, each) for each in bits),
        choice_index=np.tile(np.arange(width), layers),
        omega=omega.ravel(),
        omega_stderr=np.zeros(layers * width),
        resources={
            "size_bytes": (weights[:, None] * b // 8).ravel(),
            "bops": (macs[:, None] * b * b).ravel(),
        },
    )


def limits_of(table: LayerTable, seed: int) -> dict[str, int | float]:
    rng = np.random.default_rng(seed + 1000)
    found: dict[str, int | float] = {}
    for column in table.columns:
        low, high = (table.uniform_total(column, c) for c in (table.choices[0], table.choices[-1]))
        found[column] = int(low + rng.uniform(0.4, 0.7) * (high - low))
    return found


def timed(call: Callable[[], Chosen | None]) -> tuple[float, Chosen | None]:
    started = time.perf_counter()
    found = call()
    return time.perf_counter() - started, found


def ask(name: str, problem: Problem) -> Chosen | None:
    chosen: Chosen | None = find_solver(name).solve(problem, None, {}).chosen
    return chosen


def unscaled(instance: Instance) -> Chosen | None:
    """The ILP as the field's tools write it."""
    import pulp

    omega = instance.omega / 10.0 ** instance.digits[0]
    layers, width = omega.shape
    model = pulp.LpProblem("bits", pulp.LpMinimize)
    x = [[pulp.LpVariable(f"x_{i}_{c}", cat=pulp.LpBinary) for c in range(width)]
         for i in range(layers)]  # fmt: skip
    model += pulp.lpSum(omega[i, c] * x[i][c] for i in range(layers) for c in range(width))
    for row in x:
        model += pulp.lpSum(row) == 1
    for matrix, limit in zip(instance.resources, instance.limits, strict=True):
        terms = (int(matrix[i, c]) * x[i][c] for i in range(layers) for c in range(width))
        model += pulp.lpSum(terms) <= limit
    model.solve(pulp.PULP_CBC_CMD(msg=False))
    values = np.array([[one.varValue or 0.0 for one in row] for row in x])
    chosen: Chosen = values.argmax(axis=1)
    return chosen


def measure(layers: int, bits: tuple[int, ...], repeats: int, peers: bool) -> None:
    seconds: dict[str, list[float]] = {}
    worse: dict[str, list[float]] = {}
    gaps = []
    for seed in range(repeats):
        table = random_table(layers, bits, seed)
        budget = Budget(limits_of(table, seed))
        started = time.perf_counter()
        solution = solve(table, budget)
        seconds.setdefault("mpsearch auto", []).append(time.perf_counter() - started)
        assert solution.objective is not None
        assert solution.gap is not None
        gaps.append(0.0 if solution.status == "optimal" else solution.gap)
        if not peers:
            continue
        instance = Instance.build(table, budget.limits)
        start = guess(instance)
        upper = None if start is None else instance.sum(instance.omega, start)
        problem, _ = scale(instance, upper)
        calls: dict[str, Callable[[], Chosen | None]] = {}
        for name in ENGINES:
            if layers >= SLOW.get(name, layers + 1):
                continue
            calls[name] = partial(ask, name, problem)
        calls["unscaled CBC"] = partial(unscaled, instance)
        for name, call in calls.items():
            if seed == 0 and layers <= 300:
                call()  # imports and first use
            took, chosen = timed(call)
            seconds.setdefault(name, []).append(took)
            excess = float("inf")
            if chosen is not None and instance.is_feasible(chosen):
                total = instance.omega_value(instance.sum(instance.omega, chosen))
                excess = total / solution.objective - 1
                assert total >= (solution.bound or 0.0) * (1 - 1e-12), "below a proven bound"
            worse.setdefault(name, []).append(excess)
    ours = statistics.median(seconds["mpsearch auto"])
    scaled = [statistics.median(seconds[name]) for name in ENGINES if name in seconds]
    print(f"\n{layers:,} layers x {len(bits)} choices, {repeats} tables; ours: largest gap left "
          f"{max(gaps):.1g}\n")  # fmt: skip
    if scaled:
        print(f"The best engine takes {min(scaled) / ours:.1f} times as long.\n")
    print("| | median s | largest s | times ours | worse than ours by up to | infeasible |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, times in seconds.items():
        above = [one for one in worse.get(name, [0.0]) if np.isfinite(one)]
        broken = sum(not np.isfinite(one) for one in worse.get(name, []))
        print(f"| {name} | {statistics.median(times):.4f} | {max(times):.4f} "
              f"| {statistics.median(times) / ours:.1f} | {max(above, default=0.0):.1e} "
              f"| {broken} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave 2,000 layers and more out")
    arguments = parser.parse_args()
    solve(random_table(4, (4, 8), 0), Budget({"bops": 10**9}))  # imports
    for layers, bits, repeats in SIZES[: 2 if arguments.quick else 3]:
        measure(layers, bits, repeats, peers=True)
    if not arguments.quick:
        measure(*LARGE, peers=False)


if __name__ == "__main__":
    main()

"""Tables of the size that large language models have: 10,000 tensors x 12 formats, with groups.

Run `python benchmarks/large_tables.py`; `--tensors 2000` is quicker. CPU seconds of one process:
reading the CSV file, `mpsearch.solve` with one limit and with two, and `mpsearch.front`.

Four sizes of tensors, as in transformers of 8 billion weights, and w4a8-like formats: six widths of
weights with a scale of two bytes for every 32, two of activations. Three of four tensors share
their format with those that are fused with them. Ω falls by 4 per bit times noise, and its height
is spread over tensors as measured ones are (lognormal). So few distinct sizes are harder than many:
what is left of a limit can only be filled up by the smallest tensors.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mpsearch.pareto.front import front
from mpsearch.search.solving import solve
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable

SHAPES = (4096 * 4096, 1024 * 4096, 4096 * 14336, 4096)
BITS = (2, 3, 4, 5, 6, 8)
ACTIVATIONS = (8, 16)
LIMITS = (("45%", None), ("30%", None), ("45%", "40%"), ("45%", "30%"))


def large_table(
    tensors: int, seed: int, shapes: tuple[int, ...] = SHAPES, groups: bool = True
) -> LayerTable:
    """One table [tensors x 12], vectorised; equal seeds give equal tables."""
    rng = np.random.default_rng(seed)
    bits, activations = np.repeat(BITS, 2), np.tile(ACTIVATIONS, len(BITS))
    weights = rng.choice(np.array(shapes, dtype=np.int64), tensors)
    height = rng.lognormal(0, 2, tensors)
    noise = rng.lognormal(0, 0.1, (tensors, len(bits)))
    omega = height[:, None] * 4.0**-bits * (1 + 0.1 * (activations == ACTIVATIONS[0])) * noise
    return LayerTable(
        layers=tuple(
            Layer(f"tensor{n}", "linear", f"g{n // 3}" if groups and n % 4 else "", int(each))
            for n, each in enumerate(weights.tolist())
        ),
        layer_index=np.repeat(np.arange(tensors), len(bits)),
        choices=tuple(Choice(w, a) for w in BITS for a in ACTIVATIONS),
        choice_index=np.tile(np.arange(len(bits)), tensors),
        omega=omega.ravel(),
        omega_stderr=np.zeros(omega.size),
        resources={
            "size_bytes": (weights[:, None] * bits // 8 + weights[:, None] // 32 * 2).ravel(),
            "bops": (weights[:, None] * bits * activations).ravel(),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Large tables: CPU seconds of one process.")
    parser.add_argument("--tensors", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    print("| what | seed | answer | CPU seconds |")
    print("|---|---:|---|---:|")

    def row(what: str, seed: int, answer: str, started: float) -> None:
        print(f"| {what} | {seed} | {answer} | {time.process_time() - started:.1f} |", flush=True)

    for seed in range(arguments.seeds):
        table = large_table(arguments.tensors, seed)
        with TemporaryDirectory() as folder:
            path = Path(folder, "table.csv")
            table.write_csv(path)
            started = time.process_time()
            LayerTable.read_csv(path)
            row("read CSV", seed, f"{path.stat().st_size / 1e6:.1f} MB", started)
        for size, bops in LIMITS:
            budget = Budget.parse(table, size=size, bops=bops)
            started = time.process_time()
            found = solve(table, budget)
            proven = found.status == "optimal"
            answer = "proven" if proven else f"gap {found.gap or 0:.1e}"
            row(f"size {size}" + (f", BOPS {bops}" if bops else ""), seed, answer, started)
        started = time.process_time()
        points = front(table)
        row("front", seed, f"{len(points):,} points, factor {1 + points.epsilon:.4f}", started)


if __name__ == "__main__":
    main()

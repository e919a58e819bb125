"""How the exact front grows with layers and choices, against a plain dominance DP.

python benchmarks/front.py                     # a Markdown table
python benchmarks/front.py --plot docs/front-growth.png

Every size runs in a process of its own, so that its peak memory is its own. The plain DP sorts all
sums of a layer by (size, Ω) and keeps the records, as one writes it down first.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from mpsearch.commands.profile import peak_bytes
from mpsearch.pareto.front import front
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable, Row

SIZES = ["27x4", "54x2", "54x3", "54x4", "54x6", "100x4", "150x4", "220x4", "300x4"]
BITS = {2: (4, 8), 3: (2, 4, 8), 4: (2, 3, 4, 8), 6: (2, 3, 4, 5, 6, 8)}


def random_table(layers: int, choices: int, seed: int = 0) -> LayerTable:
    """HAWQ-like: Ω falls about fourfold per bit, layers of 1,000 to 2.5 million weights."""
    rng = np.random.default_rng(seed)
    rows = []
    for layer in range(layers):
        weights, height = int(10 ** rng.uniform(3, 6.4)), 10 ** rng.uniform(-3, 0)
        for bits in BITS[choices]:
            omega = float(height * 4.0**-bits * rng.uniform(0.5, 2))
            resources: dict[str, int | float] = {"size_bytes": -(-weights * bits // 8)}
            rows.append(Row(f"layer{layer}", Choice(bits, bits), omega, 0.0, resources))
    return LayerTable.from_rows([Layer(f"layer{n}", "conv2d", "") for n in range(layers)], rows)


def hawq_table(folder: str) -> LayerTable:
    """HAWQ-V3's ResNet-18: published traces and perturbations, 4 and 8 bit."""
    rows = []
    with Path(folder, "hawqv3", "resnet18.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            for bits in (4, 8):
                omega = float(line["hessian_trace_per_param"]) * float(line[f"delta_w2_int{bits}"])
                resources: dict[str, int | float] = {"size_bytes": int(line["params"]) * bits // 8}
                rows.append(Row(line["layer"], Choice(bits, bits), omega, 0.0, resources))
    names = dict.fromkeys(row.layer for row in rows)
    return LayerTable.from_rows([Layer(name, "conv2d", "") for name in names], rows)


def table_of(case: str) -> LayerTable:
    if case == "hawqv3":
        return hawq_table(os.environ["MPSEARCH_DATA"])
    layers, choices = map(int, case.split("x"))
    return random_table(layers, choices)


def plain(table: LayerTable) -> int:
    """Points of the front by the plain DP, with back-pointers."""
    sizes = table.column("size_bytes")[table.row_index]
    omegas = table.column("omega")[table.row_index]
    size, omega = np.zeros(1, dtype=np.int64), np.zeros(1)
    pointers = []
    for row_size, row_omega in zip(sizes, omegas, strict=True):
        every_size = (size[:, None] + row_size).ravel()
        every_omega = (omega[:, None] + row_omega).ravel()
        order = np.lexsort((every_omega, every_size))
        every_omega = every_omega[order]
        record = np.ones(len(order), dtype=bool)
        record[1:] = every_omega[1:] < np.minimum.accumulate(every_omega)[:-1]
        pointers.append(order[record])
        size, omega = every_size[order[record]], every_omega[record]
    return len(size)


def measure(case: str, which: str) -> None:
    """Print points, CPU seconds (the best of up to three) and peak MB."""
    table = table_of(case)
    seconds: list[float] = []
    while len(seconds) < 3 and sum(seconds) < 3:
        start = time.process_time()
        points = len(front(table)) if which == "ours" else plain(table)
        seconds.append(time.process_time() - start)
    print(points, min(seconds), peak_bytes() / 1e6)


def child(case: str, which: str) -> tuple[int, float, float]:
    command = [sys.executable, __file__, "--case", case, "--which", which]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(output[0]), float(output[1]), float(output[2])


def draw(results: dict[str, tuple[int, float]], path: str) -> None:
    """Points and seconds over layers, four choices, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = [case for case in results if case.endswith("x4")]
    layers = [int(case.split("x")[0]) for case in cases]
    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for axis, position, label in zip(axes, (0, 1), ("points", "CPU seconds"), strict=True):
        axis.loglog(layers, [results[case][position] for case in cases], marker="o")
        axis.set_xticks(layers, [str(number) for number in layers])
        axis.minorticks_off()
        axis.set(xlabel="layers, 4 choices each", ylabel=label)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description="Growth of the exact front.")
    parser.add_argument("--plot", metavar="FILE")
    parser.add_argument("--sizes", nargs="*", default=SIZES, help="LAYERSxCHOICES")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--which", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        measure(arguments.case, arguments.which)
        return
    sizes = list(arguments.sizes)
    if Path(os.environ.get("MPSEARCH_DATA", "/nowhere"), "hawqv3", "resnet18.csv").exists():
        sizes.insert(0, "hawqv3")
    print("| layers x choices | points | CPU seconds | peak MB | plain DP | ratio |")
    print("|---|---|---|---|---|---|")
    results = {}
    for case in sizes:
        points, seconds, memory = child(case, "ours")
        other, plain_seconds, _ = child(case, "plain")
        results[case] = points, seconds
        note = "" if abs(points - other) <= points // 1000 else f" (plain: {other:,})"
        ratio = plain_seconds / seconds
        print(
            f"| {case} | {points:,}{note} | {seconds:.3f} | {memory:.0f} | {plain_seconds:.3f} "
            f"| {ratio:.1f} |",
            flush=True,
        )
    if arguments.plot:
        draw(results, arguments.plot)


if __name__ == "__main__":
    main()

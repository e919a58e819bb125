"""Small tables for tests: random ones by seed, and one written by hand."""

import random
from pathlib import Path

from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable, Row

HAND = """layer,w_bits,a_bits,omega,size_bytes,bops
conv1,4,4,0.5,1000,16000
conv1,8,8,0.1,2000,64000
conv2,4,4,0.25,4000,32000
conv2,8,8,0.05,8000,128000
fc,4,4,0.125,500,1600
fc,8,8,0.025,1000,6400
"""


def hand_table(folder: Path) -> Path:
    path = folder / "profile.csv"
    path.write_text(HAND)
    return path


def random_table(seed: int, layers: int, choices: int, scale: float, groups: bool) -> LayerTable:
    """Ties, zero Ω, equal layers and a float column are all likely. Activations have 8 bits, so
    that all choices stay in the search whatever is limited (`test_activation_bits`)."""
    rng = random.Random(seed)
    bits = sorted(rng.sample([2, 3, 4, 5, 6, 8], choices))
    described = [
        Layer(f"layer{i}", "conv2d", rng.choice(["", "", "a", "b"]) if groups else "")
        for i in range(layers)
    ]
    rows: list[Row] = []
    for i, layer in enumerate(described):
        if i and rng.random() < 0.2:  # an equal layer
            rows += [
                Row(layer.name, r.choice, r.omega, r.omega_stderr, r.resources)
                for r in rows[-choices:]
            ]
            continue
        weights = rng.choice([16, 100, rng.randrange(1, 10**7)])
        macs = weights * rng.choice([1, 49, rng.randrange(1, 4000)])
        height = 10 ** rng.uniform(-3, 3)
        for b in bits:
            omega = scale * height * 4.0**-b * rng.uniform(0.5, 2)
            omega = rng.choice([omega, omega, omega, float(f"{omega:.1g}"), 0.0])
            resources = {
                "size_bytes": -(-weights * b // 8),
                "bops": macs * b * b,
                "latency_s": rng.uniform(1e-5, 1e-2) + 0.1,
            }
            rows.append(Row(layer.name, Choice(b, 8), omega, 0.0, resources))
    return LayerTable.from_rows(described, rows)


def random_limits(seed: int, table: LayerTable, number: int) -> dict[str, float]:
    """Limits between the least and the most; sometimes exactly an attainable total."""
    rng = random.Random(seed)
    limits: dict[str, float] = {}
    for column in rng.sample(["size_bytes", "bops", "latency_s"], number):
        low, high = (
            table.uniform_total(column, choice) for choice in (table.choices[0], table.choices[-1])
        )
        limit = low + rng.uniform(-0.02, 1.0) * (high - low)
        if rng.random() < 0.3:
            picked = {n: rng.choice(table.choices) for n in table.layer_names}
            limit = table.total(picked, column)
        limits[column] = limit if column == "latency_s" else int(limit)
    return limits

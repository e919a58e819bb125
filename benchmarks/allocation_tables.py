"""The tables that allocators are compared on: published, our own, and made up from a seed."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from assignment_zoo import ENTRIES, FOLDER

from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable, Row, TableLayer

HERE = Path(__file__).resolve().parent
# Bytes of 256 weights in llama.cpp's types, as `gguf` 0.19 counts them.
BLOCK_BYTES = {
    "Q2_K": 84, "Q3_K": 110, "IQ4_XS": 136, "Q4_K": 144, "Q5_K": 176, "Q6_K": 210, "Q8_0": 272
}  # fmt: skip


def hawqv3(path: Path) -> LayerTable:
    """HAWQ-V3's published figures: Ω is the trace per weight times the squared weight error, 4 or 8
    bits; the layers that a residual branch joins agree."""
    layers, rows = [], []
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            weights = int(line["params"])
            layers.append(TableLayer(line["layer"], "conv2d", line["group"], weights))
            for bits in (4, 8):
                trace, error = line["hessian_trace_per_param"], line[f"delta_w2_int{bits}"]
                resources = {"size_bytes": weights * bits // 8}
                omega = float(trace) * float(error)
                rows.append(Row(line["layer"], Choice(bits, bits), omega, 0.0, resources))
    return LayerTable.from_rows(layers, rows)


def named_formats(blocks: int, seed: int) -> LayerTable:
    """A language model's shapes in llama.cpp's types, with made-up Ω: q, k and v of a block agree,
    and its gate and up; the ends of the stack are the most sensitive."""
    random = np.random.default_rng(seed)
    shapes = {
        "attn_q": (2048, 2048, "qkv"), "attn_k": (512, 2048, "qkv"), "attn_v": (512, 2048, "qkv"),
        "attn_output": (2048, 2048, ""), "ffn_gate": (5632, 2048, "ffn"),
        "ffn_up": (5632, 2048, "ffn"), "ffn_down": (2048, 5632, ""),
    }  # fmt: skip
    layers, rows = [], []
    for block in range(blocks):
        end = 1 + 8 * abs(2 * block / (blocks - 1) - 1) ** 3
        for kind, (outputs, inputs, group) in shapes.items():
            name = f"blk.{block}.{kind}"
            weights = outputs * inputs
            group = group and f"{block}.{group}"
            layers.append(TableLayer(name, "linear", group, weights, shape=(outputs, inputs)))
            height = end * 10 ** random.uniform(-3, -1)
            for label, size in BLOCK_BYTES.items():
                bits = 8 * size / 256
                omega = height * 4.0**-bits * random.uniform(0.5, 2)
                choice = Choice.called(label, bits, 16)
                rows.append(Row(name, choice, omega, 0.0, {"size_bytes": weights // 256 * size}))
    return LayerTable.from_rows(layers, rows)


def many_sizes(count: int, seed: int) -> LayerTable:
    """Layers of a thousand to a million weights at 2, 3, 4, 6 and 8 bits, with made-up Ω."""
    random = np.random.default_rng(seed)
    layers, rows = [], []
    for number in range(count):
        weights = int(10 ** random.uniform(3, 6))
        layers.append(TableLayer(f"layer{number}", "conv2d", "", weights))
        height = 10 ** random.uniform(-4, 0)
        for bits in (2, 3, 4, 6, 8):
            omega = height * 4.0**-bits * random.uniform(0.5, 2)
            size = {"size_bytes": -(-weights * bits // 8)}
            rows.append(Row(f"layer{number}", Choice(bits, 8), omega, 0.0, size))
    return LayerTable.from_rows(layers, rows)


def tables() -> Iterator[tuple[str, LayerTable]]:
    """(title, table); HAWQ-V3's ResNet-18 only where MPSEARCH_DATA has it."""
    published = Path(os.environ.get("MPSEARCH_DATA", ""), "hawqv3", "resnet18.csv")
    if published.is_file():
        yield "HAWQ-V3 ResNet-18, published", hawqv3(published)
    yield "HAWQ-V3 ResNet-50, published", hawqv3(HERE / "hawqv3_resnet50.csv")
    for name, entry in ENTRIES.items():
        yield f"{entry.title}, measured", LayerTable.read_csv(FOLDER / f"{name}.csv")
    yield "llama.cpp types, made up", named_formats(12, 0)
    yield "54 layers at 5 widths, made up", many_sizes(54, 0)

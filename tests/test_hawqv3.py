"""HAWQ-V3's nine published ResNet-18 assignments: `mpsearch solve` finds them, any solver."""

import csv
import json
import os
from pathlib import Path

import pytest

from mpsearch.cli import run
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable, Row

DATA = os.environ.get("MPSEARCH_DATA")
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA, reason="MPSEARCH_DATA names no folder with hawqv3/resnet18.csv"),
]

COLUMNS = {"modelsize": "size_bytes", "bops": "bops", "latency": "latency_ms"}
CASES = [f"{kind}_{share}" for kind in COLUMNS for share in ("0.25", "0.5", "0.75")]


def read(name: str) -> list[dict[str, str]]:
    with Path(DATA or "", "hawqv3", name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LayerTable]:
    """Ω, size and BOPS as the folder's README defines them."""
    layers, rows = [], []
    for line in read("resnet18.csv"):
        weights, macs = int(line["params"]), int(line["macs"])
        layers.append(Layer(line["layer"], "conv2d", line["group"], weights, macs))
        for bits in (4, 8):
            trace, change = line["hessian_trace_per_param"], line[f"delta_w2_int{bits}"]
            resources = {
                "size_bytes": weights * bits // 8,
                "bops": macs * bits * bits,
                "latency_ms": float(line[f"latency_ms_int{bits}"]),
            }
            omega = float(trace) * float(change)
            rows.append(Row(line["layer"], Choice(bits, bits), omega, 0.0, resources))
    built = LayerTable.from_rows(layers, rows)
    path = tmp_path_factory.mktemp("hawqv3") / "profile.csv"
    built.write_csv(path)
    return path, built


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "solver", ["dp", "lagrangian", "pulp", "ortools", "highs", "mathopt-highs", "mathopt-scip"]
)
def test_published_assignment(
    table: tuple[Path, LayerTable], capsys: pytest.CaptureFixture[str], solver: str, case: str
) -> None:
    path, built = table
    kind, share = case.split("_")
    column = COLUMNS[kind]
    low, high = (built.uniform_total(column, Choice(bits, bits)) for bits in (4, 8))
    limit = low + float(share) * (high - low)
    text = f"{int(limit)}B" if column == "size_bytes" else repr(limit)
    call = ["solve", str(path), "--limit", f"{column}={text}", "--solver", solver, "--json"]
    assert run(call) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == "optimal"
    assert answer["notes"] == []
    published = {line["layer"]: int(line[case]) for line in read("resnet18_published_bits.csv")}
    assert {name: bits["w_bits"] for name, bits in answer["layers"].items()} == published

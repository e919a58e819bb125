"""The assignments of zoo/: proven, of their table, within their bytes, and as measured."""

import csv
import os
from pathlib import Path

import pytest
from assignment_zoo import ENTRIES, FOLDER, load, main, table_of
from click.testing import CliRunner

import mpsearch
from mpsearch.cli import run
from mpsearch.evaluation.evaluation import load_evaluations
from mpsearch.post_training.repairing import PLAIN
from mpsearch.tables.assignment import Assignment, contradictions
from mpsearch.tables.provenance import load_provenance
from mpsearch.tables.table import LayerTable

PAIRS = [(name, share) for name, entry in ENTRIES.items() for share in entry.shares]


def assigned(name: str, share: int) -> Assignment:
    return Assignment.load(FOLDER / f"{name}-{share}.json")


def test_every_file_is_one_of_them() -> None:
    wanted = {f"{name}-{share}.json" for name, share in PAIRS}
    wanted |= {f"{name}{ending}" for name in ENTRIES for ending in (".csv", ".json")}
    wanted |= {f"{name}.evaluation.json" for name in ENTRIES}
    assert {path.name for path in FOLDER.iterdir()} == wanted
    assert len(PAIRS) >= 10


@pytest.mark.parametrize(("name", "share"), PAIRS)
def test_totals(name: str, share: int) -> None:
    """From the stored table, and from bits times weights: (w·b + 7)/8 and 8 bytes a channel."""
    table, assignment = LayerTable.read_csv(FOLDER / f"{name}.csv"), assigned(name, share)
    assert assignment.status == "optimal"
    assert assignment.bound == pytest.approx(assignment.omega, rel=1e-12)
    assert assignment.table_digest == table.digest
    assert contradictions(assignment, table) == ()
    assert assignment.layers.keys() == set(table.layer_names)
    with (FOLDER / f"{name}.csv").open(newline="") as file:
        whole = {line["layer"]: line for line in csv.DictReader(file) if line["w_bits"] == "8"}
    size = 0
    for layer, choice in assignment.layers.items():
        weights = int(whole[layer]["weights"])
        beside = int(whole[layer]["size_bytes"]) - weights
        assert beside % 4 == 0
        size += -(-weights * choice.w_bits // 8) + beside
    assert size == assignment.totals["size_bytes"]
    budget = share * sum(int(line["size_bytes"]) for line in whole.values()) // 100
    assert size <= assignment.limits["size_bytes"] == budget


@pytest.mark.parametrize("name", ENTRIES)
def test_measured(name: str) -> None:
    """Each on other samples than those of its profile, as the network that it names."""
    table = LayerTable.read_csv(FOLDER / f"{name}.csv")
    found = load_evaluations(FOLDER / f"{name}.evaluation.json")
    names = [f"{name}-{share}" for share in ENTRIES[name].shares]
    uniform = ["w8a8", "w4a8", "w3a8", "w2a8"]
    assert [row.name for row in found.rows] == ["FP32", *uniform, *names]
    assert found.data_digest != load_provenance(FOLDER / f"{name}.csv")["data_digest"]
    for share, row in zip(ENTRIES[name].shares, found.rows[5:], strict=True):
        assignment = assigned(name, share)
        assert row.origin.model == assignment.model_digest == found.rows[0].origin.model
        assert row.origin.layers == dict(assignment.layers)
        assert row.size_bytes == assignment.totals["size_bytes"]
        assert row.n == len(row.correct) >= 500
        low, high = row.accuracy_interval
        assert low < row.accuracy == sum(row.correct) / row.n < high
        assert (row.origin.post_training or {}).get("rounding") == "adaptive"
    assert table.provenance["model_digest"] == found.rows[0].origin.model


def test_page_shows_the_files() -> None:
    page = (FOLDER.parent / "docs" / "assignment-zoo.md").read_text()
    assert table_of(ENTRIES) in page


@pytest.mark.data
@pytest.mark.skipif("MPSEARCH_DATA" not in os.environ, reason="MPSEARCH_DATA names no folder")
def test_network() -> None:
    """The published file is the network that the assignments name, and takes them."""
    network, seen, _ = load(ENTRIES["ds-cnn"])
    for share in ENTRIES["ds-cnn"].shares:
        assignment = assigned("ds-cnn", share)
        assert network.digest == assignment.model_digest
    quantized = mpsearch.apply(network, assignment, seen.take(32, 0), settings=PLAIN)
    assert quantized.assignment == assignment.layers


def test_what_it_says_without_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MPSEARCH_DATA", str(tmp_path))
    done = CliRunner().invoke(main, ["--networks", "ds-cnn", "--folder", str(tmp_path / "zoo")])
    assert done.exit_code == 1
    assert "set MPSEARCH_DATA to the folder that has it" in done.output


def test_other_budget(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """As the page has it: from the stored table alone, and why a stored one has its bits."""
    table, kept = str(FOLDER / "resnet20.csv"), str(tmp_path / "assignment.json")
    assert run(["solve", table, "--size", "120KB", "-o", kept]) == 0
    assert Assignment.load(kept).totals["size_bytes"] <= 120 * 1024
    stored = str(FOLDER / "ds-cnn-44.json")
    assert run(["explain", stored, "--profile", str(FOLDER / "ds-cnn.csv")]) == 0
    assert "depthwise_conv2d" in capsys.readouterr().out

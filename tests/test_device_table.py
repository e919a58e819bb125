"""`mpsearch device table`: latencies of layers from a device, here this machine."""

import json
import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

import integer_networks
import pytest

from mpsearch.cli import run
from mpsearch.commands.device_table import next_command
from mpsearch.data import Data
from mpsearch.device.measured_table import LATENCY, uniform_assignments, with_columns
from mpsearch.device.tabulating import Prediction, measure_table
from mpsearch.device.timing import Settings
from mpsearch.device.transport import DeviceError
from mpsearch.errors import InputError
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable, Row

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)")
W4, W8, MIXED = Choice(4, 4), Choice(8, 8), Choice(4, 8)


def _table(*rows: tuple[str, Choice, Mapping[str, float]]) -> LayerTable:
    names = dict.fromkeys(layer for layer, _, _ in rows)
    return LayerTable.from_rows(
        [Layer(name) for name in names],
        [Row(layer, choice, 1.0, 0.0, costs) for layer, choice, costs in rows],
    )


def test_every_row_is_measured_in_some_uniform_network() -> None:
    table = _table(("a", W4, {"s": 1}), ("a", W8, {"s": 2}), ("b", MIXED, {"s": 3}))
    found = uniform_assignments(table)
    assert found == {
        W4: {"a": W4, "b": MIXED}, MIXED: {"a": W8, "b": MIXED}, W8: {"a": W8, "b": MIXED}
    }  # fmt: skip
    floats = _table(("a", Choice(32, 32), {"s": 1}))
    with pytest.raises(InputError, match="not exported as integers"):
        uniform_assignments(floats)


def test_a_column_is_added_at_the_end_or_replaced() -> None:
    table = _table(("a", W4, {"latency_s": 9.0, "s": 1}), ("b", W8, {"latency_s": 9.0, "s": 2}))
    made = with_columns(table, {"latency_s": {("a", W4): 0.25, ("b", W8): 0.5}})
    assert made.columns == ("s", "latency_s")
    assert made.total({"a": W4, "b": W8}, "latency_s") == 0.75
    assert made.total({"a": W4, "b": W8}, "s") == 3


@pytest.mark.parametrize("times", [(0.004, 0.009), (1e-6 / 3, 1e-6 / 3), (1.23456e-05, 1.2346e-05)])
def test_the_next_command_has_an_answer(
    times: tuple[float, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    costs = [{LATENCY: value, "size_bytes": 8} for value in times]
    table = _table(*((name, choice, cost) for name in ("a", "b", "c")
                     for choice, cost in zip((W4, W8), costs, strict=True)))  # fmt: skip
    for path in ("profile.csv", "my table.csv"):
        table.write_csv(path)
        program, *words = shlex.split(next_command(table, path, LATENCY))
        assert program == "mpsearch"
        assert run(words) == 0


def test_the_ratio_is_predicted_over_measured() -> None:
    assert Prediction("w8a8", 0.9, 1.2).ratio == pytest.approx(0.75)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model, inputs = integer_networks.build("pools", 8)
    network = Network.from_module(model, inputs)
    save(model, "model.pt", inputs, {"x0": inputs[0]})
    names = [layer.name for layer in network.layers]
    size: Mapping[str, float] = {"size_bytes": 8}
    _table(*((name, choice, size) for name in names for choice in (W4, W8))).write_csv(
        "profile.csv"
    )
    return tmp_path


@needs_cc
def test_the_table_gets_a_latency_that_solve_can_limit(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Assignment({"conv": W8, "head": W4}).save("assignment.json")
    words = ["--host", "local", "--rounds", "2", "--repeat", "20"]
    assert run(["device", "table", "model.pt", *words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    table = LayerTable.read_csv("profile.csv")
    assert table.columns == ("size_bytes", "latency_s")
    latency = table.column("latency_s")
    assert (latency > 0).all()
    totals = {one["name"]: one for one in document["totals"]}
    assert totals.keys() == {"w4a4", "w8a8", "assignment"}
    # the assignment's prediction is put together from the two uniform networks' layers
    mixed = table.total({"conv": W8, "head": W4}, "latency_s")
    assert totals["assignment"]["predicted_s"] == mixed
    assert all(one["measured_s"] > 0 for one in totals.values())
    assert run(["solve", "--limit", "latency_s=1s", "-o", "a.json"]) == 0
    assert run(["solve", "--limit", "latency_s=1ns", "-o", "b.json"]) == 1


def test_a_table_of_another_model_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _table(("conv", W8, {"s": 1}), ("other", W8, {"s": 1})).write_csv("profile.csv")
    before = Path("profile.csv").read_text()
    assert run(["device", "table", "model.pt", "--host", "local"]) == 2
    assert "differ in layer 'other'" in capsys.readouterr().err
    assert Path("profile.csv").read_text() == before


@needs_cc
def test_a_device_that_throttles_meanwhile_writes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vcgencmd that tells of throttling from its second call on."""
    tools = folder / "tools"
    tools.mkdir()
    command = tools / "vcgencmd"
    command.write_text(
        f"#!/bin/sh\n[ -e {folder}/seen ] && echo throttled=0x4 || echo throttled=0x0\n"
        f": > {folder}/seen\n"
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    model, inputs = integer_networks.build("pools", 8)
    network = Network.from_module(model, inputs)
    table = LayerTable.read_csv("profile.csv")
    with pytest.raises(DeviceError, match=r"did not keep its speed: the device throttled"):
        measure_table(network, Data("test", inputs, None), table, "local", Settings(repeat=5), 1)


@needs_cc
def test_an_emulator_gives_no_latency(folder: Path) -> None:
    model, inputs = integer_networks.build("pools", 8)
    network = Network.from_module(model, inputs)
    table = LayerTable.read_csv("profile.csv")
    settings = Settings(repeat=5, emulated=True)
    with pytest.raises(InputError, match="refused as device latency"):
        measure_table(network, Data("test", inputs, None), table, "local", settings, 1)

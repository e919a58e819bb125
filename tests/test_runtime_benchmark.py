"""benchmarks/runtime.py measures what it says: processes, rounds, and every candidate."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
pytest.importorskip("ai_edge_litert", reason="the package ai-edge-litert is not installed")

import click
import runtime
from runtime_litert import PEERS as LITERT
from runtime_peers import PEERS
from runtime_subjects import load_subject

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)")


def _spawn(folder: Path) -> Path:
    source = Path(runtime.__file__).with_name("spawn.c")
    subprocess.run(["cc", "-Wall", "-Werror", "-o", folder / "spawn", source], check=True)
    return folder / "spawn"


@needs_cc
def test_a_process_is_measured_alone(tmp_path: Path) -> None:
    """A child that sleeps 50 ms takes that long; 64 MB that it touches are seen, ours are not."""
    touch = "import time; time.sleep(0.05); x = bytearray(2**26); x[::4096] = b'1' * 2**14"
    commands = {"large": [sys.executable, "-c", touch], "small": ["true"]}
    times, peaks = runtime.processes(commands, _spawn(tmp_path), rounds=3)
    assert len(times["large"]) == len(peaks["small"]) == 3
    assert min(times["large"]) > 50 > min(times["small"]) > 0
    assert min(peaks["large"]) > 65_000
    assert max(peaks["small"]) < 10_000  # this process has torch and takes 200,000


@needs_cc
def test_a_process_that_fails_stops_the_benchmark(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="broken left with exit code 3"):
        runtime.processes({"broken": ["sh", "-c", "exit 3"]}, _spawn(tmp_path), rounds=1)


def test_rounds_are_interleaved_and_ratios_taken_within_them() -> None:
    calls: list[str] = []
    values = {"a": iter([99.0, 2.0, 8.0, 30.0]), "b": iter([99.0, 1.0, 2.0, 3.0])}

    def measure(name: str) -> float:
        calls.append(name)
        return next(values[name])

    found = runtime.interleaved({"a": lambda: measure("a"), "b": lambda: measure("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert found == {"a": [2.0, 8.0, 30.0], "b": [1.0, 2.0, 3.0]}
    assert runtime.ratio(found, "a", "b") == 4.0  # not 8 / 2 by chance: of 2, 4 and 10


@pytest.mark.slow
@needs_cc
@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_every_candidate_is_measured(tmp_path: Path) -> None:
    subject = load_subject("tinym2net-battlefield")
    found = runtime.measure(subject, tmp_path, {"O1": "-O1"}, rounds=1, repeat=2)
    names = ["C W8A8 O1", "C W4A8 O1", "C MIXED O1"]
    assert list(found["steady"])[:3] == list(found["sizes"]) == names
    assert len(found["steady"]) == 3 + len(PEERS) + len(LITERT)
    assert found["int8_peer"] in found["steady"]
    assert found["steady"][found["int8_peer"]]["of_int8_peer"] == 1.0
    assert list(found["processes"])[:3] == names
    assert len(found["processes"]) == 5 + len(LITERT)
    assert found["processes"]["C W8A8 O1"]["times_longer"] == 1.0
    assert all(row["ms"] > 0 and row["peak_kb"] > 500 for row in found["processes"].values())
    size = found["sizes"]["C W8A8 O1"]
    assert size["above_weights"] == size["program"] - size["weights"] > 0
    assert size["arena_peak"] >= size["arena_lower_bound"] > 0

"""`mpsearch solve`, `front` and `solvers` as a user calls them: output, files, exit codes."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tables import HAND

from mpsearch.cli import run
from mpsearch.pareto.files import read_json
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice


def out_of(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_the_default_table_and_the_printed_answer(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["solve", "--size", "7KB", "--bops-limit", "120K", "-o", "assignment.json"]) == 0
    out = out_of(capsys)
    assert [line.split() for line in out.splitlines() if line.strip().startswith("conv1")] == [
        ["conv1", "w8a8", "0.1", "2.0", "KB", "64.000", "K", "28.6", "%"]
    ]
    assert "optimal, proven" in out
    size = next(line for line in out.splitlines() if "size_bytes" in line)
    assert size.split() == ["size_bytes", "6.8", "KB", "7.0", "KB", "168", "B"]
    saved = Assignment.load("assignment.json")
    assert saved.layers == {"conv1": Choice(8, 8), "conv2": Choice(4, 4), "fc": Choice(8, 8)}
    assert saved.totals == {"size_bytes": 7000, "bops": 102400}
    assert saved.objective == 0.375


@pytest.mark.parametrize("solver", ["auto", "dp", "lagrangian", "pulp", "ortools"])
def test_json(folder: Path, capsys: pytest.CaptureFixture[str], solver: str) -> None:
    assert run(["solve", "profile.csv", "--size", "50%", "--solver", solver, "--json"]) == 0
    document = json.loads(out_of(capsys))
    assert document["status"] == "optimal"
    assert document["totals"]["size_bytes"] == 5500 == document["limits"]["size_bytes"]


def test_relative_limits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`w8` and `w8a8` are what that choice takes everywhere; a percent is of the largest."""
    for size, bops, expected in (("w8", "w8a8", [11000, 198400]), ("w4", "75%", [5500, 148800])):
        assert run(["solve", "--size", size, "--bops-limit", bops, "--json"]) == 0
        assert list(json.loads(out_of(capsys))["limits"].values()) == expected


def test_pins_and_excludes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["solve", "--pin", "fc=w4a4", "--exclude", "conv1=w8a8", "--json"]
    assert run(call) == 0
    bits = {k: v["w_bits"] for k, v in json.loads(out_of(capsys))["layers"].items()}
    assert bits == {"conv1": 4, "conv2": 8, "fc": 4}


def test_infeasible(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["solve", "--size", "5KB", "--bops-limit", "60K", "-o", "a.json"]) == 1
    err = capsys.readouterr().err
    assert "infeasible" in err
    assert "size_bytes: limit 5.0 KB (5120 B); smallest feasible 5.38 KB (5500 B) alone" in err
    assert "5500 B) with the other limits" in err
    assert not Path("a.json").exists()
    assert run(["solve", "--size", "5KB", "--json"]) == 1
    document = json.loads(out_of(capsys))
    assert document["smallest_feasible"]["size_bytes"]["alone"] == 5500


BAD_CALLS = {
    "no unit": (["--size", "145"], "did you mean 145KB"),
    "bits": (["--size", "145kbit"], "got the unit 'kbit' in the size"),
    "negative size": (["--size", "-1KB"], "got the size '-1KB'"),
    "exponent": (["--size", "1e9GB"], "got the size '1e9GB'"),
    "no size": (["--size", ""], "got the size ''"),
    "no such choice": (["--size", "w2"], "no choice with 2-bit weights; it has w4a4, w8a8"),
    "unknown column": (["--limit", "latency_s=0.1"], "its columns: size_bytes, bops"),
    "limit on omega": (["--limit", "omega=1"], "omega is minimised"),
    "limit form": (["--limit", "bops"], "expected COLUMN=VALUE"),
    "limited twice": (
        ["--size", "9KB", "--limit", "size_bytes=8KB"],
        "size_bytes is limited twice",
    ),
    "pin form": (["--pin", "conv1"], "expected LAYER=CHOICE"),
    "pin lacks": (["--pin", "conv1=w2a2"], "layer 'conv1' has no choice w2a2; it has w4a4, w8a8"),
    "pin unknown": (["--pin", "conv9=w4a4"], "no layer 'conv9'; did you mean"),
    "pinned twice": (["--pin", "fc=w4a4", "--pin", "fc=w8a8"], "--pin for layer 'fc' twice: w4a4"),
    "exclude form": (["--exclude", "w4"], "expected the form w4a8"),
    "solver": (["--solver", "magic"], "unknown solver 'magic'; installed: auto, brute-force"),
    "option form": (["--solver-option", "x"], "expected KEY=VALUE"),
    "time": (["--time-limit", "-1"], "got the time limit -1.0"),
    "click": (["--time-limit", "soon"], "'soon' is not a valid float"),
    "missing": (["none.csv"], "there is no table none.csv"),
    "folder for output": (["-o", "no/such/a.json"], "No such file or directory"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls(folder: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    """Exit code 2, one or two lines, no traceback, nothing written."""
    arguments, words = BAD_CALLS[case]
    before = sorted(os.listdir())
    assert run(["solve", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err
    assert sorted(os.listdir()) == before


def test_a_bad_table_names_its_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("profile.csv").write_text(HAND.replace("0.125", "nan"))
    assert run(["solve"]) == 2
    assert "profile.csv, line 6: omega of layer 'fc' is nan" in capsys.readouterr().err


def test_a_missing_choice_says_what_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("profile.csv").write_text(HAND.replace("fc,4,4,0.125,500,1600\n", ""))
    assert run(["solve"]) == 2
    assert "layer 'fc' has no row for w4a4" in capsys.readouterr().err
    assert run(["solve", "--exclude", "fc=w4a4"]) == 0


@pytest.mark.parametrize("command", ["solve", "front"])
def test_a_full_disk_leaves_no_half_written_file(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    target = folder / "out.csv"
    target.write_text("as it was")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run([command, "-o", "out.csv"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert target.read_text() == "as it was"
    assert sorted(os.listdir()) == ["out.csv", "profile.csv"]


def test_front_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["front", "-o", "front.csv", "--plot", "front.png", "--points", "3"]) == 0
    out = out_of(capsys)
    assert "6 non-dominated points, 3 of them shown; exact" in out
    found = read_json("front.json")
    assert found.totals["size_bytes"][0] == 5500
    assert len(Path("front.csv").read_text().splitlines()) == 1 + len(found)
    assert Path("front.png").stat().st_size > 5000
    assert run(["front", "--bops-limit", "100K", "--json"]) == 0
    document: dict[str, Any] = json.loads(out_of(capsys))
    assert max(document["totals"]["bops"]) <= 100_000
    assert run(["front", "--size", "1KB"]) == 1
    assert run(["front", "--points", "1"]) == 2
    assert run(["front", "--resource", "energy_j"]) == 2
    assert run(["front", "-o", "front.json"]) == 2
    assert run(["front", "--plot", "front.xyz"]) == 2


def test_solvers_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["solvers", "--json"]) == 0
    document = json.loads(out_of(capsys))
    assert {"dp", "lagrangian", "ortools", "pulp"} <= {row["name"] for row in document["solvers"]}
    assert document["auto"].startswith("lagrangian")
    assert run(["solvers"]) == 0
    assert "auto" in out_of(capsys)


@pytest.mark.parametrize("command", ["solve", "front", "solvers"])
def test_help_has_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run([command, "--help"]) == 0
    assert f"mpsearch {command}" in out_of(capsys).split("Example")[1]

"""The command line as a whole: quick, quiet about its insides, right exit codes."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import networks
import pytest
import torch

from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.files import whole as files
from mpsearch.graph.network_file import save

HEAVY = ("torch", "pandas", "matplotlib", "ortools", "pulp", "tensorflow", "librosa", "scipy")


def _imported_by(arguments: str, cwd: Path) -> set[str]:
    code = (
        "import sys; from mpsearch.cli import run; run(sys.argv[1:]); "
        "print('IMPORTED', *sorted(m for m in sys.modules if '.' not in m))"
    )
    command = [sys.executable, "-c", code, *arguments.split()]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    return set(done.stdout.split("IMPORTED")[1].split())


@pytest.mark.parametrize(
    "arguments", ["--help", "solve --help", "solve --size 80%", "gate --help", "solvers"]
)
def test_what_needs_no_heavy_package_imports_none(arguments: str, tmp_path: Path) -> None:
    rows = [f"l{i},{b},{b},{1 / b},{100 * b},{1000 * b * b}" for i in range(3) for b in (4, 8)]
    header = "layer,w_bits,a_bits,omega,size_bytes,bops"
    (tmp_path / "profile.csv").write_text("\n".join([header, *rows]) + "\n")
    assert not _imported_by(arguments, tmp_path) & set(HEAVY)


def test_no_help_imports_a_heavy_package(tmp_path: Path) -> None:
    """All in one process: what one imports stays imported for the next."""
    code = (
        "import sys; from mpsearch.cli import COMMANDS, run\n"
        "for name in COMMANDS: run([name, '--help'])\n"
        "print('IMPORTED', *sorted(m for m in sys.modules if '.' not in m))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "Usage: " in done.stdout
    assert not set(done.stdout.split("IMPORTED")[1].split()) & set(HEAVY)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A saved network with its sample, in the working directory."""
    monkeypatch.chdir(tmp_path)
    module, inputs, labels = networks.build("two-inputs", samples=24)
    save(module, "model.pt", inputs, {"x0": inputs[0], "x1": inputs[1], "y": labels})
    return "model.pt"


def test_the_two_commands_of_the_title_and_the_loop_after_them(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (
        "profile model.pt",
        "solve --size 145KB --bops-limit 1.2G",
        "solve --size 80%",
        "apply model.pt",
        "evaluate model.pt --assignment assignment.json --uniform w8a8",
    ):
        assert run(command.split()) == 0, capsys.readouterr().err
    first = capsys.readouterr().out
    assert "not unseen data" in first
    torch.save({}, "junk")
    sample = {"x0": torch.randn(30, 1, 6, 8), "x1": torch.randn(30, 7)}
    from safetensors.torch import save_file

    save_file({**sample, "y": torch.arange(30) % 4}, "test.safetensors")
    for command in (
        "evaluate model.pt --assignment assignment.json --data test.safetensors -o a.json",
        "evaluate quantized.pt --fp32 model.pt --data test.safetensors -o b.json",
    ):
        assert run(command.split()) == 0, capsys.readouterr().err
    from mpsearch.evaluation.evaluation import load_evaluations

    direct, stored = load_evaluations("a.json"), load_evaluations("b.json")
    assert direct.rows[0] == stored.rows[0]
    assert direct.rows[1].correct == stored.rows[1].correct
    assert direct.rows[1].loss == stored.rows[1].loss
    assert direct.rows[1].size_bytes == stored.rows[1].size_bytes


def test_convert_makes_a_file_that_profiles_without_more(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module, inputs, labels = networks.build("residual", samples=20)
    torch.save(module.state_dict(), "weights.pt")
    import numpy as np

    np.savez("data.npz", image=inputs[0].numpy(), y=labels.numpy())
    np.savez("data0.npz", x0=inputs[0].numpy(), y=labels.numpy())
    words = "convert weights.pt --architecture networks:Residual --data data0.npz -o safe.pt"
    assert run(words.split()) == 0, capsys.readouterr().err
    assert run("profile safe.pt --choices w4a8,w8a8 -o p.csv".split()) == 0
    assert run("evaluate safe.pt --data data.npz".split()) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("profile nothing.pt", "nothing.pt: no such file"),
        ("profile model.pt --metric nothing", "unknown metric 'nothing'; installed: accuracy"),
        ("profile model.pt --bits 5x", "expected numbers such as 4,8"),
        ("profile model.pt --bits 1", "expected 2 to 8, 16"),
        ("profile model.pt --data nothing", "no data 'nothing'"),
        ("profile model.pt --data image-audio", "MPSEARCH_DATA|without a split"),
        ("profile model.pt -o nowhere/profile.csv", "No such file or directory"),
        ("profile model.pt --architecture networks:Residual", "needs no --architecture"),
        ("profile model.pt --input-shape 3by3", "expected sizes such as 3x32x32"),
        ("apply model.pt nothing.json", "nothing.json"),
        ("evaluate model.pt --uniform w9a9", "expected 2 to 8, 16"),
        ("evaluate model.pt --data model.pt", "other things than arrays"),
        ("evaluate model.pt --fp32 model.pt", "goes with a quantized"),
        ("convert model.pt -o x.pt", "an mpsearch file already"),
        ("solve --size 145KB", "profile.csv"),
        ("nonsense", "no such command 'nonsense'"),
        ("profile", "Missing argument"),
    ],
)
def test_bad_calls_are_two_lines_at_most_and_exit_code_2(
    model: str, arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    before = sorted(os.listdir())
    assert run(arguments.split()) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if not line.startswith(("Usage", "Try"))]
    assert len([line for line in lines if line]) <= 2
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("command", ["profile model.pt", "apply model.pt a.json"])
def test_a_full_disk_is_one_line_and_leaves_no_half_written_file(
    model: str,
    command: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mpsearch.tables.assignment import Assignment
    from mpsearch.tables.choice import Choice

    names = ["conv", "depthwise", "pointwise", "dense", "head"]
    Assignment.uniform(names, Choice(4, 4)).save("a.json")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert run(command.split()) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not {"profile.csv", "profile.json", "quantized.pt"} & set(os.listdir())
    assert not [
        name for name in os.listdir() if name.endswith((".csv", ".json")) and name != "a.json"
    ]


def test_devices_and_folders_are_not_replaced(tmp_path: Path) -> None:
    for target in (Path(os.devnull), tmp_path):
        with pytest.raises(InputError, match="not a regular file"):
            files.write_atomic(target, "text")
    link, real = tmp_path / "link", tmp_path / "real"
    link.symlink_to(real)
    files.write_atomic(link, "text")
    assert link.is_symlink()
    assert real.read_text() == "text"


def test_an_error_inside_is_called_one_and_shows_its_traceback_on_demand(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mpsearch.profiling.profile

    def broken(*args: object) -> None:
        raise RuntimeError("broken\nin two lines")

    monkeypatch.setattr(mpsearch.profiling.profile, "profile", broken)
    assert run(["profile", model]) == 3
    assert "internal error: RuntimeError: broken in two lines" in capsys.readouterr().err
    with pytest.raises(RuntimeError):
        run(["profile", model, "--debug"])


def test_ctrl_c_is_quiet(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mpsearch.profiling.profile

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mpsearch.profiling.profile, "profile", interrupted)
    assert run(["profile", model]) == 130
    assert capsys.readouterr().err.strip() == "mpsearch: interrupted"

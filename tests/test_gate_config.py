"""The gate's conditions in pyproject.toml and mpsearch.toml: found, read exactly, overridden."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_gate import CHOSEN, FP32, MODEL, ROW, TABLE, TOTALS, evaluations

from mpsearch.cli import run
from mpsearch.evaluation.evaluation import save_evaluations
from mpsearch.gating.conditions import find_config
from mpsearch.tables.assignment import Assignment


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a run in it."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    Path("profile.csv").write_text(TABLE)
    Assignment(CHOSEN, totals=TOTALS, model_digest=MODEL).save("assignment.json")
    save_evaluations(evaluations(FP32, ROW), "evaluation.json")
    return tmp_path


def judged(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = run(["gate", *words, "--json"])
    out = capsys.readouterr().out
    return code, json.loads(out) if out else {}


PROJECT = """
[project]
name = "mine"
[tool.mpsearch.gate]
max-size = "1448B"
max-drop = 2.5
confidence = "90%"
"""


def test_conditions_from_the_file_and_options_win(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pyproject.toml").write_text(PROJECT)
    code, document = judged(capsys)
    assert code == 0
    assert document["config"] == str(folder / "pyproject.toml")
    assert [(c["quantity"], c["limit"]) for c in document["conditions"]] == [
        ("size_bytes", 1448),
        ("drop", 2.5),
    ]
    assert document["confidence"] == 0.9
    code, document = judged(capsys, "--max-size", "1KB", "--confidence", "0.99")
    assert code == 1
    assert [c["limit"] for c in document["conditions"]] == [1024, 2.5]
    assert document["confidence"] == 0.99
    run(["gate"])
    assert f"conditions from {folder / 'pyproject.toml'}" in capsys.readouterr().out


def test_the_nearest_file_counts_and_mpsearch_toml_comes_first(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "mpsearch.toml").write_text('[gate]\nmax-bops = "22400"\n')
    assert judged(capsys)[1]["config"] == str(folder / "mpsearch.toml")
    Path("pyproject.toml").write_text("[tool.mpsearch]\n")  # no table for the gate
    assert judged(capsys)[1]["config"] == str(folder / "mpsearch.toml")
    Path("pyproject.toml").write_text('[tool.mpsearch.gate]\nmin-accuracy = "85%"\n')
    assert judged(capsys)[1]["config"] == "pyproject.toml"
    assert judged(capsys, "--config", str(folder / "pyproject.toml"))[1]["config"] == str(
        folder / "pyproject.toml"
    )


def test_the_search_ends_at_the_root_of_the_repository(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mpsearch.toml").write_text('[gate]\nmax-bops = "22400"\n')
    Path(".git").mkdir()
    assert run(["gate"]) == 2
    assert "no condition given" in capsys.readouterr().err


def test_numbers_are_read_as_they_are_written(folder: Path) -> None:
    """0.1 as a double is a little more than 1/10."""
    Path("mpsearch.toml").write_text("[gate]\nmax-drop = 0.1\nmin-accuracy = 88.1\n")
    assert find_config().values == {"max-drop": "0.1", "min-accuracy": "88.1"}


def test_paths_are_relative_to_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["gate", "--update-baseline", str(folder / "main.json")])
    (folder / "mpsearch.toml").write_text(
        '[gate]\nbaseline = "main.json"\nmax-size-growth = "0%"\nprofile = "run/profile.csv"\n'
    )
    code, document = judged(capsys)
    assert (code, document["baseline"]) == (0, str(folder / "main.json"))


@pytest.mark.parametrize(("text", "policy"), [("strict", "strict"), ("lenient", "lenient")])
def test_flags(folder: Path, capsys: pytest.CaptureFixture[str], text: str, policy: str) -> None:
    Path("mpsearch.toml").write_text(f'[gate]\nmax-drop = "2"\n{text} = true\n')
    code, document = judged(capsys)
    assert document["policy"] == policy
    assert code == (policy == "strict")
    assert judged(capsys, "--strict")[0] == 1
    assert judged(capsys, "--lenient")[0] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_size = '1KB'", "did you mean 'max-size'?"),
        ("max-sise = '1KB'", "did you mean 'max-size'?"),
        ("maxdrop = 1", "did you mean 'max-drop'?"),
        ("junit = 'a.xml'", "expected one of max-size"),
        ('"a\\u001b[31m" = 1', "'a\\x1b[31m'"),
        ("max-size = 145", "has no unit"),
        ("max-size = [1]", "expected a text"),
        ("min-accuracy = 0.88", "write 88% or 88"),
        ("max-drop = true", "expected a text"),
        ("max-drop = nan", "got the drop 'NaN'"),
        ("max-drop = inf", "got the drop 'Infinity'"),
        ("max-drop = -1", "got the drop '-1'"),
        ("strict = 'yes'", "expected true or false"),
        ("strict = true\nlenient = true", "got strict and lenient"),
        ("baseline = 3", "expected a text"),
        ("baseline = 'none.json'\nmax-size-growth='1%'", "there is no baseline none.json"),
        ("latency-mode = 'warm'", "expected steady, process, cold"),
        ("max-size = ", "is not a TOML file"),
        ("max-size = '1KB'\nmax-size = '2KB'", "is not a TOML file"),
    ],
)
def test_what_a_file_must_not_hold(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    Path("mpsearch.toml").write_text(f"[gate]\n{text}\n")
    assert run(["gate"]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) <= 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "none.toml"], "there is no file none.toml"),
        (["--config", "empty.toml"], "has no table [gate] or [tool.mpsearch.gate]"),
        (["--config", "flat.toml"], "is no table"),
        (["--config", "."], "it is a folder"),
    ],
)
def test_a_named_file_must_be_one(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    Path("empty.toml").write_text("")
    Path("flat.toml").write_text("gate = 1")
    assert run(["gate", *words]) == 2
    assert message in capsys.readouterr().err


def test_old_names_of_keys_and_options_work_and_say_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--network` is a float model elsewhere, and `--device` where to compute."""
    Path("assignment.json").unlink()
    Path("mpsearch.toml").write_text('[gate]\nnetwork = "FP32"\nmax-size = "6000B"\n')
    assert run(["gate"]) == 0
    said = capsys.readouterr().err
    assert said == "note: mpsearch.toml: network is now row; the old key works until 0.3\n"
    assert run(["gate", "--network", "FP32"]) == 0
    assert "note: --network is now --row; the old spelling works until 0.3" in (
        capsys.readouterr().err
    )
    Path("mpsearch.toml").write_text('[gate]\nrow = "FP32"\nmax-size = "6000B"\n')
    assert run(["gate"]) == 0
    assert capsys.readouterr().err == ""
    Path("mpsearch.toml").write_text('[gate]\nrow = "FP32"\nnetwork = "FP32"\n')
    assert run(["gate"]) == 2
    assert "has row and network, its old name" in capsys.readouterr().err
    Path("mpsearch.toml").write_text('[gate]\ndevice = "d.json"\nmax-latency = "1s"\n')
    assert run(["gate"]) == 2
    said = capsys.readouterr().err
    assert "device is now device-file" in said
    assert "there is no device profile d.json" in said

"""`doctor`, `--version --json` and completion: what a bug report and a shell are told."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from mpsearch.cli import cli, run
from mpsearch.commands import doctor
from mpsearch.commands.doctor import Package


def test_versions_are_those_of_the_installed_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["packages"]["numpy"] == version("numpy")
    assert {"torch", "pulp", "ortools", "pyhessian", "tensorflow"} <= set(document["packages"])
    assert "pytest" not in document["packages"]
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"mpsearch, version {document['mpsearch']}\n"


def test_versions_import_nothing_heavy() -> None:
    code = (
        "import sys; from mpsearch.cli import run; run(['--version', '--json']); "
        "sys.exit(bool({'torch', 'pandas', 'matplotlib', 'ortools', 'pulp'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_doctor_names_every_group_and_is_healthy_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    checks = {(check["group"], check["name"]): check for check in document["checks"]}
    assert checks["core", "torch"]["works"]
    assert checks["solvers", "dp"]["works"]
    assert checks["processors", "cpu"]["works"]
    assert all(check["install"] for check in checks.values()
               if check["group"] in ("core", "extras", "tools") and not check["works"])  # fmt: skip
    assert run(["doctor"]) == 0
    assert "ok      torch" in capsys.readouterr().out


def test_what_is_missing_comes_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = (
        Package("numpy", "", ">=99", "1.0", False),
        Package("click", "", ">=8", "8.5", True),
        Package("av", "video", ">=14", None, False),
        Package("librosa", "audio", ">=0.1", "0.2", True),
    )
    monkeypatch.setattr(doctor, "packages", lambda: known)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert run(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "MISSING numpy" in printed
    assert "1.0, needs >=99" in printed
    assert "get it: pip install 'numpy>=99'" in printed
    assert "get it: python -m pip install '.[video]'" in printed
    assert ".[audio]" not in printed
    assert "get it: apt-get install make" in printed


def test_a_package_that_is_too_old_or_missing_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = ["numpy>=999", "no-such-package>=1; extra == 'x'", "mpsearch[audio]; extra == 'x'",
              "pytest>=1; extra == 'dev'", "click>=1"]  # fmt: skip
    monkeypatch.setattr(doctor, "requires", lambda name: wanted)
    found = {package.name: package for package in doctor.packages()}
    assert list(found) == ["click", "numpy", "no-such-package"]
    assert not found["numpy"].fits
    assert found["click"].fits
    assert (found["no-such-package"].installed, found["no-such-package"].extra) == (None, "x")


def test_json_before_a_command_is_refused_and_no_command_shows_the_help() -> None:
    runner = CliRunner()
    wrong = runner.invoke(cli, ["--json", "solve"])
    assert wrong.exit_code == 2
    assert "--json stands after the command" in wrong.output
    alone = runner.invoke(cli, [])
    assert alone.exit_code == 2
    assert "Usage: " in alone.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mpsearch sol", {"plain,solve", "plain,solvers"}),
        ("mpsearch gate --max-latency", {"plain,--max-latency", "plain,--max-latency-growth"}),
        ("mpsearch gate --latency-mode s", {"plain,steady"}),
        ("mpsearch profile mod", {"file,mod"}),
        ("mpsearch gate --assignment a", {"file,a"}),
    ],
)
def test_shells_complete_commands_options_choices_and_files(
    words: str, expected: set[str], tmp_path: Path
) -> None:
    environment = {
        **os.environ, "_MPSEARCH_COMPLETE": "bash_complete", "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "mpsearch"], env=environment, capture_output=True, text=True
    )
    assert set(done.stdout.split()) == expected

"""The README's commands work as written, and every command has help with an example."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mpsearch.cli import COMMANDS, run

ROOT = Path(__file__).parent.parent
MPSEARCH = (sys.executable, "-m", "mpsearch")


def _blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def _commands(text: str) -> list[str]:
    lines = [
        line.split("#")[0].strip() for block in _blocks("sh", text) for line in block.split("\n")
    ]
    return [line for line in lines if line.startswith("mpsearch ")]


@pytest.mark.slow
def test_the_readmes_code_and_commands_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: starting torch for each command would take most of the time."""
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text()
    (python,) = _blocks("python", readme)
    with torch.random.fork_rng():
        exec(compile(python, "README.md", "exec"), {})
    random = np.random.default_rng(0)
    np.savez(
        "test.npz",
        x0=random.normal(size=(64, 3, 32, 32)).astype(np.float32),
        y=random.integers(0, 10, 64),
    )
    commands = _commands(readme)
    assert [c.split()[1] for c in commands][:2] == ["profile", "solve"]
    for command in commands:
        # the example network is untrained: its gate may say no, but nothing may go wrong
        allowed = (0, 1) if "gate" in command else (0,)
        assert run(shlex.split(command)[1:]) in allowed, f"{command}\n{capsys.readouterr()}"
    for name in ("profile.csv", "profile.json", "assignment.json", "front.csv", "front.json",
                 "front.png", "quantized.pt", "evaluation.json", "report.html"):  # fmt: skip
        assert (tmp_path / name).stat().st_size > 0


def test_the_make_targets_of_the_readme_exist_and_ci_uses_them() -> None:
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", readme):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    assert "make test" in readme
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_documents_that_the_readme_names_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    from click.testing import CliRunner

    from mpsearch.cli import cli

    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert re.search(r"Examples?:\n +mpsearch " + name, result.output), result.output


def test_the_hand_written_table_of_the_formats_page_solves(tmp_path: Path) -> None:
    (table,) = _blocks("csv", (ROOT / "docs" / "formats.md").read_text())
    (tmp_path / "profile.csv").write_text(table)
    command = [*MPSEARCH, "solve", "--size", "80KB"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "optimal, proven" in done.stdout

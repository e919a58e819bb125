"""The README's commands work as written, and every command has help with an example."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from documentation import blocks, commands

import mpsearch
from mpsearch.cli import COMMANDS, run

ROOT = Path(__file__).parent.parent
MPSEARCH = (sys.executable, "-m", "mpsearch")


def _blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.slow
def test_the_readmes_code_and_commands_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder that holds only what README made; in this process, to start torch once."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    printed = {}
    for block in blocks((ROOT / "README.md").read_text()):
        if block.language == "python":
            with torch.random.fork_rng():
                exec(compile(block.text, "README.md", "exec"), names)
        for command in commands(block) if block.language == "sh" else ():
            if command.startswith("mpsearch "):
                code = run(shlex.split(command)[1:])
                out, err = capsys.readouterr()
                assert code == 0, f"{command}\n{out}\n{err}"
                assert "old spelling" not in err, command
                printed[command] = out
    (answer,) = (out for command, out in printed.items() if "--size 4.5KB --test" in command)
    assert answer.splitlines()[-1].startswith("model.pt in 4.5 of 4.5 KB: ")
    shown = _blocks("text", (ROOT / "README.md").read_text())[0]
    rows = [re.split(r" {2,}", line.strip()) for line in shown.splitlines()]
    found = {re.split(r" {2,}", line.strip())[0]: line for line in answer.splitlines()}
    for name, *cells in rows[2:]:  # accuracies are those of one machine's float sums; bytes are not
        assert cells[-1] in found[name]
    for name in ("m4/c/Makefile", "model-run/report.html", "network/Makefile", "tuned.pt"):
        assert (tmp_path / name).stat().st_size > 0


def test_the_readme_is_one_screen_to_read() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.split()) <= 500
    code = " ".join(_blocks("python", readme))
    for name in re.findall(r"mpsearch\.(\w+)", code):
        assert hasattr(mpsearch, name)


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


def test_the_hand_written_tables_of_the_formats_page_solve(tmp_path: Path) -> None:
    for table in _blocks("csv", (ROOT / "docs" / "formats.md").read_text()):
        (tmp_path / "profile.csv").write_text(table)
        command = [*MPSEARCH, "solve", "--size", "80KB"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert "optimal, proven" in done.stdout

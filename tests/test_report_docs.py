"""The commands of docs/report.md run as written."""

import re
import shlex
from pathlib import Path

import pytest
from report_runs import make_run

from mpsearch.cli import run

DOCS = Path(__file__).parent.parent / "docs"


def test_the_commands_run_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DOCS / "report.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path)
    for name in ("sqnr", "empirical", "hessian"):
        Path("runs", name).mkdir(parents=True)
        make_run(Path("runs", name))
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "mpsearch"
        assert run(words[1:]) == 0, command
    written = {"report.html", "report.md", "report.json", "summary.md", "front.pdf", "compare.html"}
    assert written <= {path.name for path in tmp_path.iterdir()}
    assert "(figures/front.svg)" in Path("summary.md").read_text()


def test_the_pictures_are_there_and_small() -> None:
    text = (DOCS / "report.md").read_text()
    named = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(named) >= 5
    for name in named:
        assert 1_000 < (DOCS / name).stat().st_size < 150_000

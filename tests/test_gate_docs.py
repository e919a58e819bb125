"""docs/gate.md: its commands run in order, its Python prints what it says, its figures hold."""

import contextlib
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_gate import CHOSEN, TABLE
from test_gate_action import INPUTS
from test_gate_statistics import coverages, wald
from torch import nn

import mpsearch
from mpsearch.cli import run
from mpsearch.gating.ci_formats import picture
from mpsearch.gating.conditions import CONDITIONS, KEYS, find_config
from mpsearch.gating.evidence import Evidence
from mpsearch.statistics import drop_interval
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.table import LayerTable

TEXT = (Path(__file__).parent.parent / "docs" / "gate.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that is right, and its data."""
    made = tmp_path_factory.mktemp("docs")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    x = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
    y = network(torch.from_numpy(x)).argmax(dim=1).numpy()
    sample = {"x0": torch.from_numpy(x[:100]), "y": torch.from_numpy(y[:100])}
    mpsearch.save(network, made / "model.pt", (torch.zeros(1, 64),), sample=sample)
    np.savez(made / "test.npz", x0=x[100:], y=y[100:])
    return made


def test_the_commands_run_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    (gitlab,) = re.findall(r"^    - (mpsearch .*)$", TEXT, flags=re.MULTILINE)
    joined = [block.replace("\\\n", " ") for block in blocks("sh")]
    lines = [line for block in joined for line in block.splitlines()] + [gitlab]
    assert len(lines) > 8
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "mpsearch"
        assert run(words[1:]) == 0, f"{line}\n{capsys.readouterr()}"
    for name in ("junit.xml", "quality.json", "main.json"):
        assert Path(name).stat().st_size > 0
    (shown,) = map(json.loads, blocks("json"))
    written = json.loads(Path("main.json").read_text())
    assert list(shown) == list(written)
    for key in ("digests", "totals", "accuracy"):
        assert list(shown[key]) == list(written[key])
    (code,) = [block for block in blocks("python") if "assert_budget" in block]
    scope: dict[str, Any] = {}
    exec(compile(code, "docs/gate.md", "exec"), scope)
    scope["test_the_network_keeps_its_budget"]()


def test_the_example_prints_what_the_page_shows() -> None:
    (code,) = [block for block in blocks("python") if "drop_interval" in block]
    (shown,) = [block for block in blocks("text") if block.startswith("between")]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "docs/gate.md", "exec"), {})
    assert out.getvalue() == shown


@pytest.mark.parametrize("samples", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_the_coverages_are_those_of_the_enumeration(samples: int) -> None:
    tango, others = coverages(drop_interval, samples), coverages(wald, samples)
    figures = (min(tango), sum(tango) / len(tango), min(others))
    row = " | ".join([str(samples), *(f"{100 * value:.1f} %" for value in figures)])
    assert f"| {row} |" in TEXT
    assert f"at {len(tango)} pairs of true rates" in TEXT


def test_the_picture_is_what_the_gate_draws(tmp_path: Path) -> None:
    (tmp_path / "profile.csv").write_text(TABLE)
    table = LayerTable.read_csv(tmp_path / "profile.csv")
    drawn = picture(Evidence(assignment=Assignment(CHOSEN), table=table))
    assert drawn is not None
    (shown,) = [block for block in blocks("text") if "● judged" in block]
    assert shown.splitlines() == drawn


def test_the_file_of_the_page_is_read(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "pyproject.toml").write_text(text)
    config = find_config(folder=tmp_path)
    assert config.get("max-drop") == "1.0"
    assert config.get("strict") is False
    assert len(config.values) == 8


def test_every_condition_is_on_the_page_and_every_key_in_it_exists() -> None:
    table = TEXT[TEXT.index("## Conditions") : TEXT.index("### In a file")]
    for key in re.findall(r"`((?:max|min)-[\w-]+)`", table):
        assert key in KEYS
    for condition in CONDITIONS:
        assert f"`{condition.key}`" in table


def test_the_workflows_are_yaml_and_use_inputs_that_exist() -> None:
    (inputs,) = re.findall(r"uses: OWNER/mpsearch@v.*\n        with:\n((?: {10}.*\n)+)", TEXT)
    names = re.findall(r"^ {10}([\w-]+):", inputs, flags=re.MULTILINE)
    assert len(names) == 4
    assert set(names) <= set(INPUTS)
    yaml: Any = pytest.importorskip("yaml")
    for block in blocks("yaml"):
        assert yaml.safe_load(block)

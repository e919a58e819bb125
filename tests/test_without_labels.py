"""Networks whose data have no labels, by command: from profile to gate and report."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_other_tasks import Autoencoder, Detector
from torch import nn

from mpsearch.cli import run
from mpsearch.graph.network_file import save
from mpsearch.reports.gather import gather
from mpsearch.reports.run_folder import read_run
from mpsearch.reports.sections import sections_of
from mpsearch.reports.style import Table
from mpsearch.testing import assert_budget

N = 120
QUANTIZED = ("evaluate", "quantized.pt", "--fp32", "model.pt", "--data", "test.npz")
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "classes": lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5)),
    "numbers": Autoencoder,
    "outputs": Detector,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each network: model.pt, test.npz without labels, a table, an assignment that
    takes few bits, what `apply` made of it."""
    root = tmp_path_factory.mktemp("unlabelled")
    with pytest.MonkeyPatch.context() as patch:
        for name, build in NETWORKS.items():
            folder = root / name
            folder.mkdir()
            patch.chdir(folder)
            with torch.random.fork_rng():
                torch.manual_seed(4)
                model, x = build().eval(), torch.randn(N + 40, 3, 4)
            save(model, "model.pt", (x[:1],), {"x0": x[N:]})
            np.savez("test.npz", x0=x[:N].numpy())
            assert run(["profile", "model.pt", "--bits", "2,4,8"]) == 0
            assert run(["solve", "--size", "75%"]) == 0
            assert run(["apply", "model.pt", "-o", "quantized.pt"]) == 0
    return root


@pytest.fixture
def inside(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[[str], Callable[..., Any]]:  # fmt: skip
    """Goes into a copy of a network's folder and gives what runs a command there."""

    def enter(name: str) -> Callable[..., Any]:
        shutil.copytree(made / name, tmp_path / name)
        monkeypatch.chdir(tmp_path / name)

        def call(*arguments: str, code: int = 0) -> str:
            capsys.readouterr()
            assert run(list(arguments)) == code
            printed = capsys.readouterr()
            if code == 2:
                assert 1 <= len(printed.err.splitlines()) <= 2
            return printed.err if code == 2 else printed.out

        return call

    return enter


def _rows() -> dict[str, dict[str, Any]]:
    document = json.loads(Path("evaluation.json").read_text())
    assert document["data"]["labels"] is False
    return {row["name"]: row for row in document["rows"]}


EXPECTED = {
    "classes": {"agreement", "kl", "sqnr"},
    "numbers": {"agreement", "sqnr"},
    "outputs": {"agreement", "kl", "sqnr", "class.agreement", "class.kl", "class.sqnr",
                "box.agreement", "box.sqnr"},
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_whole_loop(name: str, inside: Callable[[str], Callable[..., Any]]) -> None:
    call = inside(name)
    text = call("evaluate", "model.pt", "--assignment", "assignment.json", "--uniform", "w8a8",
                "--data", "test.npz")  # fmt: skip
    assert "no labels: measured against the FP32 network\n" in text
    assert "accuracy" not in text
    assert max(map(len, text.partition("measured on")[0].splitlines())) <= 80
    rows = _rows()
    assert list(rows) == ["FP32", "w8a8", "assignment"]
    assert "metrics" not in rows["FP32"]
    assert set(rows["assignment"]["metrics"]) == EXPECTED[name]
    eight, few = (rows[one]["metrics"]["sqnr"]["value"] for one in ("w8a8", "assignment"))
    assert eight > few + 3  # more bits are nearer
    call(*QUANTIZED)  # the file that ships is the same network
    for metric, found in _rows()["quantized"]["metrics"].items():
        assert found["value"] == pytest.approx(rows["assignment"]["metrics"][metric]["value"])
    here = json.loads(call(*QUANTIZED, "--metric", "sqnr", "--integer", "--json"))["rows"]
    assert list(here[1]["metrics"]) == ["sqnr"]
    assert here[2]["metrics"]["sqnr"]["value"] == pytest.approx(few, abs=2)

    agreement = 100 * rows["assignment"]["metrics"]["agreement"]["value"]
    call("evaluate", "model.pt", "--assignment", "assignment.json", "--data", "test.npz")
    assert "PASS" in call("gate", "--min-sqnr", f"{few - 10}", "--min-agreement", "1%")
    assert "FAIL" in call("gate", "--min-sqnr", f"{few + 20}", code=1)
    near = ("gate", "--min-agreement", f"{agreement + 0.1:.3f}%")
    assert "INCONCLUSIVE" in call(*near, code=1)
    assert "INCONCLUSIVE" in call(*near, "--lenient")
    (verdict,) = assert_budget("quantized.pt", data="test.npz", fp32="model.pt", min_sqnr=few - 10)
    assert float(verdict.value) == pytest.approx(few)
    assert "--min-agreement 98%" in call("gate", "--max-drop", "1", code=2)

    call("report", "-o", "report.html")
    facts = gather(read_run("."))
    (section,) = (one for one in sections_of(facts) if one.title == "Measured without labels")
    tables = [part for part in section.parts if isinstance(part, Table)]
    assert [row[0] for row in tables[0].rows] == ["FP32", "assignment"]
    assert tables[0].rows[1][3].startswith(f"{agreement:.2f} [")
    assert ("KL, nats" in tables[0].header) == (name != "numbers")
    assert len(tables) == (2 if name == "outputs" else 1)
    page = Path("report.html").read_text()
    assert "Measured without labels" in page
    assert f"against FP32: agreement {agreement:.2f} %" in page


def test_outputs_with_and_without_labels_side_by_side(
    inside: Callable[[str], Callable[..., Any]],
) -> None:
    call = inside("outputs")
    x = np.load("test.npz")["x0"]
    np.savez("half.npz", x0=x, y_class=np.arange(N) % 3)
    text = call(*QUANTIZED[:-1], "half.npz")
    assert "no labels of box: measured against the FP32 network" in text
    rows = json.loads(Path("evaluation.json").read_text())["rows"]
    assert set(rows[0]["metrics"]) == {"class.accuracy"}
    assert set(rows[1]["metrics"]) == {"class.accuracy", "box.agreement", "box.sqnr"}
    alone = call("evaluate", "quantized.pt", "--data", "half.npz")  # what has labels needs no FP32
    assert "class.accuracy" in alone
    assert "box." not in alone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "model.pt", "--data", "test.npz"), "FP32 alone has nothing to be compared"),
        (("evaluate", "quantized.pt", "--data", "test.npz"), "or the float model (--fp32)"),
        ((*QUANTIZED, "--metric", "f1"), "the metric f1 needs labels, and the data have none"),
        ((*QUANTIZED, "--metric", "box=sqnr"), "the network's outputs are none with a name"),
        ((*QUANTIZED, "--loss", "cross-entropy"), "the loss cross-entropy needs labels"),
        (("gate", "quantized.pt", "--data", "test.npz", "--max-kl", "1"), "(--fp32)"),
    ],
)
def test_what_cannot_be_measured_without_labels_is_said(
    arguments: tuple[str, ...], message: str, inside: Callable[[str], Callable[..., Any]]
) -> None:
    assert message in inside("classes")(*arguments, code=2)

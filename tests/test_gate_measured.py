"""The gate on MODEL: what it measures now counts, and not what a file says."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mpsearch
from mpsearch.cli import run
from mpsearch.comparing.baseline import load_baseline
from mpsearch.evaluation.evaluation import load_evaluations, save_evaluations
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.testing import assert_budget


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.pt, its assignment, quantized.pt, test.npz and an honest evaluation.json."""
    folder = tmp_path_factory.mktemp("gate")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 6)).astype(np.float32)
    labels = network(torch.from_numpy(x)).argmax(dim=1).numpy()
    labels[::10] = (labels[::10] + 1) % 4  # 90 % right
    sample = {"x0": torch.from_numpy(x[:50]), "y": torch.from_numpy(labels[:50])}
    mpsearch.save(network, folder / "model.pt", (torch.zeros(1, 6),), sample=sample)
    np.savez(folder / "test.npz", x0=x, y=labels)
    np.savez(folder / "other.npz", x0=x[::-1].copy(), y=labels[::-1].copy())
    layers = load_network(ModelSource(str(folder / "model.pt"))).network.layers
    names = [layer.name for layer in layers]
    chosen = dict(zip(names, (Choice(8, 8), Choice(2, 8)), strict=True))
    Assignment(chosen).save(folder / "assignment.json")
    model, assignment = str(folder / "model.pt"), str(folder / "assignment.json")
    assert run(["apply", model, assignment, "-o", str(folder / "quantized.pt")]) == 0
    words = [
        "--assignment",
        assignment,
        "--data",
        str(folder / "test.npz"),
        "-o",
        str(folder / "evaluation.json"),
    ]
    assert run(["evaluate", model, *words]) == 0
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def judged(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    run(["gate", *words, "--max-drop", "1", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return {entry["quantity"]: entry for entry in document["conditions"]}


def test_the_model_is_measured_and_the_file_not_believed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = judged(capsys)
    assert truth["drop"]["value"] > 1  # 2 bits hurt
    honest = load_evaluations("evaluation.json")
    reference, row = honest.rows
    Path("evaluation.json").unlink()
    flattering = replace(
        row, correct=reference.correct, accuracy=reference.accuracy, confusion=reference.confusion,
        accuracy_interval=reference.accuracy_interval,
    )  # fmt: skip
    save_evaluations(replace(honest, rows=(reference, flattering)), "evaluation.json")
    assert judged(capsys)["drop"]["value"] == 0
    float_model = judged(capsys, "model.pt", "--data", "test.npz")
    quantized = judged(capsys, "quantized.pt", "--fp32", "model.pt", "--data", "test.npz")
    for found in (float_model, quantized):
        assert found["drop"]["value"] == truth["drop"]["value"]
        assert found["drop"]["paired"] == truth["drop"]["paired"]


def test_a_quantized_file_needs_no_other_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("assignment.json", "evaluation.json"):
        Path(name).unlink()
    words = ["gate", "quantized.pt", "--data", "test.npz", "--min-accuracy", "10%"]
    capsys.readouterr()
    assert run([*words, "--max-size", "1KB", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    # packed weights, a scale per channel and 32-bit biases
    assert document["conditions"][0]["value"] == 6 * 16 + 16 * 4 * 2 // 8 + 8 * (16 + 4)
    assert document["notes"] == []


def test_the_size_of_a_float_model_is_that_of_its_layers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The assignment states none, and there is no table."""
    capsys.readouterr()
    assert run(["gate", "model.pt", "--data", "test.npz", "--max-bops", "1G", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["conditions"][0]["value"] == 6 * 16 * 8 * 8 + 16 * 4 * 2 * 8
    assert document["notes"] == []


def test_without_data_the_models_sample_is_used_and_that_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["gate", "model.pt", "--min-accuracy", "10%"]) == 0
    printed = capsys.readouterr().out
    assert "not unseen data" in printed
    assert " 50\n" in printed


def test_the_baseline_of_a_measurement_holds_its_digests(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["gate", "model.pt", "--data", "test.npz"]
    assert run([*words, "--update-baseline", "main.json"]) == 0
    baseline = load_baseline("main.json")
    assert baseline.identity.weights is not None
    assert baseline.row is not None
    assert baseline.row.n == 400
    assert run([*words, "--baseline", "main.json", "--max-drop-baseline", "0"]) == 0
    capsys.readouterr()
    words = ["gate", "model.pt", "--data", "other.npz", "--baseline", "main.json"]
    assert run([*words, "--max-drop-baseline", "0"]) == 2
    error = capsys.readouterr().err
    assert baseline.data_digest is not None
    assert baseline.data_digest in error
    assert error.count("sha256:") == 2


def other_bits(folder: Path) -> None:
    Path("assignment.json").unlink()
    Assignment({"0": Choice(4, 8), "2": Choice(4, 8)}).save("assignment.json")


def other_layers(folder: Path) -> None:
    Path("assignment.json").unlink()
    Assignment({"conv": Choice(4, 8)}).save("assignment.json")


def no_assignment(folder: Path) -> None:
    Path("assignment.json").unlink()


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (other_bits, ["quantized.pt", "--data", "test.npz"], "other bits than the assignment"),
        (other_layers, ["model.pt", "--data", "test.npz"], "conv"),
        (no_assignment, ["model.pt", "--data", "test.npz"], "no row assignment or quantized"),
        (None, ["model.pt", "--data", "none.npz"], "none.npz"),
        (None, ["none.pt"], "none.pt"),
        (None, ["model.pt", "--fp32", "model.pt"], "--fp32 goes with a quantized one"),
        (None, ["quantized.pt", "--data", "test.npz"], "no row FP32"),
    ],
)
def test_what_cannot_be_measured_is_an_error(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None] | None,
    words: list[str],
    message: str,
) -> None:
    if change is not None:
        change(folder)
    capsys.readouterr()
    assert run(["gate", *words, "--max-drop", "1"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) <= 2


def test_assert_budget_measures_a_file_of_apply(folder: Path) -> None:
    verdicts = assert_budget(
        "quantized.pt", data="test.npz", fp32="model.pt", max_size="1KB", min_accuracy=10
    )
    assert [verdict.quantity for verdict in verdicts] == ["size_bytes", "accuracy"]
    with pytest.raises(AssertionError, match="the gate says no: points lost"):
        assert_budget("quantized.pt", data="test.npz", fp32="model.pt", max_drop=0.0)


def test_size_and_bops_of_a_quantized_file_need_no_data(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its bytes are in the file: without data, table, assignment and evaluation."""
    for name in ("assignment.json", "evaluation.json", "test.npz", "model.pt"):
        Path(name).unlink()
    size, work = 6 * 16 + 16 * 4 * 2 // 8 + 8 * (16 + 4), 6 * 16 * 8 * 8 + 16 * 4 * 2 * 8
    words = ["gate", "quantized.pt", "--max-size", f"{size}B", "--max-bops", str(work)]
    assert run([*words, "--update-baseline", "main.json"]) == 0
    assert run(["gate", "quantized.pt", "--max-size", f"{size - 1}B"]) == 1
    grown = ["--max-size-growth", "0%", "--max-bops-growth", "0%"]
    capsys.readouterr()
    assert run(["gate", "quantized.pt", "--baseline", "main.json", *grown, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["value"] for one in document["conditions"]] == [0, 0]
    assert document["notes"] == []
    assert load_baseline("main.json").layers["0"].weights == 96
    assert not mpsearch.gate("quantized.pt", max_size=size).says_no
    # what an assignment says of it is not believed
    Assignment({"0": Choice(8, 8), "2": Choice(2, 8)}, totals={"size_bytes": 1}).save("a.json")
    assert run(["gate", "quantized.pt", "--assignment", "a.json", "--max-size", "9KB"]) == 2
    assert f"size_bytes is 1 for the assignment and {size} for the model" in capsys.readouterr().err


def test_a_float_model_needs_an_assignment_and_no_data_for_its_size(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["gate", "model.pt", "--max-size", "272B"]) == 0
    Path("assignment.json").unlink()
    assert run(["gate", "model.pt", "--max-size", "1KB"]) == 2
    assert "is a float model, and no assignment says its bits" in capsys.readouterr().err

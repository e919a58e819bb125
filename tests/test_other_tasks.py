"""Autoencoder, regression, binary and two-output networks through profile, solve, apply, evaluate.

All by the command line, as a user does it.
"""

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mpsearch.cli import run
from mpsearch.graph.network_file import save
from mpsearch.reports.commands import commands_of
from mpsearch.reports.run_folder import read_run
from mpsearch.testing import assert_budget

N = 48

# Untrained networks may lose nothing by 2 bits once these are repaired.
PLAINLY = ("--rounding", "nearest", "--no-bias-correction")


class Autoencoder(nn.Module):
    """12 -> 3 -> 12."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(12, 3)
        self.decoder = nn.Linear(3, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.decoder(torch.relu(self.encoder(x.flatten(1))))
        return outputs.reshape(-1, 3, 4)


class Head(nn.Module):
    """One number per sample, maybe as a probability."""

    def __init__(self, sigmoid: bool) -> None:
        super().__init__()
        self.body = nn.Linear(12, 6)
        self.head = nn.Linear(6, 1)
        self.sigmoid = sigmoid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(torch.relu(self.body(x.flatten(1))))
        return torch.sigmoid(found) if self.sigmoid else found


class Detector(nn.Module):
    """A class and a box by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(12, 8)
        self.kind = nn.Linear(8, 3)
        self.box = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = torch.relu(self.body(x.flatten(1)))
        return {"class": self.kind(hidden), "box": self.box(hidden).unflatten(1, (2, 2))}


@dataclass(frozen=True)
class Task:
    """A network, its labels by array name, options, and what is expected of the evaluation."""

    build: Callable[[], nn.Module]
    labels: Callable[[Any], dict[str, torch.Tensor]]
    options: tuple[str, ...]
    loss: str
    metrics: tuple[str, ...]


def _numbers(outputs: Any) -> dict[str, torch.Tensor]:
    return {"y": outputs[:, 0] + 0.1 * torch.randn(N)}


def _answers(outputs: Any) -> dict[str, torch.Tensor]:
    return {"y": (outputs[:, 0] > 0.5).long() ^ (torch.rand(N) < 0.1).long()}


def _detections(outputs: Any) -> dict[str, torch.Tensor]:
    return {
        "y_class": outputs["class"].argmax(1),
        "y_box": outputs["box"] + 0.1 * torch.randn(N, 2, 2),
    }


TASKS = {
    "autoencoder": Task(
        Autoencoder, lambda _: {}, ("--loss", "reconstruction"), "reconstruction", ("mse", "mae")
    ),
    "regression": Task(lambda: Head(False), _numbers, (), "mse", ("mse", "mae")),
    "binary": Task(lambda: Head(True), _answers, (), "bce", ()),
    "two outputs": Task(
        Detector, _detections, ("--loss", "class=cross-entropy", "--loss", "box=0.5*mse"),
        "class=cross-entropy + box=0.5*mse", ("class.accuracy", "box.mse", "box.mae"),
    ),
}  # fmt: skip


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that has to succeed and gives what it printed."""

    def call(*arguments: str) -> str:
        code = run(list(arguments))
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    return call


Command = Callable[..., str]


def _make(task: Task, folder: Path, harm: float = 0.0) -> None:
    """model.pt, its last bias wrong by `harm`, and test.npz with the right one's labels."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = task.build().eval()
        x = torch.randn(N, 3, 4)
        with torch.no_grad():
            labels = task.labels(model(x))
            list(model.parameters())[-1].add_(harm)
    arrays = {"x0": x, **labels}
    save(model, folder / "model.pt", (x[:1],), {k: v[:32] for k, v in arrays.items()})
    np.savez(folder / "test.npz", **{k: v[32:].numpy() for k, v in arrays.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TASKS)
def test_the_whole_loop(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    task = TASKS[name]
    monkeypatch.chdir(tmp_path)
    _make(task, tmp_path)
    assert task.loss in command("profile", "model.pt", "--bits", "2,4,8", *task.options)
    command("solve", "--size", "80%")
    command("apply", "model.pt", "assignment.json", "-o", "quantized.pt")
    text = command(
        "evaluate", "quantized.pt", "--fp32", "model.pt", "--data", "test.npz", *task.options
    )
    document = json.loads(Path("evaluation.json").read_text())
    assert document["loss"] == task.loss
    floating, quantized = document["rows"]
    assert (floating["name"], quantized["name"]) == ("FP32", "quantized")
    for row in document["rows"]:
        assert set(row.get("metrics", {})) == set(task.metrics)
        assert (row["accuracy"] is None) == (name != "binary")
        assert row["n"] == N - 32
    for metric in task.metrics:
        one = quantized["metrics"][metric]
        low, high = one["interval"]
        assert low <= one["value"] <= high
        change = one["value"] - floating["metrics"][metric]["value"]
        assert one["against_fp32"]["difference"] == pytest.approx(change, abs=1e-12)
        assert metric in text
    if name != "two outputs":
        assert ("accuracy" in text) == (name == "binary")
    for metric in task.metrics[-1:]:  # the gate measures the file itself, by the same metric
        (verdict,) = assert_budget(
            "quantized.pt", data="test.npz", fp32="model.pt", max_metrics={metric: 1e9},
            losses=[word for word in task.options if word != "--loss"],
        )  # fmt: skip
        assert float(verdict.value) == pytest.approx(quantized["metrics"][metric]["value"])
    command("report", "-o", "report.html")
    page = Path("report.html").read_text()
    assert all(f">{metric}<" in page for metric in task.metrics)
    again = [line for line in commands_of(read_run(".")) if " profile " in line]
    command(*shlex.split(again[0])[1:])  # what the report says repeats the run is a valid call
    assert task.loss in Path("profile.json").read_text()


@pytest.mark.parametrize("metric", ["hessian", "fisher", "perturbation", "kl", "loss", "sqnr"])
def test_every_metric_of_sensitivity_serves_several_outputs(
    metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    """2 bits cost more than 8, and a body that both heads need costs with either of them."""
    monkeypatch.chdir(tmp_path)
    _make(TASKS["two outputs"], tmp_path)
    options = ("--bits", "2,8", "--metric", metric, "--data", "test.npz", *PLAINLY)
    both = json.loads(command("profile", "model.pt", *options, "--json"))
    assert both["provenance"]["loss"] == "class=cross-entropy + box=mse"
    omega = _omega()
    assert omega["body", "2"] > omega["body", "8"] >= 0
    command("profile", "model.pt", *options, "--loss", "box=none")
    alone = _omega()
    assert alone["body", "2"] > 0
    assert alone["box", "2"] < 1e-12 < omega["box", "2"]  # a sum's rounding may be left


def _omega() -> dict[tuple[str, str], float]:
    rows = [line.split(",") for line in Path("profile.csv").read_text().splitlines()]
    layer, bits, omega = (rows[0].index(name) for name in ("layer", "w_bits", "omega"))
    return {(row[layer], row[bits]): float(row[omega]) for row in rows[1:]}


@pytest.mark.kernels
@pytest.mark.parametrize("name", TASKS)
def test_fine_tuning_lowers_the_loss_of_any_task(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    """On the data that chooses the epoch: never worse, and better where a bias is far off."""
    task = TASKS[name]
    monkeypatch.chdir(tmp_path)
    _make(task, tmp_path, harm=3.0)
    command("profile", "model.pt", "--bits", "2,8", *task.options)
    command("solve", "--size", "75%")
    options = ("--data", "test.npz", "--validation", "test.npz", "--epochs", "4", "--lr", "0.02")
    found = json.loads(command("finetune", "model.pt", *options, *task.options, "--json"))
    losses = [epoch["loss"] for epoch in found["history"]]
    accuracies = [epoch["accuracy"] for epoch in found["history"]]
    best = found["best_epoch"]
    if name == "binary":
        assert accuracies[best] == max(accuracies)
    else:
        assert accuracies == [None] * 5
        assert losses[best] == min(losses) < losses[0]


def test_what_needs_one_class_per_sample_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    _make(TASKS["regression"], tmp_path)
    command("profile", "model.pt")
    command("solve", "--size", "80%")
    command("front", "-o", "front.csv")
    for args, message in (
        (("solve", "--fp32", "model.pt", "--data", "test.npz", "--min-accuracy", "80"),
         "searched by accuracy"),
        (("evaluate", "model.pt", "--front", "front.csv", "--data", "test.npz"),
         "a measured front needs the accuracy"),
        (("finetune", "model.pt", "--data", "test.npz", "--loss", "mae"), "has no divergence"),
        (("profile", "model.pt", "--interactions", "--loss", "mae"), "interactions are kept of"),
        (("profile", "model.pt", "--metric", "accuracy"), "the metric accuracy needs answers"),
        (("profile", "model.pt", "--loss", "cross-entropy"), "array y has"),
    ):  # fmt: skip
        assert run(list(args)) == 2, args
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) <= 2

"""`mpsearch finetune` writes the integers whose score it printed, goes on after a kill, or says why
not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mpsearch.cli import run
from mpsearch.evaluation.evaluation import load_evaluations
from mpsearch.finetuning import oscillations
from mpsearch.finetuning import training as finetuning
from mpsearch.finetuning.training import State, save_state
from mpsearch.graph.network_file import save
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice

pytestmark = pytest.mark.kernels


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """model.pt with a sample, train.npz, val.npz, plain.npz without labels, assignment.json.

    One output's bias is far off: about half of the answers are wrong, and training repairs that
    on any processor, where a network that is nearly right gets better or worse by luck.
    """
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    x = random.normal(size=(240, 5)).astype(np.float32)
    y = x[:, :3].argmax(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(100):
        loss = nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        model.get_parameter("2.bias")[0] += 20
    save(model.eval(), "model.pt", (torch.from_numpy(x[:2]),), {"x0": x[:64], "y": y[:64]})
    np.savez("train.npz", x0=x[:160], y=y[:160])
    np.savez("val.npz", x0=x[160:], y=y[160:])
    np.savez("plain.npz", x0=x[:160])
    Assignment.uniform(("0", "2"), Choice(2, 3)).save("assignment.json")


TUNE = ["finetune", "model.pt", "--data", "train.npz", "--validation", "val.npz"]


def test_evaluate_finds_what_was_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*TUNE, "--epochs", "3", "--lr", "0.1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["validated_on"] == "labels"
    best = document["history"][document["best_epoch"]]
    assert best["number"] == document["best_epoch"]
    assert best["accuracy"] > document["history"][0]["accuracy"]
    assert run(["evaluate", "quantized.pt", "--data", "val.npz"]) == 0
    (row,) = load_evaluations("evaluation.json").rows
    assert (row.accuracy, row.loss) == (best["accuracy"], best["loss"])
    assert row.size_bytes == document["size_bytes"]
    assert not list(Path().glob(".*checkpoint"))


def test_without_labels_it_says_what_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["finetune", "model.pt", "--data", "plain.npz", "--epochs", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("before training: validation agreement with FP32 ")
    assert lines[1].startswith("epoch 1: training loss ")
    assert "plain.npz has no labels: the float network's outputs were the only target" in lines
    assert lines[-3].startswith("wrote quantized.pt: ")
    assert lines[-1] == "next: mpsearch evaluate quantized.pt --fp32 model.pt --data plain.npz"


def test_it_says_how_many_weights_it_has_frozen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of large steps at 2 bits: some codes turn back; the start is far from the best.

    One turn freezes here; four in the first epoch, as the usual threshold asks, some processors'
    sums do not give.
    """
    monkeypatch.setattr(oscillations, "FIRST_THRESHOLD", 0.9 * oscillations.MOMENTUM)
    monkeypatch.setattr(oscillations, "LAST_THRESHOLD", 0.9 * oscillations.MOMENTUM)
    call = [*TUNE, "--epochs", "3", "--lr", "0.1", "--batch-size", "2"]
    assert run([*call, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    shares = [epoch["frozen"] for epoch in document["history"]]
    assert 0 == shares[0] < shares[1] <= shares[2] <= shares[3]
    assert run(call) == 0
    share = 100 * shares[document["best_epoch"]]
    assert f"{share:.2g} % of the weights with 2 to 4 bits oscillated and were frozen" in (
        capsys.readouterr().out.splitlines()
    )
    assert run([*call, "--no-freezing", "--json"]) == 0
    history = json.loads(capsys.readouterr().out)["history"]
    assert [epoch["frozen"] for epoch in history] == [0, 0, 0, 0]


def test_the_models_own_sample_will_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["finetune", "model.pt", "--epochs", "1"]) == 0
    assert "validation accuracy" in capsys.readouterr().out


def test_it_begins_from_a_quantized_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["apply", "model.pt", "--data", "train.npz", "-o", "start.pt"]) == 0
    assert run(["evaluate", "start.pt", "--data", "val.npz"]) == 0
    (row,) = load_evaluations("evaluation.json").rows
    Path("assignment.json").unlink()
    capsys.readouterr()
    assert run([*TUNE, "--start", "start.pt", "--epochs", "1", "--json"]) == 0
    begun = json.loads(capsys.readouterr().out)["history"][0]
    assert (begun["accuracy"], begun["loss"]) == (row.accuracy, row.loss)


def test_a_killed_run_goes_on_and_writes_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = [*TUNE, "--epochs", "3", "--lr", "5e-3"]
    assert run([*call, "-o", "whole.pt"]) == 0
    saved: list[Path] = []

    def save_twice(state: State, path: Path) -> None:
        save_state(state, path)
        saved.append(path)
        if len(saved) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "save_state", save_twice)
        assert run(call) == 130
    assert not Path("quantized.pt").exists()
    capsys.readouterr()
    assert run(call) == 0
    output = capsys.readouterr().out
    assert "epochs 1 to 2 were done by an earlier run" in output
    assert "epoch 3:" in output
    assert "epoch 2:" not in output
    assert Path("quantized.pt").read_bytes() == Path("whole.pt").read_bytes()
    assert not saved[0].exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["finetune", "model.pt", "absent.json"], "there is no assignment absent.json"),
        (["finetune", "model.pt", "other.json"], "a layer 'conv9' that the network lacks"),
        (["finetune", "model.pt", "--data", "one.npz"], "has one sample"),
        (["finetune", "model.pt", "--data", "wide.npz"], "expected (N, 5)"),
        (["finetune", "model.pt", "--validation", "wide.npz"], "expected (N, 5)"),
        (["finetune", "model.pt", "--data", "wrong.npz"], "expected 0 to 2"),
        (["finetune", "model.pt", "--lr", "-1"], "expected positive numbers"),
        (["finetune", "model.pt", "--lr", "1e30"], "try a smaller lr"),
        (["finetune", "model.pt", "--augment"], "cannot augment x0"),
        (["finetune", "model.pt", "--start", "model.pt"], "expected 'mpsearch.quantized'"),
        (["finetune", "model.pt", "-o", "absent/q.pt"], "its folder does not exist"),
    ],
)
def test_wrong_calls_are_short_and_leave_no_file(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Assignment.uniform(("conv9",), Choice(4, 4)).save("other.json")
    np.savez("one.npz", x0=np.zeros((1, 5), np.float32), y=np.zeros(1, np.int64))
    np.savez("wide.npz", x0=np.zeros((4, 6), np.float32))
    np.savez("wrong.npz", x0=np.zeros((4, 5), np.float32), y=np.full(4, 3))
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert len(error.splitlines()) <= 2
    assert not Path("quantized.pt").exists()

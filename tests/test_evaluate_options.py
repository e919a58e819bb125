"""`mpsearch evaluate` with repairs after training, and with integers only."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import mpsearch
from mpsearch.cli import run
from mpsearch.evaluation.evaluation import Evaluation, load_evaluations
from mpsearch.graph.network_file import save
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice

REPAIRS = ["--rounding", "adaptive", "--bias-correction", "--ranges", "percentile"]
INTEGERS = ["evaluate", "quantized.pt", "--data", "test.npz", "--integer"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """model.pt with a sample, test.npz, assignment.json at 3 bits."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 2, 6, 6)).astype(np.float32)
    y = np.abs(x[:, :, :3]).mean((1, 2, 3)) > np.abs(x[:, :, 3:]).mean((1, 2, 3))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 2)
        )
    save(
        model.eval(), "model.pt", (torch.from_numpy(x[:2]),),
        {"x0": x[:100], "y": y[:100].astype(np.int64)},
    )  # fmt: skip
    np.savez("test.npz", x0=x[100:], y=y[100:].astype(np.int64))
    Assignment.uniform(("0", "4"), Choice(3, 4)).save("assignment.json")


def measured() -> dict[str, Evaluation]:
    return {row.name: row for row in load_evaluations("evaluation.json").rows}


def test_repairs_are_those_of_apply() -> None:
    assert run(["evaluate", "model.pt", "--assignment", "assignment.json", *REPAIRS,
                "--data", "test.npz"]) == 0  # fmt: skip
    repaired = measured()["assignment"]
    assert run(["apply", "model.pt", "assignment.json", *REPAIRS]) == 0
    assert run(["evaluate", "quantized.pt", "--data", "test.npz"]) == 0
    assert (measured()["quantized"].loss, measured()["quantized"].correct) == (
        repaired.loss, repaired.correct,
    )  # fmt: skip
    assert run(["evaluate", "model.pt", "--assignment", "assignment.json",
                "--data", "test.npz"]) == 0  # fmt: skip
    assert measured()["assignment"].loss != repaired.loss


def test_integers_decide_as_the_quantized_network_does() -> None:
    assert run(["apply", "model.pt", "assignment.json"]) == 0
    assert run([*INTEGERS, "--fp32", "model.pt"]) == 0
    rows = measured()
    assert list(rows) == ["FP32", "quantized", "quantized, integers"]
    integers, fake = rows["quantized, integers"], rows["quantized"]
    agreement = np.mean(np.array(integers.correct) == np.array(fake.correct))
    assert agreement >= 0.99
    assert integers.loss == pytest.approx(fake.loss, rel=1e-3)
    assert integers.size_bytes == fake.size_bytes
    assert (
        run(["evaluate", "model.pt", "--uniform", "w3a4", "--integer", "--data", "test.npz"]) == 0
    )
    assert measured()["w3a4, integers"].loss == pytest.approx(integers.loss, rel=1e-9)


def test_integers_without_what_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["apply", "model.pt", "assignment.json", "--no-sample"]) == 0
    assert run(INTEGERS) == 2
    assert "integers need data for the ranges of sums and outputs" in capsys.readouterr().err
    Assignment.uniform(("0", "4"), Choice(32, 32)).save("assignment.json")
    assert run(["apply", "model.pt", "assignment.json"]) == 0
    assert run([*INTEGERS, "--fp32", "model.pt"]) == 2
    assert "'0'" in capsys.readouterr().err


def test_a_front_is_not_mixed_over_repairs(capsys: pytest.CaptureFixture[str]) -> None:
    table = "layer,w_bits,a_bits,omega,size_bytes,bops\n" + "".join(
        f"{name},{bits},{bits},{1 / bits},{bits * 100},{bits * bits * 100}\n"
        for name in ("0", "4") for bits in (4, 8)
    )  # fmt: skip
    Path("profile.csv").write_text(table)
    assert run(["front", "-o", "front.csv"]) == 0
    call = ["evaluate", "model.pt", "--front", "front.csv", "--points", "2", "--data", "test.npz"]
    assert run([*call, "--rounding", "nearest"]) == 0
    capsys.readouterr()
    assert run(call) == 2
    assert "settings of the quantizer" in capsys.readouterr().err
    assert run([*call, "--rounding", "nearest", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert run([*call, "--integer"]) == 2
    assert "leave out --assignment, --uniform, --fp32, --integer" in capsys.readouterr().err


def test_an_assignment_of_another_network_is_refused_and_other_weights_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line: which layers, what to do. After training again the bits may be fine: a note."""
    chosen = {"0": Choice(8, 8), "4": Choice(8, 8)}
    refused = {
        "has layers 'conv1', 'conv2', 'conv3' and 1 more that the network lacks and no choice for "
        "the network's layers '0', '4'": Assignment.uniform(
            [f"conv{n}" for n in range(1, 5)], Choice(8, 8)
        ),
        "has a layer 'fc' that": Assignment({**chosen, "fc": Choice(8, 8)}),
        "no choice for the network's layer '4'": Assignment({"0": Choice(8, 8)}),
        "'4' has 64 weights, there 128": Assignment(chosen, weights={"0": 144, "4": 128}),
    }
    for message, assignment in refused.items():
        assignment.save("assignment.json")
        for words in (["evaluate", "model.pt", "--assignment"], ["apply", "model.pt"],
                      ["gate", "model.pt", "--max-size", "1MB", "--assignment"]):  # fmt: skip
            assert run([*words, "assignment.json"]) == 2
            error = capsys.readouterr().err
            assert message in error
            assert "profile this network and solve again" in error
            assert len(error.splitlines()) == 1
    Assignment(chosen, weights={"0": 144, "4": 64}, model_digest="sha256:00").save("a.json")
    assert run(["evaluate", "model.pt", "--assignment", "a.json", "--data", "test.npz"]) == 0
    assert "model.pt has other weights than those that a.json was" in capsys.readouterr().out
    assert run(["apply", "model.pt", "a.json", "--rounding", "nearest"]) == 0
    assert "model.pt has other weights than those that a.json was" in capsys.readouterr().out
    assert run(["finetune", "model.pt", "a.json", "--epochs", "1", "-o", "tuned.pt"]) == 0
    assert "model.pt has other weights than those that a.json was" in capsys.readouterr().err
    assert run(["profile", "model.pt", "--metric", "weight-mse"]) == 0
    assert run(["solve", "--size", "90%"]) == 0
    assert Assignment.load("assignment.json").weights == {"0": 144, "4": 64}
    found = mpsearch.solve(mpsearch.LayerTable.read_csv("profile.csv"))
    assert found.to_assignment().weights == {"0": 144, "4": 64}
    assert run(["evaluate", "model.pt", "--assignment", "assignment.json"]) == 0
    assert "other weights" not in capsys.readouterr().out

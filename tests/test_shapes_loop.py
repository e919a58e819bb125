"""profile, solve, apply, evaluate for networks of every shape, as a user runs them."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from test_recurrent import Classifier
from torch import nn

import mpsearch
from mpsearch.cli import cli

SAMPLES = 24

# Untrained networks may lose nothing by 2 bits once these are repaired.
PLAINLY = ("--rounding", "nearest", "--no-bias-correction")


class Detector(nn.Module):
    """A dictionary in, a dictionary out: a class, a box and the number of the class."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.audio = nn.Conv2d(1, 3, 3), nn.Linear(4, 3)
        self.score, self.box = nn.Linear(6, 3), nn.Linear(6, 4)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen = torch.relu(self.image(batch["image"])).amax((2, 3))
        both = torch.cat([seen, torch.relu(self.audio(batch["audio"]))], 1)
        score = self.score(both)
        return {"class": score, "box": self.box(both), "number": score.argmax(1)}


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(12, 4), nn.Linear(4, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(torch.relu(self.encode(x)))


def _run(*words: str) -> str:
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    return result.output


def _loop(data: str, layers: set[str], *loss: str) -> dict[str, Any]:
    """From model.pt and data to an evaluation; returns what evaluate wrote."""
    said = _run("profile", "model.pt", "--data", data, "--metric", "loss", "--bits", "2,8",
                *PLAINLY, *loss)  # fmt: skip
    assert all(name in said for name in layers)
    _run("solve", "--size", "90%", "-o", "assignment.json")
    assignment = json.loads(Path("assignment.json").read_text())["layers"]
    assert set(assignment) == layers
    assert {bits["w_bits"] for bits in assignment.values()} == {2, 8}
    _run("apply", "model.pt", "assignment.json", "--data", data, "-o", "quantized.pt")
    _run("evaluate", "quantized.pt", "--fp32", "model.pt", "--data", data, *loss)
    found: dict[str, Any] = json.loads(Path("evaluation.json").read_text())
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    return tmp_path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_recurrent_networks(kind: str) -> None:
    model, x = Classifier(kind, "last step", batch_first=True).eval(), torch.randn(SAMPLES, 4, 3)
    with torch.no_grad():
        np.savez("data.npz", x0=x.numpy(), y=model(x).argmax(1).numpy())
    if kind == "gru":
        mpsearch.save(model, "model.pt", (x,))
    else:  # through TorchScript
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.trace(model, (x,)).save("script.pt")
        _run("convert", "script.pt", "--trust", "--data", "data.npz", "-o", "model.pt")
    found = _loop("data.npz", {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "head"})
    assert "accuracy" in json.dumps(found)


@pytest.mark.usefixtures("here")
def test_dictionaries_in_and_out() -> None:
    model = Detector().eval()
    inputs = {"image": torch.randn(SAMPLES, 1, 5, 5), "audio": torch.randn(SAMPLES, 4)}
    with torch.no_grad():
        out = model(inputs)
    labels = {"y_class": out["number"], "y_box": out["box"] + 0.01}
    save_file({**inputs, **labels}, "data.safetensors")
    mpsearch.save(model, "model.pt", inputs)
    text = json.dumps(_loop("data.safetensors", {"image", "audio", "score", "box"}))
    assert "class" in text
    assert "box" in text
    assert json.loads(Path("profile.json").read_text())["left_out_outputs"] == ["number"]


@pytest.mark.usefixtures("here")
def test_an_autoencoder() -> None:
    model, x = Autoencoder().eval(), torch.randn(SAMPLES, 12)
    np.savez("data.npz", x0=x.numpy())
    mpsearch.save(model, "model.pt", (x,))
    assert "mse" in json.dumps(_loop("data.npz", {"encode", "decode"}, "--loss", "reconstruction"))

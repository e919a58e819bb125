"""`mpsearch train` writes a file that the other commands load, or says why not."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("librosa")

from mpsearch.cli import run
from mpsearch.graph.network_file import load
from mpsearch.models import generated
from mpsearch.models.datasets import load_dataset


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated data are made once for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _small(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPSEARCH_CACHE", str(cache))
    monkeypatch.setattr(generated, "SIZES", {"train": 320, "val": 40, "test": 80})


def test_a_trained_file_holds_the_network_that_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pt"
    arguments = ["train", "tinym2net-battlefield", "--modality", "audio", "--epochs", "2"]
    assert run([*arguments, "--seed", "3", "-o", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["network"] == "tinym2net-battlefield:audio"
    assert document["generated"]
    assert len(document["history"]) == 2
    stored = load(path)
    assert {name: tuple(x.shape) for name, x in stored.sample.items()} == {
        "x0": (256, 1, 44, 13),
        "y": (256,),
    }
    assert torch.bincount(stored.sample["y"]).tolist() == [64] * 4
    test = load_dataset("generated-battlefield").only("audio").split("test")
    with torch.no_grad():
        found = stored.network.graph(torch.from_numpy(test.inputs[0])).argmax(1).numpy()
    assert int((found == test.labels).sum()) == document["test"]["correct"]
    assert document["test"]["n"] == 80


def test_the_text_says_that_the_data_are_generated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pt"
    assert run(["train", "tinym2net-battlefield:audio", "--epochs", "1", "-o", str(path)]) == 0
    text = capsys.readouterr().out
    assert "GENERATED" in text
    assert "test accuracy" in text
    assert f"wrote {path}" in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["tinym2net"], "unknown network 'tinym2net'"),
        (["tinym2net-covid", "--data", "generated-battlefield"], "has no input 'cough'"),
        (["tinym2net-battlefield", "--data", "pictures"], "unknown dataset 'pictures'"),
        (["tinym2net-battlefield", "--fold", "1"], "has no folds"),
        (["tinym2net-battlefield", "--lr", "-1"], "positive"),
        (["tinym2net-battlefield", "-o", "absent/model.pt"], "its folder does not exist"),
    ],
)
def test_wrong_calls_are_one_line_and_leave_no_file(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "model.pt").exists()

"""`mpsearch reproduce` on a few random samples: every row is there, nothing is measured twice."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from mpsearch.cli import run
from mpsearch.evaluation.evaluation import Evaluations, load_evaluations
from mpsearch.models import datasets, training
from mpsearch.models.samples import Dataset, Split
from mpsearch.post_training.repairing import PLAIN, PostTraining, quantize_after_training
from mpsearch.quantization.quantized_file import load_quantized
from mpsearch.reproduction.published import FLOAT, MIXED, W4, W8
from mpsearch.reproduction.run import SMALLER, TUNED

COUNTS = {"train": 48, "val": 16, "test": 20}
CALL = ["reproduce", "battlefield", "--epochs", "1", "--finetune-epochs", "1", "-o", "out"]


def few_samples() -> Dataset:
    random = np.random.default_rng(0)
    splits = {}
    for name, count in COUNTS.items():
        labels = np.arange(count) % 4
        inputs = []
        for shape in ((1, 44, 13), (3, 32, 32)):
            x = random.standard_normal((count, *shape)).astype(np.float32)
            x[:, :, :4, :4] += labels.reshape(-1, 1, 1, 1)
            inputs.append(x)
        splits[name] = Split(tuple(inputs), labels)
    return Dataset(
        "few", ("audio", "image"), ("a", "b", "c", "d"), splits, True, "a test", "sha256:0"
    )


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = replace(datasets.DATASETS["image-audio"], load=few_samples, folder=None, packages=())
    monkeypatch.setitem(datasets.DATASETS, "image-audio", source)

    def plainly(
        network: Any, choices: Any, data: Any, settings: Any, *rest: Any, **more: Any
    ) -> Any:
        assert settings == PostTraining()  # repaired as by default; here that would take a minute
        return quantize_after_training(network, choices, data, PLAIN, *rest, **more)

    monkeypatch.setattr("mpsearch.post_training.quantizing.quantize_after_training", plainly)


@pytest.mark.slow
def test_every_row_is_measured_once_and_the_files_hold_what_was_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run([*CALL, "--runs", "2", "--run", "0"]) == 0
    assert not Path("out/table.md").exists()  # of one run only
    document = json.loads(Path("out/run-0/run.json").read_text())
    quantized = [W8, MIXED, SMALLER, W4]
    expected = {FLOAT, "audio alone", "image alone", *quantized, *(q + TUNED for q in quantized)}
    assert set(document["rows"]) == expected
    assert {row["n"] for row in document["rows"].values()} == {COUNTS["test"]}
    # The stored network scores what the row says, by the command that measures files.
    x0, x1 = few_samples().splits["test"].inputs
    np.savez("test.npz", x0=x0, x1=x1, y=few_samples().splits["test"].labels)
    assert run(["evaluate", "out/run-0/W4A4.pt", "--data", "test.npz"]) == 0
    (row,) = load_evaluations("evaluation.json").rows
    stored = document["rows"][W4 + TUNED]
    assert (row.accuracy, row.size_bytes) == (stored["accuracy"], stored["size_bytes"])
    assert stored["file_bytes"] == Path("out/run-0/W4A4.pt").stat().st_size
    # The mixed networks keep their budgets, relative to uniform 8 bits.
    sizes = {name: document["rows"][name]["size_bytes"] for name in quantized}
    assert sizes[MIXED] <= 0.661 * sizes[W8]
    assert sizes[SMALLER] <= 0.52 * sizes[W8]
    bits = {layer.choice.w_bits for layer in load_quantized("out/run-0/W4A4.pt").layers.values()}
    assert bits == {4}

    trained: list[str] = []
    train = training.train

    def counted(model: nn.Module, *args: Any, **settings: Any) -> training.Training:
        trained.append(type(model).__name__)
        return train(model, *args, **settings)

    monkeypatch.setattr(training, "train", counted)
    assert run([*CALL, "--runs", "2"]) == 0
    assert len(trained) == 3  # run 1 alone: both inputs, audio, image
    text = capsys.readouterr().out
    assert "2 seeds" in text
    table = Path("out/table.md").read_text()
    assert all(f"| {name} |" in table for name in (FLOAT, *quantized))
    assert json.loads(Path("out/run-0/run.json").read_text())["rows"] == document["rows"]
    assert isinstance(load_evaluations("evaluation.json"), Evaluations)


def test_calls_that_cannot_work(capsys: pytest.CaptureFixture[str]) -> None:
    for extra, message in (
        (["--runs", "2", "--fp32", "a.pt"], "got 1 --fp32 for 2 runs; expected one for each run"),
        (["--runs", "2", "--run", "2"], "got --run 2; the runs are 0 to 1"),
        (["--data", "nowhere"], "unknown dataset 'nowhere'"),
        (["--runs", "1", "--fp32", "a.pt"], "a.pt: no such file"),
    ):
        assert run([*CALL, *extra]) == 2
        assert message in capsys.readouterr().err
    assert run(["reproduce", "covid", "--runs", "6"]) == 2
    assert "got --runs 6; cough-speech has 5 folds" in capsys.readouterr().err

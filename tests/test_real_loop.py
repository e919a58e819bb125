"""Real networks and real pairs go through the whole loop, command by command."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mpsearch.cli import run
from mpsearch.evaluation.evaluation import load_evaluations
from mpsearch.models.datasets import load_dataset

DATA = os.environ.get("MPSEARCH_DATA", "")
pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(not DATA, reason="MPSEARCH_DATA is not set"),
]


def _run(commands: str) -> None:
    for command in commands.strip().splitlines():
        assert run(command.split()) == 0, command


def test_resnet20_from_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published weights: 915 of 1000 in float; the proven assignment is measured beside it."""
    monkeypatch.chdir(tmp_path)
    train = load_dataset("cifar10").split("train")
    np.savez("few.npz", x0=train.inputs[0][:64], y=train.labels[:64])  # all 5,000 take minutes
    data = "--calibration few.npz --data cifar10:test"
    model = f"{DATA}/pretrained/resnet20.safetensors --architecture resnet20"
    _run(f"""
        profile {model} --data cifar10:train --metric hessian --samples 16 --bits 2,4,8
        profile {model} --data cifar10:train --samples 16 --bits 4,8 --group-residual -o p.csv
        solve --size 50%
        evaluate {model} --assignment assignment.json {data}
    """)
    measured = load_evaluations("evaluation.json")
    fp32, mixed = measured.named("FP32"), measured.named("assignment")
    assert fp32 is not None
    assert mixed is not None
    assert (sum(fp32.correct), fp32.n) == (915, 1000)
    document = json.loads(Path("assignment.json").read_text())
    assert document["status"] == "optimal"
    assert mixed.size_bytes == document["totals"]["size_bytes"]
    assert mixed.size_bytes <= document["limits"]["size_bytes"]
    assert mixed.accuracy > 0.5  # chance is 0.1
    provenance = json.loads(Path("profile.json").read_text())
    assert len(provenance["metric_notes"]["exact_traces"]) == 20


@pytest.mark.parametrize(
    ("network", "data"),
    [("tinym2net-battlefield", "image-audio"), ("tinym2net-covid", "cough-speech")],
)
def test_tinym2net_trains_on_real_pairs_and_goes_through_the_loop(
    network: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs show that the loop runs; docs/tinym2net.md has the measured accuracies."""
    monkeypatch.chdir(tmp_path)
    _run(f"""
        train {network} --data {data} --epochs 2 -o model.pt
        profile model.pt --samples 32
        solve --size 66%
        apply model.pt
        evaluate quantized.pt --fp32 model.pt --data {data}:test
        report
    """)
    measured = load_evaluations("evaluation.json")
    assert measured.held_out
    assert [row.name for row in measured.rows] == ["FP32", "quantized"]
    assert Path("report.html").stat().st_size > 10_000

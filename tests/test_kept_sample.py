"""A quantized file measures and exports itself as it does with the float model beside it."""

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from torch import nn

import mpsearch
from mpsearch.cli import run
from mpsearch.data import Data, bind
from mpsearch.errors import InputError
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.network import Network
from mpsearch.quantization.kept_sample import MOST_BYTES, kept_sample
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice

Printed = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a sample, an assignment, both kinds of quantized file, other data."""
    place = tmp_path_factory.mktemp("kept")
    model, inputs, labels = networks.build("residual", samples=40)
    sample = {"x0": inputs[0], "y": labels}
    mpsearch.save(model, place / "model.pt", tuple(x[:1] for x in inputs), sample)
    network = mpsearch.load(place / "model.pt").network
    Assignment({layer.name: Choice(4, 8) for layer in network.layers}).save(place / "a.json")
    np.savez(place / "test.npz", x0=inputs[0][:9].numpy() + 1, y=labels[:9].numpy())
    np.savez(place / "unlabelled.npz", x0=inputs[0][:9].numpy() + 1)
    before = Path.cwd()
    os.chdir(place)
    try:
        assert run(["apply", "model.pt", "a.json"]) == 0
        assert run(["apply", "model.pt", "a.json", "--no-sample", "-o", "bare.pt"]) == 0
    finally:
        os.chdir(before)
    return place


@pytest.fixture
def printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Printed:
    monkeypatch.chdir(folder)

    def of(command: str, code: int = 0) -> str:
        capsys.readouterr()
        assert run(command.split()) == code
        found = capsys.readouterr()
        return found.out + found.err

    return of


def test_a_file_is_measured_as_beside_the_float_model(printed: Printed) -> None:
    for options in ("--integer", "--metric kl --metric agreement"):
        alone = json.loads(printed(f"evaluate quantized.pt --json {options}"))
        beside = json.loads(printed(f"evaluate quantized.pt --fp32 model.pt --json {options}"))
        assert alone["rows"] == beside["rows"]
        assert [row["name"] for row in alone["rows"]][:2] == ["FP32", "quantized"]
        assert alone["held_out"] is beside["held_out"] is False
    assert "PASS" in printed("gate quantized.pt --assignment a.json --max-kl 10 --max-drop 100")


def test_of_other_data_it_says_that_it_does_not_know_fp32(printed: Printed) -> None:
    found = json.loads(printed("evaluate quantized.pt --data test.npz --integer --json"))
    assert [row["name"] for row in found["rows"]] == ["quantized", "quantized, integers"]
    assert found["held_out"]
    told = printed("evaluate quantized.pt --data test.npz")
    assert "FP32 is not known on these samples; --fp32 MODEL" in told
    refused = printed("evaluate quantized.pt --data unlabelled.npz", 2)
    assert "or the float model (--fp32)" in refused


def test_an_export_needs_nothing_beside(printed: Printed, folder: Path) -> None:
    printed("export quantized.pt -o alone")
    printed("export quantized.pt --fp32 model.pt -o beside")
    assert mpsearch.export("quantized.pt", "python").ok
    names = sorted(file.name for file in (folder / "alone").iterdir())
    assert names == sorted(file.name for file in (folder / "beside").iterdir())
    for name in names:
        if (folder / "alone" / name).is_file():
            places = ("alone", "beside", "python")
            assert len({(folder / place / name).read_bytes() for place in places}) == 1, name


def test_a_file_without_a_sample_asks_as_before(printed: Printed, folder: Path) -> None:
    """So does one of before there was any: nothing in it is of a sample."""
    with zipfile.ZipFile(folder / "bare.pt") as archive:
        assert archive.namelist() == ["mpsearch.json", "weights.safetensors"]
        assert "sample" not in json.loads(archive.read("mpsearch.json"))
    assert "bare.pt carries no data; give data with --data" in printed("evaluate bare.pt", 2)
    assert "give data with --data" in printed("gate bare.pt --assignment a.json --max-kl 1", 2)
    assert "--fp32" in printed("export bare.pt -o none", 2)
    told = printed("apply model.pt a.json --no-sample -o bare.pt")
    assert "without a sample: export, evaluate and gate need data, or --fp32 MODEL" in told
    told = printed("apply model.pt a.json")
    assert "with 40 calibration samples and FP32's outputs for them" in told
    one = mpsearch.load_quantized(folder / "bare.pt")
    assert one.sample is None
    assert one.digest == mpsearch.load_quantized(folder / "quantized.pt").digest


def test_training_keeps_it(folder: Path) -> None:
    quantized = mpsearch.load_quantized(folder / "quantized.pt")
    kept = quantized.sample
    assert kept is not None
    module: Any = mpsearch.to_module(quantized)
    with torch.no_grad():
        module.head.bias.add_(1)
    assert mpsearch.from_module(module).sample == kept
    loaded = mpsearch.load(folder / "model.pt")
    data = bind(Arrays("sample", loaded.sample), loaded.network)
    once = mpsearch.FineTuning(epochs=1)
    choices = quantized.assignment
    for start, keep, digest in ((quantized, True, kept.digest), (quantized, False, None)):
        tuned = mpsearch.finetune(
            loaded.network, choices, data, data, once, start, keep_sample=keep
        ).network
        assert (tuned.sample and tuned.sample.digest) == digest
    begun = mpsearch.finetune(loaded.network, choices, data, data, once).network.sample
    assert begun is not None
    assert torch.equal(begun.outputs, loaded.network(begun.arrays["x0"]))


class _Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.classes, self.box = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = torch.relu(self.first(x))
        return {"class": self.classes(hidden), "box": self.box(hidden)}


def test_labels_come_back_as_they_were_given() -> None:
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    network = Network.from_module(_Two().eval(), (x,))
    arrays = {"x0": x, "y_class": torch.arange(300) % 3, "y_box": x[:, :2].clone()}
    data = bind(Arrays("own", arrays), network)
    kept = kept_sample(network, data)
    assert kept is not None
    assert len(kept) == 256
    again = bind(kept.named("q.pt"), network)
    assert again.digest == data.take(256, 0).digest
    assert again.loss is not None
    assert data.loss is not None
    assert again.loss.name == data.loss.name
    without = kept_sample(network, Data("own", (x,), None))
    assert without is not None
    assert sorted(without.arrays) == ["x0"]


def test_it_is_bounded_and_damage_is_seen(folder: Path, tmp_path: Path) -> None:
    quantized = mpsearch.load_quantized(folder / "quantized.pt")
    network = mpsearch.load(folder / "model.pt").network
    large = torch.zeros(1, 3, 8, 8).expand(9, 3, 8, 8)
    wide = replace(network, output_shape=(MOST_BYTES,))  # as if one sample took all of it
    assert kept_sample(wide, Data("x", (large,), None)) is None
    assert quantized.sample is not None
    for change, said in (
        ({"outputs": quantized.sample.outputs + 1}, "its sample is not the one of its digest"),
        ({"outputs": quantized.sample.outputs[1:]}, r"its sample has outputs \(39, 3\)"),
        ({"outputs": quantized.sample.outputs.long()}, "its sample has no outputs"),
        ({"arrays": {}}, "no array 'x0'"),
    ):
        changed = replace(quantized.sample, **change)
        _rewrite(folder / "quantized.pt", tmp_path / "q.pt", changed)
        with pytest.raises(InputError, match=said):
            mpsearch.load_quantized(tmp_path / "q.pt")


def _rewrite(file: Path, target: Path, sample: Any) -> None:
    """The file with another sample under the old digest."""
    from safetensors.torch import save

    with zipfile.ZipFile(file) as given, zipfile.ZipFile(target, "w") as changed:
        for name in given.namelist():
            content = given.read(name)
            if name == "sample.safetensors":
                content = save({n: x.contiguous() for n, x in sample.tensors().items()})
            changed.writestr(name, content)

"""Data that are not what a network was calibrated on are said, with their share."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mpsearch.cli import run
from mpsearch.data import Data
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save
from mpsearch.quantization.calibrated_inputs import input_ranges, outside_notes, ranges_of
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.quantization.quantized_file import load_quantized, save_quantized
from mpsearch.tables.choice import Choice


class Two(nn.Module):
    """A picture and a few numbers; both meet a layer at once."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 3), nn.Linear(3, 4)

    def forward(self, image: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.one(image).relu().mean((2, 3)) + self.two(numbers)
        return out


def _pictures(samples: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(samples, 1, 6, 6, generator=generator)
    return image, torch.randn(samples, 3, generator=generator)


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network.from_module(Two().eval(), _pictures(2))


@pytest.mark.parametrize("stored", [True, False], ids=["as calibrated", "by the quantizers"])
def test_what_was_calibrated_is_known_from_data_and_from_files(
    network: Network, stored: bool, tmp_path: Path
) -> None:
    calibration = Data("calibration", _pictures(64), None)
    choices = {layer.name: Choice(8, 8) for layer in network.layers}
    quantized = quantize(network, choices, calibrate(network, calibration))
    assert quantized.input_ranges is None
    if stored:
        quantized = replace(quantized, input_ranges=input_ranges(network, calibration))
    save_quantized(quantized, tmp_path / "q.pt")
    ranges = ranges_of(load_quantized(tmp_path / "q.pt"))
    for (low, high), x in zip(filter(None, ranges), calibration.inputs, strict=True):
        assert low <= float(x.min()) + 0.02
        assert high >= float(x.max()) - 0.02
    image, numbers = _pictures(50, 1)
    assert outside_notes(network, Data("same", (image, numbers), None), ranges, 64) == []
    raw = Data("raw", ((255 * image).round(), numbers), None)
    (note,) = outside_notes(network, raw, ranges, 64)
    assert note.startswith("input image: 9")
    assert "these are 0 to 255): is a scaling missing?" in note
    share = float((raw.inputs[0] > ranges[0][1] + 0.01).float().mean())  # type: ignore[index]
    assert float(note.split()[2]) == pytest.approx(100 * share, abs=0.06)


def test_a_few_values_outside_and_chance_are_not_worth_a_line(network: Network) -> None:
    image, numbers = _pictures(100)
    ranges = input_ranges(network, Data("c", (image, numbers), None))
    for count, lines in ((35, 0), (37, 1)):  # of 3,600 pixels
        bright = image.clone()
        bright.view(-1)[:count] = 3.0
        assert len(outside_notes(network, Data("d", (bright, numbers), None), ranges)) == lines
    assert outside_notes(network, Data("d", (image * 1.003, numbers), None), ranges) == []
    wide = Data("d", (image, numbers * 1.5), None)
    few = [ranges[0], input_ranges(network, Data("c", (image[:2], numbers[:2]), None))[1]]
    assert outside_notes(network, wide, few, 2) == []  # 6 numbers say nothing of a range
    assert len(outside_notes(network, wide, few)) == 1
    dark = Data("d", (image / 255, numbers), None)
    (note,) = outside_notes(network, dark, ranges)
    assert note.startswith("input image: its values fill 0.39 % of what was calibrated")
    none = [None, ranges[1]]
    drawn = torch.zeros_like(image)  # pictures that are nearly empty: 0.5 % of 3,600 pixels
    drawn.view(-1)[:18] = 255.0
    (note,) = outside_notes(network, Data("d", (drawn, numbers), None), ranges, 64)
    assert note.startswith("input image: 0.5 % of its values lie outside")
    assert outside_notes(network, Data("d", (drawn / 255, numbers), None), ranges, 64) == []
    assert outside_notes(network, dark, none) == []


def test_evaluate_gate_and_apply_say_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    image, numbers = _pictures(40)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save(Two().eval(), "model.pt", (image[:1], numbers[:1]), {"x0": image, "x1": numbers})
    labels = torch.arange(40).numpy() % 4
    np.savez("raw.npz", x0=(255 * image).round().numpy(), x1=numbers.numpy(), y=labels)
    np.savez("good.npz", x0=image.numpy(), x1=numbers.numpy(), y=labels)
    layers = {name: {"w_bits": 8, "a_bits": 8} for name in ("one", "two")}
    document = {"format": "mpsearch.assignment", "version": 1, "layers": layers}
    Path("assignment.json").write_text(json.dumps(document))
    assert run("apply model.pt".split()) == 0
    assert "is a scaling missing?" not in capsys.readouterr().out
    assert run("apply model.pt --data raw.npz -o raw.pt".split()) == 0
    assert "input image: " in capsys.readouterr().out
    for words in (
        "evaluate model.pt --uniform w8a8 --data",
        "evaluate quantized.pt --data",
        "gate model.pt --min-accuracy 0% --data",
        "gate quantized.pt --min-accuracy 0% --data",
    ):
        assert run([*words.split(), "raw.npz"]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if "a scaling" in line]
        assert len(lines) == 1, words
        assert "input image: 9" in lines[0]
        assert run([*words.split(), "good.npz"]) == 0
        assert "is a scaling missing?" not in capsys.readouterr().out
    assert run("evaluate quantized.pt --data raw.npz --json".split()) == 0
    said = json.loads(capsys.readouterr().out)["notes"]
    assert len(said) == 1
    assert json.loads(Path("evaluation.json").read_text())["notes"] == said

"""Times of every step of an exported network, and the layers that they count for."""

import json
import shutil
import subprocess
from pathlib import Path

import integer_networks
import pytest
import torch
from torch import nn

from mpsearch.c_export.folder import export_c
from mpsearch.calibration import calibrate
from mpsearch.choice import Choice
from mpsearch.data import Data
from mpsearch.integer.lowering import lower
from mpsearch.integer.owners import owners
from mpsearch.network import Network
from mpsearch.quantized import QuantizedNetwork, quantize

needs_make = pytest.mark.skipif(
    shutil.which("gcc") is None or shutil.which("make") is None, reason="there is no gcc or make"
)


def _quantized(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[QuantizedNetwork, Data]:
    network, data = Network.from_module(model, inputs), Data("test", inputs, None)
    choices = {layer.name: Choice(8, 8) for layer in network.layers}
    return quantize(network, choices, calibrate(network, data)), data


def test_what_follows_a_layer_counts_for_it() -> None:
    """By hand: relu(stem) runs in the stem, the padded shortcut hangs on the stem, the sum and the
    mean on the layer before them."""
    graph = lower(*_quantized(*integer_networks.build("option-a", 4)))
    found = {
        type(step).__name__: owner for step, owner in zip(graph.steps, owners(graph), strict=True)
    }
    assert found["Slice"] == found["Pad"] == "stem"
    assert found["Add"] == found["Mean"] == "deep"
    assert found["Linear"] == "head"


def test_what_comes_before_every_layer_counts_for_the_first_one_that_reads_it() -> None:
    class Cropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(2, 3, 2), nn.Linear(12, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.head(self.conv(x[:, :, 1:]).flatten(1))
            return result

    graph = lower(*_quantized(Cropped().eval(), (torch.randn(4, 2, 4, 3),)))
    assert set(owners(graph)) == {"conv", "head"}
    assert owners(graph)[0] == "conv"
    assert type(graph.steps[0]).__name__ == "Slice"


@needs_make
def test_every_step_is_timed_and_together_they_are_the_run(tmp_path: Path) -> None:
    quantized, data = _quantized(*integer_networks.build("pools", 4))
    steps = export_c(quantized, data, tmp_path).document["steps"]
    assert {step["layer"] for step in steps} == {"conv", "head"}
    subprocess.run(["make", "-s", "-C", tmp_path, "steps"], check=True, capture_output=True)
    call = [tmp_path / "build" / "step-times", tmp_path / "check" / "input.f32"]
    done = subprocess.run([*call, "101"], check=True, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["step"] for line in lines[:-1]] == list(range(1, len(steps) + 1))
    assert lines[-1]["runs"] == 101
    # a sum of medians is not the median of sums, and every step reads the clock
    together = sum(line["median_ns"] for line in lines[:-1])
    assert 0 < together < 3 * lines[-1]["whole_ns"]
    for bad in ("0", "1001", "x"):
        assert subprocess.run([*call, bad], capture_output=True).returncode == 2
    (tmp_path / "short").write_bytes(b"1234")
    short = subprocess.run([call[0], tmp_path / "short", "5"], capture_output=True, text=True)
    assert (short.returncode, short.stderr) == (
        2,
        "step-times: error: cannot read a whole sample\n",
    )

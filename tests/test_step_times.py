"""Times of every step of an exported network, and the layers that they count for."""

import shutil
import subprocess
from pathlib import Path

import integer_networks
import pytest
import torch
from torch import nn

from mpsearch.data import Data
from mpsearch.device.measured_table import by_layer
from mpsearch.device.tabulating import median_of_rounds, parse_step_times
from mpsearch.errors import InputError
from mpsearch.exporters.c.folder import export_c
from mpsearch.exporters.c.source import owners
from mpsearch.graph.network import Network
from mpsearch.integer.lowering import lower
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import QuantizedNetwork, quantize
from mpsearch.tables.choice import Choice

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
        type(step).__name__: owner
        for step, owner in zip(graph.steps, owners(graph.steps), strict=True)
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
    assert set(owners(graph.steps)) == {"conv", "head"}
    assert owners(graph.steps)[0] == "conv"
    assert type(graph.steps[0]).__name__ == "Slice"


@needs_make
def test_every_step_is_timed_and_together_they_are_the_run(tmp_path: Path) -> None:
    quantized, data = _quantized(*integer_networks.build("pools", 4))
    steps = export_c(quantized, data, tmp_path).document["steps"]
    assert {step["layer"] for step in steps} == {"conv", "head"}
    subprocess.run(["make", "-s", "-C", tmp_path, "steps"], check=True, capture_output=True)
    call = [tmp_path / "build" / "step-times", tmp_path / "check" / "input.f32"]
    done = subprocess.run([*call, "101"], check=True, capture_output=True, text=True)
    times = parse_step_times(done.stdout.splitlines(), len(steps))
    assert times.runs == 101
    # a sum of medians is not the median of sums, and every step reads the clock
    layers = by_layer([step["layer"] for step in steps], times.seconds)
    assert layers.keys() == {"conv", "head"}
    assert sum(layers.values()) == pytest.approx(sum(times.seconds))
    assert 0 < sum(times.seconds) < 3 * times.whole_s
    for bad in ("0", "1001", "x"):
        assert subprocess.run([*call, bad], capture_output=True).returncode == 2
    (tmp_path / "short").write_bytes(b"1234")
    short = subprocess.run([call[0], tmp_path / "short", "5"], capture_output=True, text=True)
    assert (short.returncode, short.stderr) == (
        2,
        "step-times: error: cannot read a whole sample\n",
    )


def test_times_are_read_added_up_and_taken_off_the_clock() -> None:
    """By hand: 1.2 and 3.2 us less 0.2 us; the middle of three rounds."""
    times = parse_step_times(["1 1200", "2 3200", "3 100", "0 200 4800 50"], 3)
    assert times.seconds == pytest.approx((1e-6, 3e-6, 0))
    assert times.whole_s == pytest.approx(4.8e-6)
    assert by_layer(["a", "b", "a"], times.seconds) == pytest.approx({"a": 1e-6, "b": 3e-6})
    assert median_of_rounds([{"a": 3.0}, {"a": 1.0}, {"a": 100.0}]) == {"a": 3.0}


@pytest.mark.parametrize(
    "lines",
    [[], ["1 5"], ["2 5", "0 1 2 3"], ["1 x", "0 1 2 3"], ["1 5", "0 1 2"], ["1 -5", "0 1 2 3"],
     ["1 5 6", "0 1 2 3"], ["1 5", "1 1 2 3"]],
)  # fmt: skip
def test_what_is_not_times_is_refused(lines: list[str]) -> None:
    with pytest.raises(InputError, match="did not print the times of 1 steps"):
        parse_step_times(lines, 1)

"""Samples that do not lie in front, and inputs that are not per sample: found, said, refused."""

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mpsearch
from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.inputs import ExampleInputs
from mpsearch.graph.network import Network
from mpsearch.importers.loading import ModelSource, load_network


class Streaming(nn.Module):
    """A GRU over a piece of a stream: states [layers, N, H] in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(6, 5, num_layers=2, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, h = self.rnn(x, h)
        return self.head(y), h


class Reader(nn.Module):
    """A CRNN, which ends in the layout that nn.CTCLoss takes: [T, N, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn = nn.Conv2d(1, 4, 3, padding=1), nn.LSTM(16, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.conv(x)).permute(3, 0, 1, 2).flatten(2)
        found: torch.Tensor = self.head(self.rnn(y)[0])
        return found


class TimeFirst(nn.Module):
    """nn.LSTM's own layout on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.rnn(x)[0]
        return found


class Voice(nn.Module):
    """A voice activity detector: a rate that decides, and states [1, N, H]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn = nn.Conv1d(1, 8, 16, 8), nn.LSTM(8, 8)
        self.head = nn.Linear(8, 1)

    def forward(
        self, x: torch.Tensor, sr: int, h: torch.Tensor, c: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if sr == 16000:
            x = x * 2.0
        elif sr == 8000:
            x = x * 3.0
        y = torch.relu(self.conv(x[:, None])).permute(2, 0, 1).to(x.dtype)
        y, (h, c) = self.rnn(y, (h, c))
        return torch.sigmoid(self.head(y[-1])), h, c


class Gain(nn.Module):
    """A number beside the signal."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(x * gain)
        return found


def _made(kind: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def _first(outputs: Any, dims: tuple[int, ...]) -> torch.Tensor:
    values = outputs if isinstance(outputs, tuple) else (outputs,)
    return torch.cat([y.movedim(d, 0).flatten(1) for y, d in zip(values, dims, strict=True)], 1)


X, H = torch.randn(4, 7, 6), torch.randn(2, 4, 5)
WAVE, STATES = torch.randn(3, 64), (torch.randn(1, 3, 8), torch.randn(1, 3, 8))
PICTURES = torch.randn(4, 1, 4, 9)


@pytest.mark.parametrize(
    ("examples", "batch_dim"),
    [
        ((X, H), None),
        ((X[:1], H[:, :1]), None),
        ((X[:2], H[:, :2]), None),  # as many layers as samples
        ((X[:1], H[:, :1]), {"h": 1, "output1": -2}),
        ({"h": H[:, :1], "x": X[:1]}, {"h": 1}),
    ],
)
def test_states_are_taken_and_given_by_sample(
    examples: ExampleInputs, batch_dim: dict[str, int] | None, tmp_path: Path
) -> None:
    model = _made(Streaming)
    model.train()
    mpsearch.save(model, tmp_path / "model.pt", examples, batch_dim=batch_dim)
    assert all(module.training for module in model.modules())
    network = mpsearch.load(tmp_path / "model.pt").network
    assert network.input_names == ("x", "h")
    assert network.input_shapes == ((7, 6), (2, 5))
    assert [(o.name, o.shape) for o in network.outputs] == [
        ("output0", (7, 3)),
        ("output1", (2, 5)),
    ]
    assert {layer.name for layer in network.layers} >= {"rnn.weight_ih_l1", "head"}
    with torch.no_grad():
        expected = _first(model.eval()(X, H), (0, 1))
        torch.testing.assert_close(network(X, H.movedim(1, 0)), expected, rtol=1e-4, atol=1e-5)


def test_time_major_outputs_and_inputs_become_samples() -> None:
    reader, time_first = _made(Reader), _made(TimeFirst)
    network = Network.from_module(reader, (PICTURES[:1],))
    again = Network.from_module(time_first, (X.movedim(0, 1),), {"x": 1})
    with torch.no_grad():
        expected = reader(PICTURES).movedim(1, 0)
        torch.testing.assert_close(network(PICTURES), expected, rtol=1e-4, atol=1e-5)
        expected = time_first(X.movedim(0, 1)).movedim(1, 0)
        torch.testing.assert_close(again(X), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="--batch-dim"):
        Network.from_module(time_first, (X.movedim(0, 1),))


@pytest.mark.parametrize(
    ("examples", "gain"),
    [
        ((torch.zeros(2, 8), torch.tensor(1.0)), 2.5),
        ((torch.zeros(2, 8),), 2.5),
        ({"x": torch.zeros(2, 8)}, torch.arange(8.0)),
    ],
)
def test_an_input_becomes_a_constant(examples: ExampleInputs, gain: Any, tmp_path: Path) -> None:
    model, x = _made(Gain), torch.randn(5, 8)
    mpsearch.save(model, tmp_path / "model.pt", examples, fix={"gain": gain})
    network = mpsearch.load(tmp_path / "model.pt").network
    assert network.input_names == ("x",)
    with torch.no_grad():
        torch.testing.assert_close(network(x), model(x, gain))


class Cut(nn.Module):
    """Takes the first samples, up to an end."""

    def __init__(self, end: int) -> None:
        super().__init__()
        self.head, self.end = nn.Linear(8, 4), end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(x[: self.end])
        return found


def test_an_upper_bound_that_no_batch_reaches_is_no_constant() -> None:
    network = Network.from_module(Cut(10**9), (torch.zeros(1, 8),))
    assert len(network(torch.zeros(50, 8))) == 50
    with pytest.raises(InputError, match="at most 99 samples at once; expected any number"):
        Network.from_module(Cut(100), (torch.zeros(1, 8),))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["module", "script", "traced", "export", "onnx"])
def test_a_voice_detector_loads_from_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    """The rate decides which branch is taken, in each of them."""
    model, path = _made(Voice), tmp_path / "model"
    one = (WAVE[:1], 8000, STATES[0][:, :1], STATES[1][:, :1])
    source = ModelSource(str(path), trust=True, fix={"sr": 8000})
    arrays = {"x0": WAVE, "x1": STATES[0].movedim(1, 0), "x2": STATES[1].movedim(1, 0)}
    if kind == "module":
        torch.save(model, path)
    elif kind == "script":
        torch.jit.save(torch.jit.script(model), path)
    elif kind == "traced":
        pair = (one[0], torch.tensor(8000), *one[2:])
        torch.jit.save(torch.jit.trace(model, pair, check_trace=False), path)
    elif kind == "export":
        batch = torch.export.Dim("batch", min=1)
        two = (WAVE[:2], 8000, STATES[0][:, :2], STATES[1][:, :2])
        shapes = {"x": {0: batch}, "sr": None, "h": {1: batch}, "c": {1: batch}}
        with path.open("wb") as stream:
            torch.export.save(torch.export.export(model, two, dynamic_shapes=shapes), stream)
    else:
        pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
        scripted = torch.jit.script(model)
        names = ["x", "sr", "h", "c"]
        axes = {"x": {0: "batch"}, "h": {1: "batch"}, "c": {1: "batch"}}
        torch.onnx.export(
            scripted, (one[0], torch.tensor(8000), *one[2:]), str(path), dynamo=False,
            input_names=names, output_names=["y", "hn", "cn"], dynamic_axes=axes,
        )  # fmt: skip
    network = load_network(source, Arrays("own", arrays)).network
    assert network.input_names == ("x", "h", "c")
    assert network.input_shapes == ((64,), (1, 8), (1, 8))
    with torch.no_grad():
        expected = _first(model(WAVE, 8000, *STATES), (0, 1, 1))
        torch.testing.assert_close(network(*arrays.values()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "examples", "batch_dim", "fix", "message"),
    [
        (Streaming, (X[:1], H[:, :1]), {"h": 0}, {}, "does not run with .* x=0, h=0.*--batch-dim"),
        (Streaming, (X[:1], H[:, :1]), {"h": 3}, {}, "'h' has 3 dimensions; expected 0 to 2"),
        (Streaming, (X[:1], H[:, :1]), {"hh": 1}, {}, "no input or output 'hh'.*x, h, output0"),
        (Streaming, (X[:1], H[:, :1]), {"output1": 0}, {}, "output1=0: output .* dimension 1"),
        (Streaming, (X[:1], H[:, :1]), {"h": 1}, {"h": 0.0}, "expected one of them"),
        (Voice, (WAVE[:1], 16000, *STATES), {}, {}, "hold int for 'sr'.*--fix sr=16000"),
        (Voice, (WAVE[:1], 16000, *STATES), {}, {"sr": 0.5}, "'sr' takes whole numbers"),
        (Voice, (WAVE[:1], 16000, *STATES), {}, {"rs": 1}, "no input 'rs'; expected one of x, sr"),
        (Voice, (WAVE[:1], *STATES), {}, {"rs": 1}, "rs=1: the model takes x, sr, h, c"),
        (Gain, (X[0], torch.tensor(1.0)), {}, {}, "'gain' is a single number.*--fix gain=1.0"),
        (Gain, (X[0], torch.tensor(1.0)), {}, {"gain": [1, 2]}, "2 numbers.*a single number"),
        (Gain, (X[0], torch.tensor(1.0)), {}, {"gain": float("nan")}, "expected numbers"),
        (Gain, (X[0], torch.tensor(1.0)), {}, {"x": 0, "gain": 1}, "constant .x, gain."),
        (Gain, (X[0], torch.tensor(1.0)), {}, 16000, "got int for fix; expected .*\"sr\": 16000"),
        (Streaming, (X[:1], H[:, :1]), 1, {}, "got int for batch_dim; expected .*\"h\": 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_or_does_not_fit_is_named(
    kind: Callable[[], nn.Module],
    examples: ExampleInputs,
    batch_dim: Mapping[str, int],
    fix: Mapping[str, Any],
    message: str,
) -> None:
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        Network.from_module(_made(kind), examples, batch_dim, fix)
    assert len(caught.value.lines) <= 2


@pytest.mark.parametrize("form", ["script", "program"])
def test_save_takes_what_torch_makes_of_a_module(form: str, tmp_path: Path) -> None:
    """As `profile` does, with the same options, told as Python calls them where they are wrong."""
    model, examples = _made(Gain), (torch.randn(3, 8), torch.tensor(2.5))
    made: Any = torch.jit.script(model) if form == "script" else torch.export.export(
        model, examples, dynamic_shapes=({0: torch.export.Dim("free")}, None)
    )  # fmt: skip
    mpsearch.save(made, tmp_path / "made.pt", examples, fix={"gain": 2.5})
    network, x = mpsearch.load(tmp_path / "made.pt").network, torch.randn(5, 8)
    with torch.no_grad():
        torch.testing.assert_close(network(x), model(x, torch.tensor(2.5)))
    with pytest.raises(InputError, match=re.escape('fix={"kain": 1}: the network has no input')):
        mpsearch.save(made, tmp_path / "made.pt", examples, fix={"kain": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--fix gain", "expected NAME=VALUE such as sr=16000"),
        ("--fix gain=loud", "expected a number, true, false, or a list such as 8,8"),
        ("--fix gain=1 --fix gain=2", "for 'gain' more than once"),
        ("--batch-dim x=first", "expected the number of a dimension"),
        ("--fix gain=2 --fix kain=3", "no input 'kain'|takes x, gain"),
    ],
)
def test_options_are_read_with_care(
    options: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.jit.save(torch.jit.script(_made(Gain)), tmp_path / "gain.ts")
    with contextlib.chdir(tmp_path):
        command = f"convert gain.ts --trust --input-shape 8 -o model.pt {options}"
        assert run(command.split()) == 2
    assert re.search(message, capsys.readouterr().err)


def test_the_loop_reads_the_foreign_file_with_the_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A converted file holds constants and order; a number in the data is passed over."""
    torch.jit.save(torch.jit.script(_made(Gain)), tmp_path / "gain.ts")
    x = torch.randn(40, 8)
    labels = _made(Gain)(x, torch.tensor(2.5)).argmax(1)
    np.savez(tmp_path / "data.npz", x0=x.numpy(), x1=np.float32(2.5), y=labels.numpy())
    how = "--data data.npz --trust --fix gain=2.5"
    with contextlib.chdir(tmp_path):
        for command in (
            f"convert gain.ts {how} -o model.pt",
            f"profile gain.ts {how} --metric weight-mse -o table.csv",
            "solve table.csv --size 100% -o assignment.json",
            f"apply gain.ts assignment.json {how} -o quantized.pt",
            f"evaluate gain.ts {how} -o measured.json",
        ):
            assert run(command.split()) == 0, command
        capsys.readouterr()
        assert run("profile model.pt --fix gain=2 --data data.npz".split()) == 2
        assert "model.pt is an mpsearch file and needs no --fix" in capsys.readouterr().err
        network = mpsearch.load("model.pt").network
    assert network.input_names == ("x",)
    with torch.no_grad():
        torch.testing.assert_close(network(x), _made(Gain)(x, torch.tensor(2.5)))

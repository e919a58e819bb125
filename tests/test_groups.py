"""A scale for every few weights: `w4g32a8` from the quantizer to files, training and ONNX, against
loops over groups."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mpsearch
from mpsearch.cli import run
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.exporters.checking import check_quantized
from mpsearch.finetuning.student import student
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save
from mpsearch.post_training import learned_scales
from mpsearch.post_training.compensated_rounding import (
    _Rounding,
    nearest_to_outputs,
    round_to_outputs,
)
from mpsearch.post_training.kept_repairs import Yardstick, undone_sentence
from mpsearch.post_training.layer_moments import Moments
from mpsearch.post_training.repairing import PLAIN, PostTraining, quantize_after_training
from mpsearch.profiling.profile import ProfileSettings, parse_choices, profile
from mpsearch.quantization import quantizer
from mpsearch.quantization.packing import layer_bytes, size_bytes, unpack
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantized_file import load_quantized, payload, save_quantized
from mpsearch.quantization.quantizer import quantize_rows, quantize_weight
from mpsearch.quantization.scale_layout import ScaleLayout
from mpsearch.tables.choice import Choice
from mpsearch.tables.stored_widths import choices_for, excludes_for
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import format_size


@pytest.fixture(autouse=True)
def _few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a scale: 400 take these tests a minute."""
    monkeypatch.setattr(quantizer, "_MOST_CLIPS", 40)


class Everything(nn.Module):
    """A layer of each kind: channels of 9 to 27 weights, so that groups seldom fit."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(20, 12)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.out = nn.Linear(12, 5)
        self.c1 = nn.Conv1d(3, 6, 5)
        self.up = nn.ConvTranspose1d(6, 4, 4, groups=2)
        self.c2 = nn.Conv2d(3, 5, 3)
        self.each = nn.Conv2d(5, 5, 3, groups=5)
        self.head = nn.Linear(14, 4)

    def forward(
        self, tokens: torch.Tensor, sound: torch.Tensor, image: torch.Tensor
    ) -> torch.Tensor:
        x = self.token(tokens)
        x = self.out(x + self.attention(x, x, x, need_weights=False)[0]).mean(1)
        y = self.up(torch.relu(self.c1(sound))).mean(2)
        z = self.each(torch.relu(self.c2(image))).mean((2, 3))
        result: torch.Tensor = self.head(torch.cat([x, y, z], 1))
        return result


def built() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(3)
    x = (torch.randint(0, 20, (24, 5)), torch.randn(24, 3, 9), torch.randn(24, 3, 6, 6))
    return Everything().eval(), x


@cache
def prepared() -> tuple[Network, Data]:
    model, x = built()
    return Network.from_module(model, x), Data("test", x, torch.arange(24) % 4)


@cache
def quantized(choice: Choice, settings: PostTraining = PLAIN) -> QuantizedNetwork:
    network, data = prepared()
    everywhere = {layer.name: choice for layer in network.layers}
    return quantize_after_training(network, everywhere, data, settings)


def _runs(n: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, n, size)]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("n", "size"), [(32, 8), (27, 8), (10, 9), (5, 1)])
def test_a_group_is_quantized_as_a_channel_of_its_own(bits: int, n: int, size: int) -> None:
    rows = torch.randn(4, n, generator=torch.Generator().manual_seed(n)) * torch.logspace(-2, 0, n)
    rows[1, :size] = 0  # a dead group
    found = quantize_weight(rows, bits, ScaleLayout(group_size=size))
    assert found.scales.shape == (4, math.ceil(n / size))
    values = found.dequantize()
    for place, run_ in enumerate(_runs(n, size)):
        alone = quantize_weight(rows[:, run_], bits)
        assert torch.equal(found.codes[:, run_], alone.codes)
        assert torch.equal(found.scales[:, place], alone.scales)
        assert torch.equal(values[:, run_], alone.codes * alone.scales[:, None])


@pytest.mark.parametrize("size", [4, 5])
def test_steps_of_groups_train_as_those_of_channels(size: int) -> None:
    rows = torch.randn(3, 14, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scales = torch.rand(3, math.ceil(14 / size)).add(0.1).requires_grad_()
    upstream = torch.randn(3, 14, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(quantize_rows(rows, scales, 3, size), (rows, scales), upstream)
    for place, run_ in enumerate(_runs(14, size)):
        part, scale = rows[:, run_].detach(), scales[:, place].detach()
        part.requires_grad_(), scale.requires_grad_()
        alone = torch.autograd.grad(quantize_rows(part, scale, 3), (part, scale), upstream[:, run_])
        assert torch.equal(found[0][:, run_], alone[0])
        # the last group counts as a whole one: LSQ's factor is 1/sqrt(size · Qp)
        torch.testing.assert_close(found[1][:, place], alone[1] * (part.shape[1] / size) ** 0.5)


def _moments(seed: int) -> tuple[torch.Tensor, Moments]:
    generator = torch.Generator().manual_seed(seed)
    rows, x = torch.randn(6, 20, generator=generator), torch.randn(20, 60, generator=generator)
    x = x + 2 * x[:1]  # inputs that vary together
    gram = (x @ x.T / 60)[None]
    return rows, Moments(gram, None, torch.tensor([1e-3]), rows @ (gram[0] + 1e-3 * torch.eye(20)))


@pytest.mark.parametrize("size", [4, 6])
def test_rounding_to_outputs_in_groups(size: int) -> None:
    rows, seen = _moments(size)
    layout = ScaleLayout(group_size=size)
    nearest = quantize_weight(rows, 3, layout)
    found = round_to_outputs(nearest.scales, 3, seen, layout)
    whole = round_to_outputs(quantize_weight(rows, 3).scales, 3, seen)
    chosen = nearest_to_outputs(rows, nearest.scales, 3, seen, layout)
    errors = [float(seen.errors(w.dequantize()).sum()) for w in (found, chosen, nearest, whole)]
    assert errors[0] < 0.5 * errors[2]
    assert errors[0] < 0.7 * errors[3]
    assert errors[1] < 0.98 * errors[2]
    gram = seen.block(0, 20)[0].double()

    def at(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """The error of each channel, scales spelled out for every weight."""
        change = codes.double() * scales.double().repeat_interleave(size, 1)[:, :20] - rows.double()
        return (change @ gram * change).sum(1)

    best = at(found.codes, found.scales)  # no single code is better
    for column in range(20):
        for step in (-1, 1):
            other = found.codes.clone()
            other[:, column] = (other[:, column] + step).clamp(-4, 3)
            assert bool((at(other, found.scales) >= best * (1 - 1e-4)).all())
    fitted = _Rounding(seen, -4, 3, layout).fitted(nearest.codes.float(), nearest.scales)
    expected = nearest.scales.clone()  # group after group: E(s) = E(0) + b·s + c·s², from 3 values
    for group in range(expected.shape[1]):
        values = []
        for scale in (0.0, 1.0, 2.0):
            expected[:, group] = scale
            values.append(at(nearest.codes, expected))
        curvature = (values[2] - 2 * values[1] + values[0]) / 2
        expected[:, group] = (values[0] - values[1] + curvature) / (2 * curvature)
    torch.testing.assert_close(fitted, expected, rtol=1e-3, atol=1e-4)


def test_a_group_of_the_whole_channel_is_a_scale_per_channel(tmp_path: Path) -> None:
    """The numbers of w4a8, in everything but its name."""
    network, data = prepared()
    plain, grouped = (quantized(Choice(4, 8, size), PostTraining()) for size in (0, 64))
    assert torch.equal(plain(*data.inputs), grouped(*data.inputs))
    for layer in network.layers:
        one, other = (payload(layer, q.layers[layer.name], q.source) for q in (plain, grouped))
        assert {name: tensor.tolist() for name, tensor in one.items()} == {
            name: tensor.tolist() for name, tensor in other.items()
        }
    save_quantized(grouped, tmp_path / "grouped.pt")
    assert load_quantized(tmp_path / "grouped.pt").digest == grouped.digest


SETTINGS = {
    "nearest": PLAIN,
    "default": PostTraining(),
    "scales": PostTraining("mse", False, False, False, "nearest", 0, True, "32"),
    "channels": PostTraining(per_tensor=True, equalize=True, wide="32"),
}


@pytest.mark.parametrize(
    ("choice", "way"),
    [
        (Choice(3, 8, 4), "nearest"),
        (Choice(3, 8, 5), "default"),
        (Choice(2, 16, 8), "scales"),
        (Choice(4, 32, 7), "channels"),
    ],
)
def test_every_kind_of_layer_in_memory_file_and_module(
    choice: Choice, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned_scales, "STEPS", 4)
    network, data = prepared()
    found, size = quantized(choice, SETTINGS[way]), choice.group_size
    path = tmp_path / "quantized.pt"
    save_quantized(found, path)
    again = load_quantized(path)
    assert again.digest == found.digest
    assert torch.equal(again(*data.inputs), found(*data.inputs))
    total = 0
    for layer in network.layers:
        rows, _ = found.source.weight_rows(layer)
        stored = payload(layer, again.layers[layer.name], again.source)
        total += sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
        packed, scales = stored[f"{layer.name}:packed"], stored[f"{layer.name}:scales"]
        codes = unpack(packed.numpy(), choice.w_bits, layer.weights).reshape(layer.channels, -1)
        assert scales.shape == (layer.channels, math.ceil(codes.shape[1] / size))
        expected = np.empty(codes.shape, np.float32)
        for channel in range(layer.channels):
            for column in range(codes.shape[1]):
                scale = scales[channel, column // size].item()
                expected[channel, column] = np.float32(codes[channel, column]) * np.float32(scale)
        assert np.array_equal(rows.numpy(), expected)
    assert total == size_bytes(network, found.assignment)
    # Training begins with the same outputs and integers, and ends with others of the same form.
    module = mpsearch.to_module(found, network if SETTINGS[way].equalize is False else None)
    assert torch.equal(module(*data.inputs), found(*data.inputs))
    assert mpsearch.from_module(module).digest == found.digest
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    module(*data.inputs).square().sum().backward()
    optimizer.step()
    trained = mpsearch.from_module(module)
    assert torch.equal(trained(*data.inputs), module(*data.inputs))
    assert trained.digest != found.digest
    one, other = (state.layers["out"].weight for state in (trained, found))
    assert one is not None
    assert other is not None
    assert one.scales.shape == other.scales.shape
    assert not torch.equal(one.scales, other.scales)


def test_repairs_help_and_what_cannot_be_is_said() -> None:
    network, data = prepared()
    noise = Yardstick(network, data).noise
    plain = noise(quantized(Choice(3, 8, 5)))
    assert noise(quantized(Choice(3, 8, 5), PostTraining())) < 0.5 * plain
    assert plain < 0.8 * noise(quantized(Choice(3, 8)))
    said = undone_sentence(quantized(Choice(4, 32, 7), SETTINGS["channels"]).undone)
    assert "left out: --per-tensor for token, attention.in_proj_weight, " in said
    assert "groups of weights keep scales of their own" in said


def test_frozen_weights_keep_their_code() -> None:
    """As fine-tuning holds those that oscillate, whatever their group's step becomes."""
    network, _ = prepared()
    learner = student(network, quantized(Choice(3, 8, 5)))
    layer = next(layer for layer in network.layers if layer.name == "c2")
    codes = learner.codes(layer)
    where = torch.rand(codes.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    with torch.no_grad():
        for name, parameter in learner.parameters.items():
            parameter.add_(0.3 if name in learner.trainable.steps else 0.1)
    assert not torch.equal(learner.codes(layer), codes)
    learner.hold(layer, where, codes)
    assert torch.equal(learner.codes(layer)[where], codes[where])


def test_omega_and_size_of_groups(tmp_path: Path) -> None:
    network, data = prepared()
    choices = tuple(Choice(3, 8, size) for size in (0, 64, 8, 5))
    for metric in ("sqnr", "weight-mse"):
        table = profile(network, data, None, ProfileSettings(metric, choices, samples=12))
        at = {(row.layer, row.choice): row for row in table.rows()}
        for layer in network.layers:
            plain, whole, some, few = (at[layer.name, choice] for choice in choices)
            assert whole.omega == plain.omega
            assert whole.resources == plain.resources
            assert some.resources["bops"] == few.resources["bops"] == plain.resources["bops"]
        least = [math.fsum(at[n.name, c].omega for n in network.layers) for c in choices]
        assert least[3] < least[2] < least[0]
    rows, _ = network.weight_rows(network.layers[0])
    loop = sum(
        float((quantize_weight(rows[:, run_], 3).dequantize() - rows[:, run_]).square().sum())
        for run_ in _runs(rows.shape[1], 5)
    )
    mse = profile(network, data, tmp_path / "t.csv", ProfileSettings("weight-mse", choices))
    assert next(iter(mse.rows())).layer == network.layers[0].name
    found = [row.omega for row in mse.rows() if row.layer == network.layers[0].name]
    assert found[3] == pytest.approx(loop, rel=1e-5)
    c2 = next(layer for layer in network.layers if layer.name == "c2")
    # 5 channels of 27 weights: 4 groups of 8
    assert layer_bytes(c2, Choice(3, 8, 8)) == math.ceil(5 * 27 * 3 / 8) + 4 * 5 + 4 * 5 * 4
    again = LayerTable.read_csv(tmp_path / "t.csv")
    shapes = {layer.name: layer.shape for layer in again.layers}
    assert shapes["c2"] == (5, 3, 3, 3)
    assert shapes["up"] == (4, 3, 4)  # output channels first
    assert shapes["token"] == (20, 12)
    assert again.digest == mse.digest
    profile(network, data, tmp_path / "plain.csv", ProfileSettings("weight-mse", choices[:1]))
    header = (tmp_path / "plain.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert "choice" not in header
    assert "shape" not in header


@pytest.mark.parametrize("choice", [Choice(3, 8, 5), Choice(4, 32, 4), Choice(8, 8, 64)])
def test_onnx_has_blocks(choice: Choice) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from mpsearch.exporters.onnx.exported import check
    from mpsearch.exporters.onnx.model import onnx_model

    _, data = prepared()
    found = quantized(choice)
    model = onnx_model(found)
    onnx.checker.check_model(model, full_check=True)
    checked = check(model.SerializeToString(), found, data)
    assert checked.recommended is not None
    best = next(f for f in checked.findings if f.setting == checked.recommended)
    assert best.largest < 0.1
    blocks = [
        attribute.i for node in model.graph.node if node.op_type == "DequantizeLinear"
        for attribute in node.attribute if attribute.name == "block_size"
    ]  # fmt: skip
    uses = sum(len(layer.nodes) for layer in found.source.layers)
    assert blocks == ([choice.group_size] * uses if choice.group_size < 20 else [])


def test_integers_refuse_groups_by_name() -> None:
    network, data = prepared()
    found = check_quantized(quantized(Choice(3, 8, 5)), data)
    expected = (
        "layers 'token', 'attention.in_proj_weight', 'attention.out_proj' and 6 more have scales "
        "for groups of weights (9 × w3g5a8): only --format onnx has groups; for the others choose "
        "a scale per channel, such as w4a8"
    )
    for form in ("c", "litert", "tflm"):
        assert [refusal.why for refusal in found[form].refused][:1] == [expected], form
    assert found["onnx"].ok is not False
    names = (Choice(4, 8), Choice(4, 8, 32))
    assert choices_for("c", ["linear"], names) == names[:1]
    assert choices_for("onnx", ["linear"], names) == names
    settings = ProfileSettings("weight-mse", (Choice(8, 8), *names))
    table = profile(network, data, None, settings)
    assert excludes_for("litert", table)[-1] == "w4g32a8"
    grouped = profile(network, data, None, ProfileSettings("weight-mse", names[1:]))
    with pytest.raises(InputError, match=r"layer 'token' has only scales for groups of weights"):
        excludes_for("tflm", grouped)


def test_fewer_bits_for_activations_are_no_reason_to_drop_groups() -> None:
    """w4a8 has no more bytes than w4g4a4, and more bits for activations, but other weights."""
    rows = "fc,w4a8,2,10,64\nfc,w4g4a4,1,20,32\nfc,w4a4,3,10,32\n"
    lines = [line.split(",") for line in rows.split()]
    frame: dict[str, list[Any]] = {
        "layer": [],
        "choice": [],
        "omega": [],
        "size_bytes": [],
        "bops": [],
    }
    for line in lines:
        for key, value in zip(frame, line, strict=True):
            frame[key].append(value if key in ("layer", "choice") else float(value))
    table = LayerTable.from_pandas(__import__("pandas").DataFrame(frame))
    assert str(mpsearch.solve(table, size="20B").choices["fc"]) == "w4g4a4"


def test_the_commands_take_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, data = prepared()
    model, bits = tmp_path / "model.pt", tmp_path / "bits.json"
    samples = tmp_path / "data.npz"
    x0, x1, x2 = (x.numpy() for x in data.inputs)
    np.savez(samples, x0=x0, x1=x1, x2=x2, y=np.arange(24) % 4)
    save(built()[0], model, data.inputs)
    table = tmp_path / "profile.csv"
    choices = ["--choices", "w4g8a8,w4a8,w8a8"]
    ranks = ["--data", samples, "--metric", "weight-mse", "-o", table]
    assert _said(capsys, "profile", model, *choices, *ranks, "--dry-run")
    assert not table.exists()
    _said(capsys, "profile", model, *choices, *ranks)
    assert {row.split(",")[6] for row in table.read_text(encoding="utf-8").splitlines()[1:]} == {
        "w4a8", "w4g8a8", "w8a8",
    }  # fmt: skip
    _said(capsys, "solve", table, "--size", "w4g8a8", "--exclude", "w8a8", "-o", bits)
    assignment = json.loads(bits.read_text(encoding="utf-8"))
    assert {"choice": "w4g8a8", "w_bits": 4, "a_bits": 8} in assignment["layers"].values()
    applied = tmp_path / "applied.pt"
    _said(capsys, "apply", model, bits, "--data", samples, "--rounding", "nearest", "--wide", "32",
          "-o", applied)  # fmt: skip
    measured = _said(capsys, "evaluate", applied, "--data", samples, "-o", tmp_path / "e.json")
    stored = load_quantized(applied)
    assert format_size(size_bytes(stored.source, stored.assignment)) in measured
    assert run(["export", str(applied), "--format", "c", "-o", str(tmp_path / "c")]) == 2
    assert "scales for groups of weights" in capsys.readouterr().err
    assert parse_choices("4g16,8", None) == (Choice(4, 4, 16), Choice(8, 8))
    with pytest.raises(InputError, match="got the choice 'w4g0a4'; expected the form w4a8 or w4g"):
        parse_choices("4g0", None)


def _said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code = run([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out

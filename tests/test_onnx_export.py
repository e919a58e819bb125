"""`mpsearch export --format onnx`: onnxruntime computes what the fake-quantized network means."""

import json
import os
import random
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import integer_networks
import networks
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mpsearch.cli import run  # noqa: E402
from mpsearch.data import Data, bind, read_arrays  # noqa: E402
from mpsearch.errors import InputError  # noqa: E402
from mpsearch.exporters.agreement_of_outputs import Part, Reference  # noqa: E402
from mpsearch.exporters.onnx.between_quantizers import (  # noqa: E402
    BASIC,
    CLEANUP,
    DEFAULT,
    PRECISE,
    WITHOUT_FUSION,
    SessionSetting,
)
from mpsearch.exporters.onnx.exported import (  # noqa: E402
    Check,
    Finding,
    check,
    finding,
    layer_rows,
    outputs_under,
)
from mpsearch.exporters.onnx.model import onnx_model  # noqa: E402
from mpsearch.exporters.reference_outputs import reference_of  # noqa: E402
from mpsearch.graph.network import Network  # noqa: E402
from mpsearch.graph.network_file import save  # noqa: E402
from mpsearch.importers.loading import ModelSource, load_network  # noqa: E402
from mpsearch.integer.inference import outputs  # noqa: E402
from mpsearch.models.registry import architecture, build  # noqa: E402
from mpsearch.quantization.calibration import calibrate  # noqa: E402
from mpsearch.quantization.packing import bops, size_bytes  # noqa: E402
from mpsearch.quantization.quantized import QuantizedNetwork, quantize  # noqa: E402
from mpsearch.quantization.quantized_file import save_quantized  # noqa: E402
from mpsearch.tables.choice import Choice  # noqa: E402

BITS = (2, 3, 4, 5, 6, 7, 8, 16)
EXACT = 0.01  # of a step: what another order of float additions can do
AS_WRITTEN = SessionSetting("no optimisation", level="ORT_DISABLE_ALL")


@cache
def _subject(name: str) -> tuple[Network, Data]:
    if name in networks.BUILDERS:
        model, inputs, _ = networks.build(name, 32)
    elif name.startswith("random"):
        model, inputs = integer_networks.build_random(int(name[6:]), 32)
    elif name in integer_networks.BUILDERS:
        model, inputs = integer_networks.build(name, 32)
    else:
        generator = torch.Generator().manual_seed(0)
        shapes = architecture(name).inputs.values()
        inputs = tuple(torch.randn(12, *shape, generator=generator) for shape in shapes)
        model = build(name)
    return Network.from_module(model, inputs), Data("test", inputs, None)


def _quantized(network: Network, data: Data, choice: str | int) -> QuantizedNetwork:
    """One choice everywhere, or random ones by seed."""
    names = [layer.name for layer in network.layers]
    source = random.Random(choice)
    choices = {
        name: Choice.parse(choice)
        if isinstance(choice, str)
        else Choice(source.choice(BITS), source.choice(BITS))
        for name in names
    }
    return quantize(network, choices, calibrate(network, data))


def _under(quantized: QuantizedNetwork, data: Data, setting: SessionSetting) -> np.ndarray:
    return outputs_under(setting, onnx_model(quantized).SerializeToString(), quantized, data)


def _finding(quantized: QuantizedNetwork, data: Data, setting: SessionSetting) -> Finding:
    return finding(setting, _under(quantized, data, setting), reference_of(quantized, data))


# Their outputs have copies of elements side by side: which of equal ones is the class is noise.
TIED = {"moved", "rearranged"}


def _check_exact(quantized: QuantizedNetwork, data: Data, tied: bool = False) -> None:
    """As written the model equals the network but for float additions; the recommended way agrees.

    One sample in ten may hold a value that lies on the border between two codes.
    """
    expected = outputs(quantized, data).numpy().reshape(len(data), -1)
    got = _under(quantized, data, AS_WRITTEN).reshape(len(data), -1)
    classes = expected.dtype == np.int64
    step = 1.0 if classes else (float(np.ptp(expected)) or 1.0) / 255
    assert np.mean(np.abs(got - expected).max(1) <= EXACT * step) >= 0.9
    assert np.mean(got.argmax(1) == expected.argmax(1)) >= 0.95
    if not tied:
        checked = check(onnx_model(quantized).SerializeToString(), quantized, data)
        assert checked.recommended is not None, checked


KNOWN = [name for name in integer_networks.BUILDERS if name not in ("functions", "gates")]
SMALL = (*KNOWN, "residual", "two-inputs", "shared", "smooth", "weight-norm")


@pytest.mark.parametrize("name", SMALL)
def test_every_operator_computes_what_the_network_means(name: str) -> None:
    network, data = _subject(name)
    for choice in ("w8a8", len(name)):
        _check_exact(_quantized(network, data, choice), data, name in TIED)


@pytest.mark.parametrize("seed", range(6))
def test_random_networks_with_random_assignments(seed: int) -> None:
    network, data = _subject(f"random{seed + 100}")
    _check_exact(_quantized(network, data, seed), data)


@pytest.mark.parametrize("name", ["tinym2net-battlefield", "tinym2net-covid"])
@pytest.mark.parametrize("choice", ["w8a8", "w4a4", 1])
def test_tinym2net(name: str, choice: str | int) -> None:
    network, data = _subject(name)
    quantized = _quantized(network, data, choice)
    assert check(onnx_model(quantized).SerializeToString(), quantized, data).recommended
    found = _finding(quantized, data, WITHOUT_FUSION)
    assert found.agrees, found


@pytest.mark.data
@pytest.mark.skipif("MPSEARCH_DATA" not in os.environ, reason="MPSEARCH_DATA is not set")
@pytest.mark.parametrize("choice", ["w8a8", "w4a8", 1])
def test_resnet20(choice: str | int) -> None:
    path = Path(os.environ["MPSEARCH_DATA"], "pretrained", "resnet20.safetensors")
    network = load_network(ModelSource(str(path), model="resnet20")).network
    data = bind(read_arrays("cifar10:train"), network).take(32, 0)
    quantized = _quantized(network, data, choice)
    checked = check(onnx_model(quantized).SerializeToString(), quantized, data)
    assert checked.recommended is not None, checked


@pytest.mark.parametrize("choice", ["w32a8", "w8a32", "w32a32", "w16a16"])
def test_layers_in_float_and_of_16_bits(choice: str) -> None:
    network, data = _subject("two-inputs")
    _check_exact(_quantized(network, data, choice), data)


class _Arithmetic(nn.Module):
    """Operators that no integer network has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2, output_padding=1)
        self.head = nn.Linear(3, 3)
        self.factor = nn.Parameter(torch.tensor([[[0.5]], [[2.0]], [[1.5]]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = functional.silu(self.conv(x))
        out = functional.hardswish(self.up(out + out)) * self.factor - 0.25
        out = torch.sigmoid(functional.leaky_relu(out, 0.2)) + torch.tanh(out)
        result: torch.Tensor = self.head(functional.hardsigmoid(out).amax((2, 3)) / 2.0)
        return result


def test_float_operators_between_layers() -> None:
    inputs = (torch.randn(24, 2, 5, 4, generator=torch.Generator().manual_seed(0)),)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _Arithmetic().eval()
    network, data = Network.from_module(model, inputs), Data("test", inputs, None)
    _check_exact(_quantized(network, data, "w6a8"), data)


def test_a_linear_layer_used_over_positions_and_over_rows() -> None:
    """MatMul and Gemm read the same weights in different orders."""
    inputs = (torch.randn(24, 5, 6, generator=torch.Generator().manual_seed(0)),)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = integer_networks.Function(
            lambda m, x: m.a(torch.relu(m.a(x)).mean(1)), a=nn.Linear(6, 6)
        ).eval()
    network, data = Network.from_module(model, inputs), Data("test", inputs, None)
    quantized = _quantized(network, data, "w8a8")
    _check_exact(quantized, data)
    (row,) = layer_rows(quantized, onnx_model(quantized))
    assert row["weight_bytes"] == 36 < 72 < row["stored_bytes"]


def _codes(tensor: Any) -> tuple[np.ndarray, int]:
    """(integers, bits) of an initializer, unpacked here and not by onnx: two's complement."""
    kind = onnx.TensorProto.DataType.Name(tensor.data_type)
    bits = int(kind.removeprefix("INT"))
    raw = np.frombuffer(tensor.raw_data, dtype=np.uint8 if bits == 4 else f"<i{bits // 8}")
    if bits == 4:
        both = np.stack([raw & 15, raw >> 4], axis=1).reshape(-1).astype(np.int16)
        raw = np.where(both > 7, both - 16, both)
    count = int(np.prod(tensor.dims))
    assert len(raw) - count in (0, 1)
    return raw[:count].reshape(tensor.dims), bits


def test_weights_are_packed_and_the_bytes_are_those_that_are_said() -> None:
    network, data = _subject("two-inputs")
    for seed in range(3):
        quantized = _quantized(network, data, seed)
        model = onnx_model(quantized)
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for row, layer in zip(layer_rows(quantized, model), network.layers, strict=True):
            weight = quantized.layers[layer.name].weight
            assert weight is not None
            codes, bits = _codes(constants[f"{layer.name}/weight/codes"])
            assert bits == row["stored_w_bits"] >= row["w_bits"] == weight_bits(quantized, layer)
            assert bits < 2 * row["w_bits"] or bits == 4
            np.testing.assert_array_equal(codes.reshape(weight.codes.shape), weight.codes.numpy())
            assert len(constants[f"{layer.name}/weight/codes"].raw_data) == row["weight_bytes"]
            rest = 8 * layer.channels + (layer.channels * bits + 7) // 8 if layer.bias_name else 0
            rest += 4 * layer.channels  # two kinds of scales, biases, zero points of the weights
            bounds = 4 * (row["a_bits"] != row["stored_a_bits"])
            activation = 4 + max(1, row["stored_a_bits"] // 8) + bounds
            assert row["stored_bytes"] == row["weight_bytes"] + rest + activation
    assert onnx.numpy_helper.to_array(constants["dense/weight/scales"]).shape == (5,)


def weight_bits(quantized: QuantizedNetwork, layer: Any) -> int:
    return quantized.assignment[layer.name].w_bits


def test_biases_are_integers_at_the_scale_of_the_accumulator() -> None:
    network, data = _subject("two-inputs")
    quantized = _quantized(network, data, "w4a8")
    constants = {t.name: t for t in onnx_model(quantized).graph.initializer}
    layer = quantized.layers["head"]
    assert layer.weight is not None
    assert layer.bias_codes is not None
    codes = onnx.numpy_helper.to_array(constants["head/bias/codes"])
    scales = onnx.numpy_helper.to_array(constants["head/bias/scales"])
    assert codes.dtype == np.int32
    np.testing.assert_array_equal(codes, layer.bias_codes.numpy())
    expected = layer.weight.scales.numpy().astype(np.float64) * layer.activation.scale
    np.testing.assert_allclose(scales, expected, rtol=1e-7)


def test_quantizers_of_8_bits_stand_before_a_concatenation_too() -> None:
    """There onnxruntime needs them for integer kernels; 4-bit codes it cannot concatenate."""
    network, data = _subject("two-inputs")
    for choice, early in (("w8a8", True), ("w4a4", False), ("w16a16", False)):
        model = onnx_model(_quantized(network, data, choice))
        producers = {node.output[0]: node.op_type for node in model.graph.node}
        (cat,) = (node for node in model.graph.node if node.op_type == "Concat")
        assert [producers[name] == "DequantizeLinear" for name in cat.input] == [early] * 2


def test_the_checker_finds_what_onnxruntime_gets_wrong() -> None:
    """If one of these fails, a newer onnxruntime is better: docs/onnx.md lists them."""
    network, data = _subject("tinym2net-battlefield")
    w4a4 = _quantized(network, data, "w4a4")
    with pytest.raises(Exception, match=r"MaxPool.*uint4|uint4.*MaxPool"):
        _finding(w4a4, data, DEFAULT)
    w4a8 = _quantized(network, data, "w4a8")
    wrong = _finding(w4a8, data, CLEANUP)
    assert not wrong.agrees
    assert wrong.outputs[0].assigned.within_step == 0
    assert "DIFFERS" in wrong.lines()[0]
    for setting in (DEFAULT, WITHOUT_FUSION, BASIC):
        assert _finding(w4a8, data, setting).agrees
    assert _finding(_quantized(network, data, "w8a8"), data, PRECISE).agrees


def test_another_network_agrees_nowhere() -> None:
    network, data = _subject("residual")
    model = onnx_model(_quantized(network, data, "w2a2")).SerializeToString()
    checked = check(model, _quantized(network, data, "w8a8"), data)
    assert checked.recommended is None
    assert not any(finding.agrees for finding in checked.findings)


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    assert run(["export", *arguments]) == code
    printed = capsys.readouterr()
    return printed.err if code == 2 else printed.out


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QuantizedNetwork:
    """quantized.pt and data.npz in the working directory, mixed bits."""
    monkeypatch.chdir(tmp_path)
    network, data = _subject("two-inputs")
    quantized = _quantized(network, data, 2)
    save_quantized(quantized, "quantized.pt")
    x0, x1 = (x.numpy() for x in data.inputs)
    np.savez("data.npz", x0=x0, x1=x1)
    return quantized


ARGUMENTS = ("quantized.pt", "--format", "onnx", "--calibration", "data.npz", "-o", "net.onnx")


def test_the_command_writes_the_model_and_what_it_found(
    stored: QuantizedNetwork, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", *ARGUMENTS]) == 0
    printed = capsys.readouterr().out
    assert "use: session.disable_quant_qdq=1" in printed
    document = json.loads(Path("net.onnx.json").read_text())
    model = onnx.load("net.onnx")
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert metadata["mpsearch.recommended"] == document["recommended"]
    assert metadata["mpsearch.check"] == document["check"]
    assert metadata["mpsearch.layers"]["head"] == [
        stored.assignment["head"].w_bits, stored.assignment["head"].a_bits,
    ]  # fmt: skip
    assert document["file_bytes"] == Path("net.onnx").stat().st_size
    assert document["size_bytes"] == size_bytes(stored.source, stored.assignment)
    assert document["bops"] == bops(stored.source, stored.assignment)
    assert document["check"]["findings"][0]["setting"] == "default options"
    for row in document["layers"]:
        for kind in "wa":
            wider = row[f"{kind}_bits"] != row[f"stored_{kind}_bits"]
            said = f"{row['layer']} ({row[f'{kind}_bits']} as {row[f'stored_{kind}_bits']})"
            assert (said in printed) == wider or not wider
    assert run(["export", *ARGUMENTS, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["check"] == document["check"]
    assert run(["export", *ARGUMENTS, "--no-check"]) == 0
    assert "not checked: not asked for" in capsys.readouterr().out
    assert json.loads(Path("net.onnx.json").read_text())["recommended"] is None
    assert run(["export", *ARGUMENTS[:3], *ARGUMENTS[5:]]) == 0
    assert "not checked: no data" in capsys.readouterr().out


def test_a_model_that_agrees_nowhere_is_not_written(
    stored: QuantizedNetwork, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.tile(np.array([0, 1], np.float32), (4, 1))
    reference = Reference(expected, (Part("output", (0, 1)),))

    def disagree(*_: object) -> Check:
        away = finding(DEFAULT, expected + 90 / 255, reference)
        other = finding(BASIC, expected[:, :1], reference)
        return Check("1.31.1", 4, (away, other, Finding(CLEANUP, error="no kernel")), None)

    monkeypatch.setattr("mpsearch.exporters.onnx.exported.check", disagree)
    printed = _refused(capsys, *ARGUMENTS, code=1)
    assert printed.startswith("not written: no option of onnxruntime 1.31.1")
    assert "default options" in printed
    assert "output: 90 steps RMS, largest 90, 0.0% of 4 within one" in printed
    assert "DIFFERS: 0.0% within one step, expected 75.0%; 90 steps away" in printed
    assert "does not run: got outputs (4, 1); the network's are (4, 2)" in printed
    assert "does not run: no kernel" in printed
    assert not Path("net.onnx").exists()


def test_bad_calls_are_said_in_a_line(
    stored: QuantizedNetwork, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = ARGUMENTS[:-1]
    assert "ends in .onnx" in _refused(capsys, *start, "quantized.pt")
    assert "no folder absent" in _refused(capsys, *start, "absent/net.onnx")
    Path("folder.onnx").mkdir()
    assert "is a folder" in _refused(capsys, *start, "folder.onnx")
    assert "--wide" in _refused(capsys, *ARGUMENTS, "--wide", "16")
    assert "--check needs data" in _refused(capsys, *ARGUMENTS[:3], "--check", *ARGUMENTS[5:])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "python -m pip install '.[onnx]'" in _refused(capsys, *ARGUMENTS, "--check")
    monkeypatch.setitem(sys.modules, "onnx", None)
    refused = _refused(capsys, *ARGUMENTS, "--no-check")
    assert "the ONNX export needs the package onnx" in refused
    assert not Path("net.onnx").exists()


def _export(model: nn.Module, *inputs: torch.Tensor) -> Any:
    network, data = Network.from_module(model.eval(), inputs), Data("test", inputs, None)
    return onnx_model(_quantized(network, data, "w8a8"))


def test_all_that_has_no_onnx_form_is_named_at_once() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        out = m.a(x).cumprod(1).cumprod(1).cummax(1)[0]
        flat = out.roll(1) * 0 + out
        result: torch.Tensor = m.a(flat.repeat_interleave(1).view_as(flat))
        return result

    words = (
        r"5 nodes are refused\n"
        r"  cumprod \(2: cumprod, cumprod_1\) has no form in the ONNX export\n"
        r"  cummax \(1: cummax\) has no form in the ONNX export\n"
        r"  roll \(1: roll\) rolls without a dimension\n"
        r"  repeat_interleave \(1: repeat_interleave\) repeats without a dimension"
    )
    with pytest.raises(InputError, match=words):
        _export(integer_networks.Function(forward, a=nn.Linear(6, 6)), torch.randn(4, 6))


class _Tokens(nn.Module):
    """Whole numbers enter, heads are in the batch, a layer has its weight by input channel."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.up = nn.ConvTranspose1d(8, 6, 3, stride=2, groups=2)
        self.flat = nn.ConvTranspose1d(6, 6, 2, groups=6)
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: torch.Tensor, seen: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.table(tokens).transpose(0, 1)  # [T, N, C]
        x = x + self.attention(x, x, x, key_padding_mask=~seen)[0]
        image = self.flat(torch.relu(self.up(x.permute(1, 2, 0))))
        return {"ends": self.head(image.mean(2)), "time_major": x.transpose(0, 1)}


@pytest.mark.parametrize("choice", ["w8a8", "w4a32"])
def test_whole_numbers_attention_and_grouped_transposed_convolutions(choice: str) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 9, (24, 5), generator=generator)
    inputs = (tokens, torch.arange(5).expand(24, 5) < tokens[:, :1].clamp(min=1))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network.from_module(_Tokens().eval(), inputs)
    _check_exact(
        _quantized(network, Data("test", inputs, None), choice), Data("test", inputs, None)
    )


def test_the_commands_of_the_page_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "onnx.md").read_text()
    monkeypatch.chdir(tmp_path)
    first, last = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(first, "docs/onnx.md", "exec"), {})
    (commands,) = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    for words in map(str.split, commands.strip().splitlines()):
        assert words[0] == "mpsearch"
        assert run(words[1:]) == 0
    capsys.readouterr()
    exec(compile(last, "docs/onnx.md", "exec"), {})
    assert "(16, 4)" in capsys.readouterr().out


def test_several_outputs_keep_their_names_and_shapes() -> None:
    """Also where a node inside or an input has the name, and where one is given twice."""

    def forward(m: Any, x: torch.Tensor) -> Any:
        maps = torch.relu(m.c(x))
        score = m.f(maps.mean((2, 3)))
        return {
            "score": score, "relu": score.mean(1), "maps": maps, "x": torch.relu(score),
            "again": score, "c/weight/scales": torch.cat([100 * score, score], 1),
        }  # fmt: skip

    inputs = (torch.randn(24, 2, 5, 4, generator=torch.Generator().manual_seed(0)),)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = integer_networks.Function(forward, c=nn.Conv2d(2, 3, 3), f=nn.Linear(3, 4)).eval()
    network, data = Network.from_module(model, inputs), Data("test", inputs, None)
    quantized = _quantized(network, data, "w8a8")
    _check_exact(quantized, data)
    written = onnx_model(quantized)
    names = ["score", "relu", "maps", "x_out", "again", "c/weight/scales_out"]
    assert [output.name for output in written.graph.output] == names
    shapes = [[d.dim_value for d in o.type.tensor_type.shape.dim][1:] for o in written.graph.output]
    assert shapes == [[4], [], [3, 3, 2], [4], [4], [8]]
    (finding, *_) = check(written.SerializeToString(), quantized, data).findings
    assert [part.name for part in finding.outputs] == [
        "score", "relu", "maps", "x", "again", "c/weight/scales",
        "c/weight/scales, part 1 of 2", "c/weight/scales, part 2 of 2",
    ]  # fmt: skip


def test_the_float_models_sample_is_checked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model, inputs = integer_networks.build("classes", 8)
    network, data = Network.from_module(model, inputs), Data("test", inputs, None)
    save(model, "model.pt", inputs, {"x0": inputs[0]})
    save_quantized(_quantized(network, data, "w8a8"), "quantized.pt")
    arguments = ["quantized.pt", "--format", "onnx", "--fp32", "model.pt", "-o", "net.onnx"]
    assert run(["export", *arguments]) == 0
    assert "on 8 samples" in capsys.readouterr().out

"""`mpsearch export --format litert`: the interpreter computes what the quantized network means."""

import os
import random
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import attention_networks
import integer_networks
import networks
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from mpsearch.cli import run
from mpsearch.data import Data, bind, read_arrays
from mpsearch.errors import InputError
from mpsearch.exporters.litert.check import KERNELS, Checked, LiteRtNetwork, check, describe
from mpsearch.exporters.litert.flatbuffer import LiteRtFile, Scales
from mpsearch.exporters.litert.model import LiteRtModel, build, finer, raise_bits
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.integer.inference import outputs
from mpsearch.models.registry import architecture
from mpsearch.models.registry import build as bundled
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.packing import bops, size_bytes
from mpsearch.quantization.quantized import QuantizedNetwork, assemble, quantize
from mpsearch.quantization.quantized_file import save_quantized
from mpsearch.quantization.quantizer import ActivationQuantizer
from mpsearch.running.plugins import litert
from mpsearch.tables.choice import Choice

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed (extra litert)")

BITS = (2, 3, 4, 5, 6, 7, 8)
PAGE = Path(__file__).parent.parent / "docs" / "litert.md"


def _quantized(network: Network, data: Data, choice: str | int) -> QuantizedNetwork:
    source = random.Random(choice)
    names = [layer.name for layer in network.layers]
    choices = {
        name: Choice.parse(choice)
        if isinstance(choice, str)
        else Choice(source.choice(BITS), source.choice(BITS))
        for name in names
    }
    return quantize(network, choices, calibrate(network, data))


def _network(name: str, samples: int = 24) -> tuple[Network, Data]:
    if name in networks.BUILDERS:
        model, inputs, _ = networks.build(name, samples)
        return Network.from_module(model, inputs), Data("test", inputs, None)
    source = attention_networks if name in attention_networks.NETWORKS else integer_networks
    network, inputs = source.exported(name)
    return network, Data("test", tuple(x[:samples] for x in inputs), None)


def _check(quantized: QuantizedNetwork, data: Data) -> tuple[LiteRtModel, tuple[Checked, ...]]:
    """The file is right in both sets of kernels, and stores what it says."""
    model = build(quantized, data)
    found = check(model, data)
    assert [entry.kernels for entry in found] == list(KERNELS)
    for entry in found:
        assert entry.ok, entry
        assert max(output.meant.rms_steps for output in entry.network) <= 4
        assert max(output.assigned.rms_steps for output in entry.meaning) <= 2
    _check_constants(model)
    return model, found


def _check_constants(model: LiteRtModel) -> None:
    """Read back from the file: every layer's codes, scales, biases, and the sum of their bytes."""
    schema = litert("schema_py_generated")
    read = schema.ModelT.InitFromPackedBuf(model.content)
    (graph,) = read.subgraphs
    constants = {tensor.name.decode(): tensor for tensor in graph.tensors if tensor.buffer}
    total = 0
    for name, layer in model.network.layers.items():
        assert layer.weight is not None
        tensor = constants[name]
        data = np.asarray(read.buffers[tensor.buffer].data, dtype=np.uint8)
        stored = _unpacked(data, tensor.type, schema, int(np.prod(tensor.shape)))
        stored = stored.reshape(tensor.shape)
        if _layer(model, name).kind == "embedding":  # in the codes of what reads it
            (scale,), (zero,) = tensor.quantization.scale, tensor.quantization.zeroPoint
            wanted = np.clip(layer.weight.dequantize() / scale + zero, -128, 127)
            assert float(np.abs(stored - wanted.numpy()).max()) <= 0.501
            total += len(data)
            continue
        axis = tensor.quantization.quantizedDimension
        rows = np.moveaxis(stored, axis, 0)
        given = layer.weight.codes.numpy()
        if len(tensor.shape) == 4:  # [out, h, w, in], or [1, h, w, out] where the axis is 3
            shape = model.network.source.weight(_layer(model, name)).shape
            kernel = (1, *shape[2:])[-2:]
            given = given.reshape(len(given), -1, *kernel).transpose(0, 2, 3, 1)
            rows = rows.reshape(given.shape)
        np.testing.assert_array_equal(rows, given)
        np.testing.assert_array_equal(tensor.quantization.scale, layer.weight.scales.numpy())
        assert not np.any(tensor.quantization.zeroPoint)
        total += len(data) + 4 * len(tensor.quantization.scale)
        bias = constants.get(f"{name} bias")
        if bias is None:
            assert layer.bias_codes is None
            continue
        total += len(read.buffers[bias.buffer].data)
        codes = np.frombuffer(np.asarray(read.buffers[bias.buffer].data).tobytes(), "<i4")
        wanted = layer.bias_codes
        np.testing.assert_array_equal(codes, np.zeros(len(codes)) if wanted is None else wanted)
    assert total == sum(layer.size_bytes for layer in model.layers)


def _layer(model: LiteRtModel, name: str) -> Any:
    return next(layer for layer in model.network.source.layers if layer.name == name)


def _unpacked(data: np.ndarray, kind: int, schema: Any, count: int) -> np.ndarray:
    """Signed codes, one at a time, lowest bits first."""
    bits = {schema.TensorType.INT8: 8, schema.TensorType.INT4: 4, schema.TensorType.INT2: 2}[kind]
    assert len(data) == -(count * bits // -8)
    places = range(0, 8, bits)
    unsigned = [(byte >> place) % 2**bits for byte in data.tolist() for place in places][:count]
    return np.array([code - 2**bits if code >= 2 ** (bits - 1) else code for code in unsigned])


REFUSED = {"pools", "upwards-grouped"}
NORMS = {"attention": 3, "fused": 5, "windows": 2, "images": 4}
NAMES = [name for name in integer_networks.BUILDERS if name not in REFUSED]


@pytest.mark.parametrize("name", [*NAMES, "residual", "two-inputs", "shared"])
def test_every_operator_computes_what_the_file_means(name: str) -> None:
    network, data = _network(name)
    for choice in (len(name),) if name in integer_networks.LARGE else ("w8a8", len(name)):
        _check(_quantized(network, data, choice), data)


@pytest.mark.parametrize(("name", "norms"), NORMS.items())
def test_norms_are_in_float_and_products_are_not(name: str, norms: int) -> None:
    network, data = _network(name)
    quantized = _quantized(network, data, "w8a8")
    model, _ = _check(quantized, data)
    assert describe(quantized, model)["in_float"] == {"norm": norms}


@pytest.mark.parametrize("name", ["two-inputs", "moves"])
def test_without_sums_and_means_xnnpack_is_within_one_step(name: str) -> None:
    """Every tensor has the codes of a layer: nothing is rounded that the network does not round."""
    network, data = _network(name)
    _, found = _check(_quantized(network, data, "w4a8"), data)
    for entry in found:
        assert entry.meaning[0].assigned.largest_steps <= 1.01
        assert entry.network[0].assigned.largest_steps <= 1.51


@pytest.mark.parametrize("seed", range(6))
def test_random_networks_with_random_assignments(seed: int) -> None:
    model, inputs = integer_networks.build_random(seed + 100, samples=24)
    network, data = Network.from_module(model, inputs), Data("test", inputs, None)
    _check(_quantized(network, data, seed), data)


def _windows(m: Any, x: torch.Tensor) -> Any:
    out = torch.relu(m.conv(x))
    most = functional.max_pool2d(out, 3, 2, padding=1, ceil_mode=True)
    counted = functional.avg_pool2d(most, 3, 2, padding=1)
    same = functional.avg_pool2d(most, 3, 1, padding=1, count_include_pad=False)
    inside = functional.avg_pool2d(most, 2)
    return m.head(torch.cat([x.flatten(1) for x in (counted, same, inside)], dim=1))


def test_pools_with_every_padding() -> None:
    model = integer_networks.Function(_windows, conv=nn.Conv2d(2, 3, 2), head=nn.LazyLinear(4))
    inputs = (torch.randn(24, 2, 9, 10, generator=torch.Generator().manual_seed(0)),)
    model(*inputs)
    network, data = Network.from_module(model.eval(), inputs), Data("test", inputs, None)
    _check(_quantized(network, data, "w8a8"), data)


def test_no_operator_reads_constants_alone() -> None:
    """A gate of a stored token, and a state that starts as stored: XNNPACK aborts on such ones."""

    def compute(m: Any, x: torch.Tensor) -> Any:
        token = m.token.weight.expand(len(x), -1)
        state = m.cell(x[:, 0], torch.tanh(token))
        return m.head(m.cell(x[:, 1], state) * torch.sigmoid(m.gate(token)) + token)

    given = integer_networks.Function(
        compute,
        token=nn.Linear(4, 1, bias=False), gate=nn.Linear(4, 4), cell=nn.GRUCell(3, 4),
        head=nn.Linear(4, 2),
    )  # fmt: skip
    inputs = (torch.randn(24, 2, 3, generator=torch.Generator().manual_seed(0)),)
    network, data = Network.from_module(given.eval(), inputs), Data("test", inputs, None)
    model = build(_quantized(network, data, "w8a8"), data)
    runtime = litert("interpreter").Interpreter(model_content=model.content)
    computed = {runtime.get_input_details()[0]["index"]}
    for operator in runtime._get_ops_details():
        assert computed.intersection(operator["inputs"].tolist()), operator["op_name"]
        computed.update(operator["outputs"].tolist())
    assert all(entry.ok for entry in check(model, data))


def test_what_litert_cannot_compute_is_refused_by_name() -> None:
    network, data = _network("upwards-grouped")
    with pytest.raises(InputError, match="'read' is a transposed convolution with groups"):
        build(_quantized(network, data, "w8a8"), data)
    network, data = _network("pools")
    with pytest.raises(InputError, match=r"avg_pool2d .node 'avg_pool2d'. has unequal windows"):
        build(_quantized(network, data, "w8a8"), data)
    stretched = integer_networks.Function(
        lambda m, x: functional.interpolate(m.conv(x), scale_factor=1.3, mode="bilinear").flatten(
            1
        ),
        conv=nn.Conv2d(1, 2, 2),
    )
    inputs = (torch.randn(4, 1, 6, 7, generator=torch.Generator().manual_seed(0)),)
    network, data = Network.from_module(stretched.eval(), inputs), Data("test", inputs, None)
    with pytest.raises(InputError, match="factor that is not the quotient of its sizes"):
        build(_quantized(network, data, "w8a8"), data)
    dilated = integer_networks.Function(
        lambda m, x: m.head(functional.max_pool2d(m.conv(x), 2, 1, dilation=2).flatten(1)),
        conv=nn.Conv2d(1, 2, 2), head=nn.LazyLinear(3),
    )  # fmt: skip
    inputs = (torch.randn(4, 1, 6, 6),)
    dilated(*inputs)
    network, data = Network.from_module(dilated.eval(), inputs), Data("test", inputs, None)
    with pytest.raises(InputError, match=r"max_pool2d .node 'max_pool2d'. has dilated windows"):
        build(_quantized(network, data, "w8a8"), data)


@pytest.mark.parametrize(
    ("choice", "why"), [("w8a16", "at most 8 bits"), ("w16a8", "at most 8 bits"),
                        ("w32a32", "left in float")],
)  # fmt: skip
def test_sixteen_bits_and_float_are_refused_by_name(choice: str, why: str) -> None:
    network, data = _network("classes")
    with pytest.raises(InputError, match=f"layer 'first' .*{why}"):
        build(_quantized(network, data, choice), data)


@pytest.mark.parametrize("name", ["tinym2net-battlefield", "tinym2net-covid"])
def test_tinym2net(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = architecture(name).inputs.values()
    inputs = tuple(torch.randn(6, *shape, generator=generator) for shape in shapes)
    network, data = Network.from_module(bundled(name), inputs), Data("random", inputs, None)
    model, found = _check(_quantized(network, data, 1), data)
    assert all(entry.network[0].meant.same_class == 1 for entry in found)
    assert all(entry.network[0].meant.rms_steps < 1 for entry in found)
    assert {layer.w_bits for layer in model.layers} >= {4, 8}


@pytest.mark.data
@pytest.mark.skipif("MPSEARCH_DATA" not in os.environ, reason="MPSEARCH_DATA is not set")
@pytest.mark.parametrize("choice", ["w8a8", "w4a4"])
def test_resnet20(choice: str) -> None:
    path = Path(os.environ["MPSEARCH_DATA"], "pretrained", "resnet20.safetensors")
    network = load_network(ModelSource(str(path), model="resnet20")).network
    data = bind(read_arrays("cifar10:train"), network).take(64, 0)
    model, _ = _check(_quantized(network, data, choice), data)
    assert len(model.raised) == (0 if choice == "w8a8" else len(network.layers))
    test = bind(read_arrays("cifar10:test"), network).take(100, 1)
    got = LiteRtNetwork(model.content, network)(*test.inputs)
    with torch.no_grad():
        wanted = model.network(*test.inputs)
    assert int((got.argmax(1) == wanted.argmax(1)).sum()) >= 97


def test_raised_bits_are_listed_and_counted() -> None:
    network, data = _network("two-inputs")
    names = [layer.name for layer in network.layers]
    given = ("w4a8", "w3a8", "w5a6", "w2a4", "w8a8")
    choices = {name: Choice.parse(text) for name, text in zip(names, given, strict=True)}
    assert [layer.kind for layer in network.layers] == [
        "conv2d", "depthwise_conv2d", "conv2d", "linear", "linear",
    ]  # fmt: skip
    quantized = quantize(network, choices, calibrate(network, data))
    model, _ = _check(quantized, data)
    assert [(entry.layer, str(entry.assigned), str(entry.stored)) for entry in model.raised] == [
        (names[1], "w3a8", "w4a8"), (names[2], "w5a6", "w8a8"), (names[3], "w2a4", "w2a8"),
    ]  # fmt: skip
    stored = {**choices, names[1]: Choice(4, 8), names[2]: Choice(8, 8), names[3]: Choice(2, 8)}
    figures = describe(quantized, model)
    assert figures["stored_bytes"] == size_bytes(network, stored)
    assert figures["assigned_bytes"] == size_bytes(network, choices)
    assert (figures["stored_bops"], figures["assigned_bops"]) == (
        bops(network, stored), bops(network, choices),
    )  # fmt: skip
    for name in names:  # raising weights changes no number
        for before, after in ((quantized.layers[name].weight, model.network.layers[name].weight),):
            assert before is not None
            assert after is not None
            assert torch.equal(before.dequantize(), after.dequantize())


def test_a_convolution_without_bias_stores_zeros() -> None:
    network, data = _network("option-a")
    quantized = _quantized(network, data, "w8a8")
    model, _ = _check(quantized, data)
    extra = describe(quantized, model)["stored_bytes"] - size_bytes(network, quantized.assignment)
    assert extra == 4 * 5  # `deep`, five channels


@pytest.mark.parametrize("bits", BITS)
def test_a_raised_activation_keeps_its_range_and_gets_finer(bits: int) -> None:
    for zero_point in range(0, 2**bits, max(1, 2**bits // 7)):
        coarse = ActivationQuantizer(bits, 0.125, zero_point)
        fine = finer(coarse, 8)
        ends = [0.125 * (code - zero_point) for code in (0, 2**bits - 1)]
        for end, code in zip(ends, (0, 255), strict=True):
            assert abs(fine.scale * (code - fine.zero_point) - end) <= 0.5 * fine.scale + 1e-6
        x = torch.linspace(1.2 * ends[0] - 0.01, 1.2 * ends[1] + 0.01, 1001)
        inside = x.clamp(*ends)
        errors = [(q.fake_quantize(x) - inside).square().mean() for q in (coarse, fine)]
        assert errors[1] <= errors[0] + 1e-9
        if bits in (2, 4):  # 255 is a multiple of 3 and of 15: every old value is a new one
            old = coarse.fake_quantize(x)
            torch.testing.assert_close(fine.fake_quantize(old), old, atol=1e-6, rtol=0)


def test_a_raised_bias_is_the_same_real_number() -> None:
    network, data = _network("two-inputs")
    quantized = _quantized(network, data, "w4a4")
    raised, _ = raise_bits(quantized)
    for name, layer in raised.layers.items():
        before, after = quantized.layers[name].bias(), layer.bias()
        assert before is not None
        assert after is not None
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)


def _dead(factor: float) -> nn.Module:
    """Two channels of every kind of layer nearly dead, with biases that matter."""

    def forward(m: Any, x: torch.Tensor) -> Any:
        image = torch.relu(m.depth(torch.relu(m.full(x))))
        return m.head(torch.relu(m.line(image.mean((2, 3)))))

    layers: dict[str, Any] = {
        "full": nn.Conv2d(3, 4, 3, padding=1), "depth": nn.Conv2d(4, 4, 3, padding=1, groups=4),
        "line": nn.Linear(4, 6), "head": nn.Linear(6, 4),
    }  # fmt: skip
    model = integer_networks.Function(forward, **layers).eval()
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in layers.values():
            layer.weight.copy_(0.5 * torch.randn(layer.weight.shape, generator=source))
            layer.bias.copy_(torch.rand(layer.bias.shape, generator=source))
            layer.weight[:2] *= factor
            layer.bias[:2] = torch.tensor([5.0, 3.0])
    return model


def _decibels(wanted: torch.Tensor, got: torch.Tensor) -> float:
    return float(10 * torch.log10(wanted.square().sum() / (wanted - got).square().sum()))


@pytest.mark.parametrize("factor", [0.0, 1e-9, 1e-4])
def test_more_bits_never_make_a_network_worse_than_it_was_assigned(factor: float) -> None:
    """A bias that is 2^30 steps at 2 bits would be 85 times as many at 8; LiteRT's linear layers
    with 4-bit weights already lose one of 2^27."""
    inputs = (torch.randn(32, 3, 6, 6, generator=torch.Generator().manual_seed(1)),)
    model = _dead(factor)
    network, data = Network.from_module(model, inputs), Data("test", inputs, None)
    with torch.no_grad():
        wanted = model(*inputs)
    for choice in ("w2a2", "w3a5", "w4a4", "w4a8", "w8a7"):
        quantized = _quantized(network, data, choice)
        assigned = _decibels(wanted, outputs(quantized, data))
        built, found = _check(quantized, data)
        for entry in found:
            got = outputs(LiteRtNetwork(built.content, network, entry.kernels), data)
            assert _decibels(wanted, got) > min(assigned, 30) - 4, (choice, entry.kernels)


def test_a_clamped_bias_is_seen_against_what_was_assigned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file then computes exactly what it means, and that is not what was assigned."""
    inputs = (torch.randn(32, 3, 6, 6, generator=torch.Generator().manual_seed(1)),)
    network, data = Network.from_module(_dead(1e-9), inputs), Data("test", inputs, None)
    monkeypatch.setattr(
        "mpsearch.exporters.litert.model.with_room_for_bias", lambda rows, weight, *rest: weight
    )
    model = build(_quantized(network, data, "w8a5"), data)
    for entry in check(model, data):
        assert entry.meaning[0].ok
        assert not entry.network[0].ok
        assert "expected at most" in entry.network[0].line()


def test_two_bit_convolutions_and_convolutions_without_bias_do_not_run() -> None:
    """Why they are raised and get zeros: the runtime says no. Should it learn them, use them."""
    module = litert("interpreter")
    for kind, bias in (("INT8", True), ("INT4", True), ("INT2", True), ("INT8", False)):
        file = LiteRtFile()
        x = file.tensor("x", (1, 3, 3, 2), "INT8", Scales((0.1,), 3))
        weight = np.ones((3, 1, 1, 2), dtype=np.int8)
        w = file.tensor("w", weight.shape, kind, Scales((0.1, 0.2, 0.3)), weight)
        b = file.tensor("b", (3,), "INT32", Scales((0.01, 0.02, 0.03)), values=np.zeros(3))
        y = file.tensor("y", (1, 3, 3, 3), "INT8", Scales((0.1,)))
        inputs = [x, w, b] if bias else [x, w]
        options = {"padding": 1, "strideH": 1, "strideW": 1}
        file.operator("CONV_2D", 7, inputs, [y], "Conv2DOptions", **options)
        interpreter = module.Interpreter(model_content=file.content({"x": x}, {"y": y}))
        if bias and kind != "INT2":
            interpreter.allocate_tensors()
        else:
            with pytest.raises(RuntimeError, match="was not true"):
                interpreter.allocate_tensors()


def _saved(folder: Path, choice: str = "w4a4") -> None:
    network, data = _network("two-inputs")
    quantized = _quantized(network, data, choice)
    save_quantized(quantized, folder / "quantized.pt")
    model, inputs, _ = networks.build("two-inputs", 24)
    save(model, folder / "model.pt", inputs, {"x0": inputs[0], "x1": inputs[1]})


COMMAND = ("export", "quantized.pt", "--format", "litert", "-o", "net.tflite")


def test_the_command_lists_what_it_raised_and_what_it_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _saved(tmp_path)
    assert run([*COMMAND, "--fp32", "model.pt"]) == 0
    out = capsys.readouterr().out
    assert "raised to what LiteRT has: 5 of 5 layers" in out
    assert "depthwise: w4a4 -> w4a8 (depthwise_conv2d)" in out
    assert out.count("same class") == len(KERNELS)
    interpreter = litert("interpreter").Interpreter("net.tflite")
    signature = interpreter.get_signature_list()["serving_default"]
    shapes = {tuple(entry["shape"]) for entry in interpreter.get_input_details()}
    assert shapes == {(1, 1, 6, 8), (1, 7)}  # torch's own layout, one sample
    assert len(signature["inputs"]) == 2


@pytest.mark.parametrize("part", [1.0, 0.25])
def test_sums_are_kept_in_a_layers_range_unless_it_cuts_them(part: float) -> None:
    """`deep` reads what is added too; at a quarter of the range the sum would be cut off."""

    def forward(m: Any, x: torch.Tensor) -> Any:
        hidden = torch.relu(m.stem(x))
        return m.head((hidden + m.deep(hidden)).flatten(1))

    model = integer_networks.Function(
        forward, stem=nn.Conv2d(1, 3, 3, padding=1), deep=nn.Conv2d(3, 3, 3, padding=1),
        head=nn.Linear(48, 3),
    )  # fmt: skip
    inputs = (torch.randn(24, 1, 4, 4, generator=torch.Generator().manual_seed(0)),)
    network, data = Network.from_module(model.eval(), inputs), Data("test", inputs, None)
    quantized = _quantized(network, data, "w8a8")
    layer = quantized.layers["deep"]
    assert layer.bias_codes is not None
    narrow = replace(layer.activation, scale=layer.activation.scale * part)
    bias = (layer.bias_codes / part).round().to(torch.int32)
    layers = {**quantized.layers, "deep": replace(layer, activation=narrow, bias_codes=bias)}
    model_at, _ = _check(assemble(network, layers), data)
    assert (model_at.quantizers["relu"] == narrow) == (part > 0.5)


def test_beyond_the_tolerance_the_command_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file whose integers belong to another network."""
    monkeypatch.chdir(tmp_path)
    _saved(tmp_path)

    def other_file(quantized: QuantizedNetwork, data: Data) -> LiteRtModel:
        _, inputs, _ = networks.build("two-inputs", 24)
        model, _, _ = networks.build("two-inputs", 24, seed=1)
        stranger = _quantized(Network.from_module(model, inputs), data, "w4a8")
        return replace(build(quantized, data), content=build(stranger, data).content)

    monkeypatch.setattr("mpsearch.exporters.litert.check.build", other_file)
    assert run([*COMMAND, "--fp32", "model.pt"]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("not written: LiteRT does not give what the network computes")
    assert printed.count("    output: ") == printed.count("what the file means, ") == len(KERNELS)
    assert not Path("net.tflite").exists()
    assert run([*COMMAND, "--fp32", "model.pt", "--no-check"]) == 0
    assert Path("net.tflite").exists()


def test_errors_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _saved(tmp_path)
    assert run(list(COMMAND)) == 2
    assert "give --calibration, or --fp32" in capsys.readouterr().err
    for module in [name for name in sys.modules if name.startswith("ai_edge_litert")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    assert run([*COMMAND, "--fp32", "model.pt"]) == 2
    assert "python -m pip install '.[litert]'" in capsys.readouterr().err
    assert not Path("net.tflite").exists()


def test_the_commands_of_the_page_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = PAGE.read_text()
    monkeypatch.chdir(tmp_path)
    first, second = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(first, "docs/litert.md", "exec"), {})
    (commands,) = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    for words in map(str.split, commands.strip().splitlines()):
        assert run(words[1:]) == 0
    exec(compile(second, "docs/litert.md", "exec"), {})

"""An applied assignment computes what its integers mean, and its file keeps that exactly."""

import random
from pathlib import Path

import networks
import numpy as np
import pytest
import torch
from archives import edit_header

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.network import Network
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.packing import bops, size_bytes
from mpsearch.quantization.quantized import quantize, quantize_layer
from mpsearch.quantization.quantized_file import load_quantized, payload, save_quantized
from mpsearch.tables.choice import Choice

BITS = (2, 3, 4, 5, 6, 7, 8, 16, 32)
CHOICES = [Choice(w, a) for w in BITS for a in BITS]


def _prepare(name: str) -> tuple[Network, Data]:
    model, inputs, labels = networks.build(name, samples=40)
    return Network.from_module(model, inputs), Data("test", inputs, labels)


def _assignment(network: Network, seed: int) -> dict[str, Choice]:
    source = random.Random(seed)
    return {layer.name: source.choice(CHOICES) for layer in network.layers}


@pytest.mark.parametrize("name", networks.BUILDERS)
@pytest.mark.parametrize("seed", range(4))
def test_the_file_gives_identical_outputs_and_has_the_predicted_size(
    name: str, seed: int, tmp_path: Path
) -> None:
    network, data = _prepare(name)
    choices = _assignment(network, seed)
    quantized = quantize(network, choices, calibrate(network, data))
    save_quantized(quantized, tmp_path / "q.pt")
    loaded = load_quantized(tmp_path / "q.pt")
    assert loaded.assignment == choices
    with torch.no_grad():
        assert torch.equal(loaded(*data.inputs), quantized(*data.inputs))
    stored = [payload(layer, loaded.layers[layer.name], loaded.source) for layer in network.layers]
    total = sum(t.numel() * t.element_size() for tensors in stored for t in tensors.values())
    assert total == size_bytes(network, choices)


@pytest.mark.parametrize("name", ["two-inputs", "transposed", "shared"])
def test_every_bit_width_goes_through_the_file_for_every_kind_of_layer(
    name: str, tmp_path: Path
) -> None:
    network, data = _prepare(name)
    histograms = calibrate(network, data)
    for bits in BITS:
        choices = dict.fromkeys((layer.name for layer in network.layers), Choice(bits, bits))
        quantized = quantize(network, choices, histograms)
        save_quantized(quantized, tmp_path / "q.pt")
        with torch.no_grad():
            assert torch.equal(
                load_quantized(tmp_path / "q.pt")(*data.inputs), quantized(*data.inputs)
            )


def test_a_linear_layer_in_integers_equals_the_fake_quantized_one() -> None:
    """Σ q_w (q_x - z) + q_b in Python-sized integers, times the two scales."""
    network, data = _prepare("smooth")
    choices = dict.fromkeys((layer.name for layer in network.layers), Choice(4, 8))
    quantized = quantize(network, choices, calibrate(network, data))
    layer = quantized.layers["first"]
    assert layer.weight is not None
    assert layer.bias_codes is not None
    act = layer.activation
    x = data.inputs[0].numpy()
    codes = np.clip(np.rint(x * np.float32(1 / np.float32(act.scale)) + act.zero_point), 0, 255)
    integers = (codes.astype(np.int64) - act.zero_point) @ layer.weight.codes.numpy().T.astype(
        np.int64
    ) + layer.bias_codes.numpy()
    expected = integers * (layer.weight.scales.double().numpy() * act.scale)
    node = next(n for n in quantized.graph.graph.nodes if n.name == network.layers[0].nodes[0])
    part = torch.fx.Interpreter(quantized.graph)
    part.garbage_collect_values = False
    with torch.no_grad():
        part.run(*data.inputs)
    np.testing.assert_allclose(part.env[node].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_float_choices_change_nothing() -> None:
    network, data = _prepare("two-inputs")
    choices = dict.fromkeys((layer.name for layer in network.layers), Choice(32, 32))
    quantized = quantize(network, choices, calibrate(network, data))
    with torch.no_grad():
        assert torch.equal(quantized(*data.inputs), network(*data.inputs))


@pytest.mark.parametrize("name", ["residual", "two-inputs", "transposed"])
def test_more_bits_come_closer_to_float(name: str) -> None:
    network, data = _prepare(name)
    histograms = calibrate(network, data)
    errors = []
    for bits in (2, 4, 8, 16):
        choices = dict.fromkeys((layer.name for layer in network.layers), Choice(bits, bits))
        with torch.no_grad():
            difference = quantize(network, choices, histograms)(*data.inputs) - network(
                *data.inputs
            )
        errors.append(float(difference.norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 * errors[0]


def test_the_float_network_is_not_changed() -> None:
    network, data = _prepare("residual")
    before = network.digest
    quantize(network, _assignment(network, 0), calibrate(network, data))
    assert (
        Network(**{f: getattr(network, f) for f in network.__dataclass_fields__}).digest == before
    )


@pytest.mark.parametrize("a_bits", [2, 8])
@pytest.mark.parametrize(
    ("weight", "channels"),
    [(1e-12, 1), (0.0, 1), (0.0, None)],
    ids=["tiny", "pruned", "all pruned"],
)
def test_a_dead_channel_with_a_bias_keeps_its_bias(
    weight: float, channels: int | None, a_bits: int
) -> None:
    """Folded batch norms leave weights near 1e-12 beside a bias near 1: 32 bits must hold it.

    Pruned channels have weights of zero: their scale must not be coarser than the bias.
    """
    model, inputs, labels = networks.build("smooth", samples=40)
    with torch.no_grad():
        model.get_parameter("first.weight")[:channels] = weight
        model.get_parameter("first.bias")[0] = 1.5
    network = Network.from_module(model, inputs)
    data = Data("test", tuple(40 * x for x in inputs), labels)  # with coarse steps
    choices = dict.fromkeys((layer.name for layer in network.layers), Choice(8, a_bits))
    quantized = quantize(network, choices, calibrate(network, data)).layers["first"]
    bias, exact = quantized.bias(), network.bias(network.layers[0])
    assert bias is not None
    assert exact is not None
    np.testing.assert_allclose(bias[:channels], exact[:channels], rtol=1e-6, atol=1e-6)


def test_a_layer_whose_inputs_were_all_zero_keeps_its_bias() -> None:
    """Behind dead units: nothing is known of the range, and the bias counts steps of it."""
    network, data = _prepare("smooth")
    zeros = Data("zeros", tuple(torch.zeros_like(x) for x in data.inputs), None)
    choices = dict.fromkeys((layer.name for layer in network.layers), Choice(8, 8))
    layer = quantize(network, choices, calibrate(network, zeros)).layers["first"]
    bias, exact = layer.bias(), network.bias(network.layers[0])
    assert bias is not None
    assert exact is not None
    torch.testing.assert_close(bias, exact, rtol=0, atol=1e-4 * float(exact.abs().max()))


def test_calibration_sees_every_use_of_a_shared_layer() -> None:
    network, data = _prepare("shared")
    histogram = calibrate(network, data)["inner"]
    assert histogram.counts.sum() == 2 * data.inputs[0].numel()
    assert histogram.low < 0  # the first use sees the input, the second one only ReLU outputs


@pytest.mark.parametrize("name", networks.BUILDERS)
def test_predicted_size_is_the_stored_payload_for_many_assignments(name: str) -> None:
    network, data = _prepare(name)
    histograms = calibrate(network, data)
    cells = {
        (layer.name, choice): quantize_layer(
            network, layer, choice, histograms[layer.name], torch.full((layer.channels,), 0.1)
        )
        for layer in network.layers
        for choice in (Choice(w, a) for w in BITS for a in (8, 32))
    }
    stored = {
        key: sum(t.numel() * t.element_size() for t in payload(layer, cell, network).values())
        for key, cell in cells.items()
        for layer in network.layers
        if layer.name == key[0]
    }
    for seed in range(200):
        source = random.Random(seed)
        choices = {
            layer.name: Choice(source.choice(BITS), source.choice((8, 32)))
            for layer in network.layers
        }
        assert size_bytes(network, choices) == sum(stored[item] for item in choices.items())


def test_bops_by_hand() -> None:
    network, _ = _prepare("smooth")
    assert bops(network, {"first": Choice(4, 8), "second": Choice(2, 2)}) == 30 * 32 + 15 * 4


def test_an_assignment_for_another_network_names_the_first_strange_layer() -> None:
    network, data = _prepare("smooth")
    histograms = calibrate(network, data)
    with pytest.raises(InputError, match="'conv9'"):
        quantize(network, {"conv9": Choice(8, 8)}, histograms)
    with pytest.raises(InputError, match="no choice for the network's layer 'second'"):
        quantize(network, {"first": Choice(8, 8)}, histograms)


def test_damaged_quantized_files_are_one_clear_error(tmp_path: Path) -> None:
    network, data = _prepare("smooth")
    quantized = quantize(network, _assignment(network, 0), calibrate(network, data))
    path = tmp_path / "q.pt"
    save_quantized(quantized, path)
    content = path.read_bytes()
    for change in (
        lambda h: h["layers"][0].pop("w_bits"),
        lambda h: h["layers"][0].update(w_bits=5),
        lambda h: h["layers"][0].update(shape=[3, 4]),
        lambda h: h["layers"][0].update(name="other"),
        lambda h: h["layers"].pop(),
        lambda h: h.update(format="mpsearch.network"),
    ):
        path.write_bytes(content)
        edit_header(path, change)
        with pytest.raises(InputError, match=r"q\.pt"):
            load_quantized(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"q\.pt"):
        load_quantized(path)

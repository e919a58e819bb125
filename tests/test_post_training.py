"""Repairs together: bias correction, order, determinism, files, and the command."""

from dataclasses import replace
from pathlib import Path

import networks
import pytest
import torch
from torch import fx, nn

from mpsearch.cli import run
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save
from mpsearch.post_training.quantizing import with_notice
from mpsearch.post_training.repairing import PLAIN, PostTraining, quantize_after_training
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.packing import size_bytes
from mpsearch.quantization.quantized import QuantizedNetwork, quantize
from mpsearch.quantization.quantized_file import load_quantized, payload, save_quantized
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice

EVERYTHING = PostTraining("auto", True, True, True, "adaptive", 3, True)
ALONE = {
    "per-tensor": replace(PLAIN, per_tensor=True),
    "equalize": replace(PLAIN, equalize=True),
    "bias": replace(PLAIN, correct_bias=True),
    "adaptive": replace(PLAIN, rounding="adaptive"),
    "scales": replace(PLAIN, learn_scales=True),
    "everything": EVERYTHING,
}


def _prepare(name: str, samples: int = 40) -> tuple[Network, Data]:
    model, inputs, labels = networks.build(name, samples)
    return Network.from_module(model, inputs), Data("test", inputs, labels)


def _uniform(network: Network, choice: Choice) -> dict[str, Choice]:
    return dict.fromkeys((layer.name for layer in network.layers), choice)


def _codes(quantized: QuantizedNetwork) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for layer in quantized.layers.values():
        if layer.weight is not None:
            found += [layer.weight.codes, layer.weight.scales]
        if layer.bias_codes is not None:
            found.append(layer.bias_codes)
        found.append(torch.tensor([layer.activation.scale, layer.activation.zero_point]))
    return found


def _mean_shifts(quantized: QuantizedNetwork, network: Network, data: Data) -> list[torch.Tensor]:
    """Mean difference of every layer's output from float on float inputs, per channel."""
    run = fx.Interpreter(network.graph, garbage_collect_values=False)
    with torch.no_grad():
        run.run(*data.inputs)
    nodes = {node.name: node for node in network.graph.graph.nodes}
    shifts = []
    for layer in (layer for layer in network.layers if layer.bias_name):
        activation, parts = quantized.layers[layer.name].activation, []
        for node in (nodes[name] for name in layer.nodes):
            x = run.env[node.args[0]]
            if activation.bits != 32:
                steps = torch.round(x.double() / activation.scale) + activation.zero_point
                x = activation.scale * (
                    steps.clamp(0, 2**activation.bits - 1).float() - activation.zero_point
                )
            rest = [quantized.source.bias(layer), *node.args[3:]]
            output = node.target(x, quantized.source.weight(layer), *rest)
            parts.append((output - run.env[node]).transpose(0, 1).flatten(1))
        shifts.append(torch.cat(parts, 1).mean(1).abs())
    return shifts


@pytest.mark.parametrize("name", ["two-inputs", "transposed", "shared"])
def test_without_repairs_it_is_the_quantizer_alone(name: str) -> None:
    network, data = _prepare(name)
    choices = _uniform(network, Choice(4, 8))
    alone = quantize(network, choices, calibrate(network, data))
    steps: list[None] = []
    whole = quantize_after_training(
        network, choices, data, PLAIN, on_step=lambda: steps.append(None)
    )
    for ours, theirs in zip(_codes(whole), _codes(alone), strict=True):
        assert torch.equal(ours, theirs)
    assert len(steps) == len(network.layers)


@pytest.mark.parametrize("a_bits", [4, 32])
@pytest.mark.parametrize("name", ["residual", "two-inputs", "transposed"])
def test_bias_correction_leaves_no_mean_shift(name: str, a_bits: int) -> None:
    network, data = _prepare(name)
    choices = _uniform(network, Choice(3, a_bits))
    plain = quantize_after_training(network, choices, data, PLAIN)
    corrected = quantize_after_training(network, choices, data, ALONE["bias"])
    before = torch.cat(_mean_shifts(plain, network, data)).max()
    undone = {name for names in corrected.undone.values() for name in names}
    biased = [layer for layer in network.layers if layer.bias_name]
    assert len(undone) < len(biased)
    for layer, shifts in zip(biased, _mean_shifts(corrected, network, data), strict=True):
        if layer.name in undone:
            continue
        limit = torch.full_like(shifts, 0.002 * float(before))
        quantized = corrected.layers[layer.name]
        if quantized.weight is not None and quantized.bias_codes is not None:
            # The bias has steps of its own, and half of one is what may be left.
            limit = limit + 0.5 * quantized.weight.scales * quantized.activation.scale
        assert bool((shifts <= limit).all())


@pytest.mark.kernels
def test_bias_correction_helps_on_unseen_samples_of_a_network_that_needs_it() -> None:
    """ReLU features have a mean, so that every weight's rounding error shifts the output."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(20, 60), nn.ReLU(), nn.Linear(60, 8)).eval()
        inputs = torch.randn(400, 20) + 1.0
    network = Network.from_module(model, (inputs,))
    calibration, unseen = Data("a", (inputs[:200],), None), inputs[200:]
    choices = _uniform(network, Choice(2, 8))
    errors = []
    for settings in (PLAIN, ALONE["bias"]):
        quantized = quantize_after_training(network, choices, calibration, settings)
        with torch.no_grad():
            errors.append(float((quantized(unseen) - network(unseen)).square().mean()))
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize(
    ("name", "repair"),
    [
        *(("two-inputs", repair) for repair in ALONE),
        ("residual", "everything"),
        ("transposed", "everything"),
        ("shared", "everything"),
    ],
)
def test_files_hold_the_repaired_network_at_the_predicted_size(
    name: str, repair: str, tmp_path: Path
) -> None:
    network, data = _prepare(name, 24)
    before = network.digest
    mixed = [Choice(3, 8), Choice(8, 4), Choice(32, 8), Choice(4, 32), Choice(16, 16), Choice(2, 8)]
    choices = {layer.name: mixed[i % len(mixed)] for i, layer in enumerate(network.layers)}
    quantized = quantize_after_training(network, choices, data, ALONE[repair])
    save_quantized(quantized, tmp_path / "q.pt")
    loaded = load_quantized(tmp_path / "q.pt")
    with torch.no_grad():
        assert torch.equal(loaded(*data.inputs), quantized(*data.inputs))
    stored = [
        payload(layer, loaded.layers[layer.name], loaded.source) for layer in loaded.source.layers
    ]
    total = sum(t.numel() * t.element_size() for tensors in stored for t in tensors.values())
    assert total == size_bytes(network, choices)
    assert replace(network).digest == before  # the float network is untouched


def test_the_same_seed_gives_the_same_integers() -> None:
    network, data = _prepare("transposed")
    choices = _uniform(network, Choice(3, 8))
    state = torch.random.get_rng_state()
    one, two = (quantize_after_training(network, choices, data, EVERYTHING) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for ours, theirs in zip(_codes(one), _codes(two), strict=True):
        assert torch.equal(ours, theirs)


def test_one_sample_works_and_bad_requests_are_clear() -> None:
    network, data = _prepare("two-inputs")
    one = Data("one", tuple(x[:1] for x in data.inputs), None)
    choices = _uniform(network, Choice(4, 8))
    outputs = quantize_after_training(network, choices, one, EVERYTHING)(*data.inputs)
    assert bool(torch.isfinite(outputs).all())
    none = Data("none", tuple(x[:0] for x in data.inputs), None)
    with pytest.raises(InputError, match="none has no samples"):
        quantize_after_training(network, choices, none)
    with pytest.raises(InputError, match="a layer 'conv9'"):
        quantize_after_training(network, {"conv9": Choice(4, 8)}, data)
    with pytest.raises(InputError, match="expected 2 to 8, 16"):
        quantize_after_training(network, _uniform(network, Choice(9, 8)), data)
    with pytest.raises(InputError, match="expected nearest or adaptive"):
        PostTraining(rounding="up")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown range method 'best'"):
        PostTraining(ranges="best")


def test_apply_takes_every_option_and_notes_missing_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model, inputs, _ = networks.build("two-inputs", samples=24)
    labels = torch.arange(24) % 2  # of four classes
    save(model, "model.pt", inputs, {"x0": inputs[0], "x1": inputs[1], "y": labels})
    network = Network.from_module(model, inputs)
    Assignment.uniform((layer.name for layer in network.layers), Choice(3, 8)).save("a.json")
    assert run("apply model.pt a.json -o usual.pt".split()) == 0
    assert "note: " in (error := capsys.readouterr().err)
    assert "no sample of 2 of the 4 classes (2, 3)" in error
    assert len(error.strip().splitlines()) == 1
    words = "apply model.pt a.json -o all.pt --ranges percentile:99.9 --per-tensor --equalize"
    assert run([*words.split(), "--seed", "3", "--learn-scales"]) == 0
    assert (
        run(
            [
                *"apply model.pt a.json -o plain.pt --rounding nearest".split(),
                "--no-bias-correction",
            ]
        )
        == 0
    )
    settings = PostTraining("percentile:99.9", True, True, True, "adaptive", 3, True)
    sample = Data("sample", inputs, labels)
    outputs = []
    plain = replace(PLAIN, wide="auto")
    for name, way in (("usual", PostTraining()), ("all", settings), ("plain", plain)):
        expected = quantize_after_training(network, _uniform(network, Choice(3, 8)), sample, way)
        stored = load_quantized(f"{name}.pt")
        assert stored.post_training == way.to_json()
        with torch.no_grad():
            outputs.append(stored(*inputs))
            torch.testing.assert_close(outputs[-1], expected(*inputs))
    assert not any(torch.equal(outputs[0], other) for other in outputs[1:])
    assert run("apply model.pt a.json --ranges best".split()) == 2
    assert "unknown range method 'best'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.1, ""), (2.0, ""), (8.0, "about 2 minutes"), (60.0, "about 11 minutes")],
)
def test_rounding_that_takes_minutes_says_so_while_it_begins(
    seconds: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eleven equal layers, by a clock of the test's own: told once, after one of them."""
    layer = Layer("one", "linear", "w", "", 400, 20, 400, ("one",))
    now = iter([seconds * n for n in range(40)])
    steps: list[None] = []
    begins = with_notice([layer] * 11, lambda: steps.append(None), lambda: next(now))
    for _ in range(2):
        begins()
    first = capsys.readouterr().err
    for _ in range(31):  # and a second and a third network
        begins()
    assert len(steps) == 33
    told = first + capsys.readouterr().err
    assert said in told
    assert told.count("--rounding nearest") == bool(said)
    assert first or not said

"""No repair leaves a network worse on its calibration data: what does harm is found and undone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpsearch.cli import run
from mpsearch.data import Data
from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network, copy_graph
from mpsearch.graph.network_file import save
from mpsearch.graph.tensors import set_tensor
from mpsearch.post_training.activation_ranges import choose_quantizers
from mpsearch.post_training.compensated_rounding import round_to_outputs
from mpsearch.post_training.equalization import Pair, equalize
from mpsearch.post_training.kept_repairs import MOST_TRIALS, keep_what_helps
from mpsearch.post_training.layer_by_layer import Decision, Use, correct_bias
from mpsearch.post_training.repairing import PLAIN, PostTraining, quantize_after_training
from mpsearch.quantization.quantized import QuantizedLayer, QuantizedNetwork
from mpsearch.quantization.quantized_file import load_quantized
from mpsearch.quantization.quantizer import ActivationQuantizer, QuantizedWeight
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice


@dataclass(frozen=True)
class Toy:
    """A state whose noise is the sum of what its items do."""

    noise: float
    kept: tuple[int, ...] = ()


@given(st.lists(st.integers(-5, 5), max_size=12))
@settings(max_examples=100, deadline=None)
def test_of_independent_items_just_those_that_do_harm_are_undone(effects: list[int]) -> None:
    """Groups that help on the whole are kept as they are, so that few measurements do."""
    tried: list[list[int]] = []

    def repaired(kept: list[int]) -> Toy:
        tried.append(kept)
        return Toy(100.0 + sum(effects[i] for i in kept), tuple(kept))

    state, undone = keep_what_helps(range(len(effects)), Toy(100.0), repaired)
    assert state.noise <= 100.0
    assert sorted([*state.kept, *undone]) == list(range(len(effects)))
    assert state == repaired(list(state.kept)) or not state.kept
    assert all(effects[i] > 0 for i in undone)
    if sum(effects) <= 0:
        assert undone == []
        assert len(tried) <= 2
    assert len(tried) <= 2 * max(1, len(effects)) + 1


def test_harm_of_many_ends_after_a_bounded_number_of_trials() -> None:
    tried: list[int] = []

    def repaired(kept: list[int]) -> Toy:
        tried.append(len(kept))
        return Toy(float("nan") if len(kept) % 2 else float(len(kept)))

    state, undone = keep_what_helps(range(200), Toy(0.0), repaired)
    assert state == Toy(0.0)
    assert sorted(undone) == list(range(200))
    assert len(tried) == MOST_TRIALS


def _prepare(name: str = "two-inputs", samples: int = 30) -> tuple[Network, Data]:
    model, inputs, labels = networks.build(name, samples)
    return Network.from_module(model, inputs), Data("test", inputs, labels)


def _error(quantized: QuantizedNetwork, network: Network, data: Data) -> float:
    with torch.no_grad():
        return float((quantized(*data.inputs) - network(*data.inputs)).double().square().mean())


def _damage(monkeypatch: pytest.MonkeyPatch, repair: str, harmed: str) -> None:
    """Let a repair spoil one layer, as a bad idea or a bug in it would."""
    if repair == "--bias-correction":

        def correct(
            network: Network, layer: Layer, uses: Sequence[Use], before: QuantizedLayer, exact: bool
        ) -> Decision:
            quantized, bias = correct_bias(network, layer, uses, before, exact)
            if layer.name == harmed and quantized.bias_codes is not None:
                quantized = replace(quantized, bias_codes=quantized.bias_codes + 10**5)
            return quantized, bias

        monkeypatch.setattr("mpsearch.post_training.repairing.correct_bias", correct)
    elif repair == "--rounding adaptive":

        def turn(*arguments: Any) -> QuantizedWeight:
            rounded = round_to_outputs(*arguments)
            return QuantizedWeight(-rounded.codes, rounded.scales)

        monkeypatch.setattr("mpsearch.post_training.compensated_rounding.round_to_outputs", turn)
    elif repair == "--ranges auto":

        def choose(*arguments: Any) -> dict[str, ActivationQuantizer]:
            return {**choose_quantizers(*arguments), harmed: ActivationQuantizer(8, 1e-4, 0)}

        monkeypatch.setattr("mpsearch.post_training.repairing.choose_quantizers", choose)
    else:

        def equalized(network: Network, data: Data, pairs: list[Pair], size: int) -> Network:
            equal = equalize(network, data, pairs, size)
            graph = copy_graph(equal.graph)
            first = network.layers[0]
            if any(pair.first.name in first.nodes for pair in pairs):
                set_tensor(graph, first.weight_name, 3 * equal.weight(equal.layers[0]))
            return replace(equal, graph=graph)

        monkeypatch.setattr("mpsearch.post_training.repairing.equalize", equalized)


REPAIRS = {
    "--equalize": replace(PLAIN, equalize=True),
    "--ranges auto": replace(PLAIN, ranges="auto"),
    "--rounding adaptive": replace(PLAIN, rounding="adaptive"),
    "--bias-correction": replace(PLAIN, correct_bias=True),
}


@pytest.mark.parametrize("repair", REPAIRS)
def test_a_repair_that_spoils_a_layer_is_undone_there(
    repair: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, data = _prepare()
    harmed = network.layers[0].name
    choices = dict.fromkeys((layer.name for layer in network.layers), Choice(4, 8))
    plain = quantize_after_training(network, choices, data, PLAIN)
    _damage(monkeypatch, repair, harmed)
    repaired = quantize_after_training(network, choices, data, REPAIRS[repair])
    assert list(repaired.undone) == [repair]
    assert any(name.split(" -> ")[0] == harmed for name in repaired.undone[repair])
    assert _error(repaired, network, data) <= _error(plain, network, data)
    if repair == "--bias-correction":  # which helps at the other layers, and is kept there
        assert repaired.undone[repair] == (harmed,)
        assert _error(repaired, network, data) < _error(plain, network, data)


@pytest.mark.parametrize(
    ("name", "choice"),
    [("residual", Choice(2, 8)), ("two-inputs", Choice(8, 8)), ("shared", Choice(3, 4))],
)
def test_every_repair_is_at_least_as_good_as_none(name: str, choice: Choice) -> None:
    network, data = _prepare(name, 20)
    choices = dict.fromkeys((layer.name for layer in network.layers), choice)
    plain = _error(quantize_after_training(network, choices, data, PLAIN), network, data)
    everything = PostTraining("auto", False, True, True, "adaptive")
    for way in (*REPAIRS.values(), everything):
        error = _error(quantize_after_training(network, choices, data, way), network, data)
        assert error <= plain * (1 + 1e-9)


def test_what_was_undone_is_said_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model, inputs, labels = networks.build("two-inputs", samples=16)
    save(model, "model.pt", inputs, {"x0": inputs[0], "x1": inputs[1], "y": labels})
    network = Network.from_module(model, inputs)
    Assignment.uniform((layer.name for layer in network.layers), Choice(4, 8)).save("a.json")
    harmed = network.layers[0].name
    _damage(monkeypatch, "--bias-correction", harmed)
    words = "apply model.pt a.json --rounding nearest -o"
    assert run([*words.split(), "one.pt"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("undone: ")]
    assert len(said) == 1
    assert f"--bias-correction for {harmed}: " in said[0]
    assert run([*words.split(), "two.pt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["undone"] == {"--bias-correction": [harmed]}
    assert Path("one.pt").read_bytes() == Path("two.pt").read_bytes()
    loaded = load_quantized("one.pt")
    assert loaded.undone == {"--bias-correction": (harmed,)}
    assert run("evaluate model.pt --assignment a.json --rounding nearest".split()) == 0
    assert f"assignment: undone: --bias-correction for {harmed}" in capsys.readouterr().out

"""Scales and biases learned by the network's outputs: what is learned is what is stored."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from torch import fx, nn

from mpsearch.data import Data
from mpsearch.graph.layers import EMBEDDING, packet
from mpsearch.graph.network import Network, copy_graph
from mpsearch.graph.tensors import set_tensor
from mpsearch.post_training.layer_by_layer import Decision
from mpsearch.post_training.learned_scales import learn_scales
from mpsearch.post_training.repairing import PLAIN, PostTraining, quantize_after_training
from mpsearch.quantization.quantized import QuantizedLayer, QuantizedNetwork
from mpsearch.quantization.quantized_file import load_quantized, save_quantized
from mpsearch.tables.choice import Choice

REPAIRED = PostTraining(wide="32")  # nothing that is quantized after the repairs
LEARNED = PostTraining(learn_scales=True, wide="32")


class Tied(nn.Module):
    """A table that is read and multiplied with, and two layers that may share a bias."""

    def __init__(self, shared_bias: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 6)
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
        if shared_bias:
            self.two.bias = self.one.bias

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.two(self.one(self.table(tokens).mean(1)).relu()).relu()
        return nn.functional.linear(x, self.table.weight)


def _prepare(name: str) -> tuple[Network, Data]:
    if name.startswith("tied"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            tokens = torch.randint(0, 9, (40, 5))
            return Network.from_module(Tied(name == "tied bias").eval(), (tokens,)), Data(
                "test", (tokens,), None
            )
    model, inputs, labels = networks.build(name, 40)
    return Network.from_module(model, inputs), Data("test", inputs, labels)


def _noise(quantized: QuantizedNetwork, network: Network, data: Data) -> float:
    with torch.no_grad():
        exact, rough = network(*data.inputs).double(), quantized(*data.inputs).double()
    return float((rough - exact).square().sum() / exact.square().sum())


def _by_hand(network: Network, layers: Mapping[str, QuantizedLayer], data: Data) -> torch.Tensor:
    """The outputs that the integers stand for, in float64, from codes, scales and steps alone."""
    of_node = {node: layer for layer in network.layers for node in layer.nodes}

    class Integers(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            layer = of_node.get(n.name)
            if layer is None:
                return super().run_node(n)
            (x, *rest), kwargs = self.fetch_args_kwargs_from_env(n)
            quantized = layers[layer.name]
            assert quantized.weight is not None
            _, restore = network.weight_rows(layer)
            scales = quantized.weight.scales.double()
            weight = restore(quantized.weight.codes.double() * scales[:, None])
            if packet(n) == EMBEDDING:
                return n.target(weight, *rest, **kwargs)  # type: ignore[operator]
            step, zero = quantized.activation.scale, quantized.activation.zero_point
            codes = (x / step).round() + zero
            x = step * (codes.clamp(0, 2**quantized.activation.bits - 1) - zero)
            if len(rest) > 1 and rest[1] is not None:
                assert quantized.bias_codes is not None
                rest[1] = quantized.bias_codes.double() * scales * step
            return n.target(x, weight, *rest[1:], **kwargs)  # type: ignore[operator]

    inputs = [x.double() if x.is_floating_point() else x for x in data.inputs]
    with torch.no_grad():
        outputs = Integers(network.graph).run(*inputs)
    assert isinstance(outputs, torch.Tensor)
    return outputs


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpsearch.post_training.learned_scales.STEPS", 20)


@pytest.mark.parametrize("name", ["two-inputs", "residual", "shared", "tied"])
@pytest.mark.usefixtures("few_steps")
def test_outputs_come_no_further_and_are_those_of_the_integers(name: str, tmp_path: Path) -> None:
    """Codes and zero points stay; layers used twice, tied and shared tensors are right."""
    network, data = _prepare(name)
    choices = {layer.name: Choice(2, 3) for layer in network.layers}
    plain = quantize_after_training(network, choices, data, REPAIRED)
    learned = quantize_after_training(network, choices, data, LEARNED)
    assert _noise(learned, network, data) <= _noise(plain, network, data)
    for layer, before in plain.layers.items():
        after = learned.layers[layer]
        assert after.weight is not None
        assert before.weight is not None
        assert torch.equal(after.weight.codes, before.weight.codes)
        assert after.activation.zero_point == before.activation.zero_point
    save_quantized(learned, tmp_path / "q.pt")
    outputs = load_quantized(tmp_path / "q.pt")(*data.inputs)
    by_hand = _by_hand(network, learned.layers, data)
    # A value on the edge between two codes may fall to either side in float32.
    apart = (outputs.double() - by_hand).abs().flatten(1).amax(1) > 1e-4 * by_hand.abs().max()
    assert float(apart.double().mean()) < 0.1


@pytest.mark.usefixtures("few_steps")
def test_what_is_fine_or_not_its_own_stays() -> None:
    network, data = _prepare("tied bias")
    table, one, two = (layer.name for layer in network.layers)
    choices = {table: Choice(2, 4), one: Choice(32, 4), two: Choice(16, 8)}
    start = quantize_after_training(network, choices, data)
    exact = [network(*data.inputs).detach()]
    found = learn_scales(network, start.layers, exact, data, 0)
    assert set(found) == {table, one}  # two: 16-bit weights, 8-bit inputs, a bias that is shared
    embedding, _ = found[table]
    assert embedding.weight is not None
    before = start.layers[table].weight
    assert before is not None
    assert torch.equal(embedding.weight.scales, before.scales)
    assert embedding.activation.scale != start.layers[table].activation.scale
    linear, bias = found[one]
    assert linear.weight is None
    assert bias is network.bias(network.layers[1])


@pytest.mark.usefixtures("few_steps")
def test_one_scale_for_all_channels_stays_one() -> None:
    network, data = _prepare("two-inputs")
    choices = {layer.name: Choice(3, 4) for layer in network.layers}
    settings = replace(PLAIN, per_tensor=True, learn_scales=True)
    learned = quantize_after_training(network, choices, data, settings)
    plain = quantize_after_training(network, choices, data, replace(PLAIN, per_tensor=True))
    changed = 0
    for name, layer in learned.layers.items():
        before = plain.layers[name].weight
        assert layer.weight is not None
        assert before is not None
        assert len(set(layer.weight.scales.tolist())) == 1
        changed += bool(layer.weight.scales[0] != before.scales[0])
    assert changed


@pytest.mark.usefixtures("few_steps")
def test_the_seed_decides_and_targets_that_are_no_numbers_change_nothing() -> None:
    network, data = _prepare("two-inputs")
    choices = {layer.name: Choice(3, 4) for layer in network.layers}
    runs = [
        quantize_after_training(network, choices, data, replace(PLAIN, seed=s, learn_scales=True))
        for s in (1, 1, 2)
    ]
    assert runs[0].digest == runs[1].digest != runs[2].digest
    start = quantize_after_training(network, choices, data)
    nothing = [torch.full_like(network(*data.inputs).detach(), float("nan"))]
    assert learn_scales(network, start.layers, nothing, data, 0) == {}


def test_a_bias_that_is_far_off_is_found_again() -> None:
    """Without it 5 % of the output's size is missing; the learned one makes it up."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network.from_module(nn.Linear(6, 4), (x := torch.randn(64, 6),))
    data, (layer,) = Data("test", (x,), None), network.layers
    bias = network.bias(layer)
    assert bias is not None
    graph = copy_graph(network.graph)
    exact = network(x).detach()
    set_tensor(graph, layer.bias_name, bias + 0.05 * exact.square().mean().sqrt())
    shifted = replace(network, graph=graph)
    start = quantize_after_training(shifted, {layer.name: Choice(8, 8)}, data)
    ((quantized, learned),) = learn_scales(shifted, start.layers, [exact], data, 0).values()
    assert learned is not None
    assert quantized.bias_codes is not None
    begun = shifted.bias(layer)
    assert begun is not None
    assert float((learned - bias).abs().max()) < 0.2 * float((begun - bias).abs().max())


@pytest.mark.usefixtures("few_steps")
def test_what_was_learned_is_undone_as_a_whole_where_it_does_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, data = _prepare("two-inputs")
    choices = {layer.name: Choice(4, 8) for layer in network.layers}

    def harmful(*arguments: Any) -> dict[str, Decision]:
        found = learn_scales(*arguments)
        name, (quantized, bias) = next(iter(found.items()))
        assert quantized.bias_codes is not None
        return {**found, name: (replace(quantized, bias_codes=quantized.bias_codes + 10**5), bias)}

    monkeypatch.setattr("mpsearch.post_training.learned_scales.learn_scales", harmful)
    plain = quantize_after_training(network, choices, data)
    learned = quantize_after_training(network, choices, data, LEARNED)
    assert learned.undone == {"--learn-scales": tuple(layer.name for layer in network.layers)}
    assert learned.digest == plain.digest

"""Adaptive rounding: the moments are those of the layer, and the codes beat the nearest ones."""

import itertools
from dataclasses import replace

import networks
import pytest
import torch
from torch import fx, nn

from mpsearch.adaptive_rounding import Moments, moments, round_adaptively
from mpsearch.choice import Choice
from mpsearch.data import Data
from mpsearch.layer_by_layer import Use
from mpsearch.layers import Layer
from mpsearch.network import Network
from mpsearch.post_training import PLAIN, quantize_after_training
from mpsearch.quantizer import ActivationQuantizer, quantize_weight, weight_codes_range

FLOAT = ActivationQuantizer(32, 1.0, 0)


def _uses(network: Network, layer: Layer, inputs: networks.Inputs) -> list[Use]:
    run = fx.Interpreter(network.graph, garbage_collect_values=False)
    with torch.no_grad():
        run.run(*inputs)
    nodes = [node for node in network.graph.graph.nodes if node.name in layer.nodes]
    return [Use(node, x := [run.env[node.args[0]]], x, [run.env[node]]) for node in nodes]


def _layer_error(network: Network, layer: Layer, uses: list[Use], rows: torch.Tensor) -> float:
    """E‖z - ẑ‖² by running the operator itself with other weights, summed over the channels."""
    weight = network.weight_rows(layer)[1](rows)
    total, positions = 0.0, 0
    with torch.no_grad():
        for use in uses:
            rest = [network.bias(layer), *use.node.args[3:]]
            outputs = use.node.target(use.inputs[0], weight, *rest)  # type: ignore[operator]
            total += float((outputs - use.targets[0]).double().square().sum())
            positions += outputs.numel() // layer.channels
    return total / positions


@pytest.mark.parametrize("name", networks.BUILDERS)
def test_moments_give_the_error_that_the_operator_gives(name: str) -> None:
    """Every kind: grouped, dilated, strided, depthwise, transposed, linear, used twice."""
    model, inputs, _ = networks.build(name, samples=12)
    network = Network.from_module(model, inputs)
    for layer in network.layers:
        uses = _uses(network, layer, inputs)
        seen = moments(network, layer, uses, FLOAT, False, torch.Generator().manual_seed(0))
        rows, _ = network.weight_rows(layer)
        other = rows + 0.1 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(1))
        difference = other - rows
        by_moments = float((difference * seen.times(difference)).sum())
        by_moments -= seen.prior * float(difference.square().sum())
        assert by_moments == pytest.approx(_layer_error(network, layer, uses, other), rel=1e-3)
        change = float((seen.errors(other) - seen.errors(rows)).sum())
        prior = seen.prior * float(difference.square().sum())
        assert change - prior == pytest.approx(by_moments, rel=1e-2)


def _correlated(channels: int, size: int, seed: int) -> tuple[torch.Tensor, Moments]:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator) + 2.0
    rows = torch.randn(channels, size, generator=generator)
    gram = (mixing @ mixing.T / size)[None]
    return rows, Moments(gram, None, 0.0, (rows @ gram[0]))


@pytest.mark.kernels
@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_codes_are_neighbours_inside_the_range_and_beat_the_nearest(bits: int) -> None:
    rows, seen = _correlated(8, 60, bits)
    nearest = quantize_weight(rows, bits)
    found = round_adaptively(rows, nearest, bits, seen)
    low, high = weight_codes_range(bits)
    assert low <= int(found.codes.min()) <= int(found.codes.max()) <= high
    assert torch.equal(found.scales, nearest.scales)
    exact = (rows / nearest.scales[:, None]).clamp(low, high)
    assert float((found.codes - exact).abs().max()) < 1.0001
    assert seen.gram is not None
    before, after = (
        (d @ seen.gram[0] * d).sum(1)
        for d in (nearest.dequantize() - rows, found.dequantize() - rows)
    )
    assert bool((after <= before * 1.001).all())
    assert float(after.sum()) < 0.5 * float(before.sum())


@pytest.mark.kernels
def test_most_of_what_the_best_of_all_roundings_wins() -> None:
    """Exhaustive search over the 1,024 roundings of each channel."""
    rows, seen = _correlated(6, 10, 5)
    assert seen.gram is not None
    gram = seen.gram[0]
    nearest = quantize_weight(rows, 3)
    found = round_adaptively(rows, nearest, 3, seen)
    ups = torch.tensor(list(itertools.product((0.0, 1.0), repeat=10)))
    usual = best = ours = 0.0
    for row, scale, near, chosen in zip(
        rows, nearest.scales, nearest.dequantize(), found.dequantize(), strict=True
    ):
        every = ((row / scale).floor() + ups).clamp(-4, 3) * scale - row
        best += float(((every @ gram) * every).sum(1).min())
        usual += float((near - row) @ gram @ (near - row))
        ours += float((chosen - row) @ gram @ (chosen - row))
    assert best <= ours
    assert usual - ours >= 0.7 * (usual - best)


@pytest.mark.kernels
@pytest.mark.parametrize("name", ["residual", "two-inputs", "transposed", "shared"])
def test_unseen_outputs_come_closer_to_float(name: str) -> None:
    model, inputs, _ = networks.build(name, samples=150)
    network = Network.from_module(model, inputs)
    calibration = Data("a", tuple(x[:100] for x in inputs), None)
    unseen = tuple(x[100:] for x in inputs)
    choices = dict.fromkeys((layer.name for layer in network.layers), Choice(3, 8))
    errors = []
    for rounding in ("nearest", "adaptive"):
        settings = replace(PLAIN, rounding=rounding)
        quantized = quantize_after_training(network, choices, calibration, settings)
        with torch.no_grad():
            errors.append(float((quantized(*unseen) - network(*unseen)).square().mean()))
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.kernels
def test_few_samples_of_many_inputs_keep_the_factor_and_still_help() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(300, 8)).eval()
        x = torch.randn(600, 20) @ torch.randn(20, 300)
    network = Network.from_module(model, (x,))
    (layer,) = network.layers
    seen = moments(
        network, layer, _uses(network, layer, (x[:100],)), FLOAT, False, torch.Generator()
    )
    assert seen.gram is None
    rows, _ = network.weight_rows(layer)
    nearest = quantize_weight(rows, 4)
    found = round_adaptively(rows, nearest, 4, seen)
    uses = _uses(network, layer, (x[100:],))
    before, after = (_layer_error(network, layer, uses, q.dequantize()) for q in (nearest, found))
    assert after < 0.5 * before

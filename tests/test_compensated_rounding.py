"""Compensated rounding: the moments are those of the layer, and the codes beat the nearest ones."""

import itertools

import networks
import pytest
import torch
from torch import fx, nn

from mpsearch.data import Data
from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network
from mpsearch.post_training import compensated_rounding
from mpsearch.post_training.compensated_rounding import nearest_to_outputs, round_to_outputs
from mpsearch.post_training.layer_by_layer import Use
from mpsearch.post_training.layer_moments import InputMomentsOf, Moments, moments
from mpsearch.post_training.repairing import PLAIN, PostTraining, quantize_after_training
from mpsearch.quantization.quantizer import (
    ActivationQuantizer,
    quantize_weight,
    weight_codes_range,
)
from mpsearch.quantization.scale_layout import ScaleLayout
from mpsearch.tables.choice import Choice

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
        prior = float((seen.by_channel(seen.prior)[:, None] * difference.square()).sum())
        by_moments = float((difference * seen.times(difference)).sum()) - prior
        assert by_moments == pytest.approx(_layer_error(network, layer, uses, other), rel=1e-3)
        assert torch.allclose(seen.optimum, rows, atol=1e-2 * float(rows.abs().max()))
        assert float(seen.errors(other).sum()) - prior == pytest.approx(by_moments, rel=0.05)


@pytest.mark.parametrize("name", networks.BUILDERS)
def test_moments_of_float_inputs_are_those_of_the_uses(name: str) -> None:
    """Batch by batch as well as at once; and the mean that rounding shifts, by the operator."""
    model, inputs, _ = networks.build(name, samples=12)
    network = Network.from_module(model, inputs)
    for layer in network.layers:
        uses = _uses(network, layer, inputs)
        quantizer = ActivationQuantizer(4, 0.2, 5)
        taken = InputMomentsOf(network, layer, 10**6, torch.Generator(), [quantizer])
        for use in uses:
            for part in use.inputs[0].split(5):
                taken.add(use.node, part)
        found = taken.result()
        rows, _ = network.weight_rows(layer)
        other = rows + 0.1 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(1))
        for centred in (False, True):
            whole = moments(network, layer, uses, FLOAT, centred, torch.Generator())
            here = found.of(rows, centred)
            assert torch.allclose(here.errors(other), whole.errors(other), rtol=0.05, atol=1e-5)
        total, count = torch.zeros(layer.channels), 0
        for use in uses:
            rest = [network.bias(layer), *use.node.args[3:]]
            weight = network.weight_rows(layer)[1](other)
            x = quantizer.fake_quantize(use.inputs[0])
            outputs = use.node.target(x, weight, *rest)  # type: ignore[operator]
            difference = (use.targets[0] - outputs).detach()
            channels = difference.dim() - 1 if difference.dim() < 3 else 1
            total += difference.transpose(0, channels).flatten(1).sum(1)
            count += difference.numel() // layer.channels
        assert torch.allclose(found.shift(rows, other, quantizer), total / count, atol=1e-4)


def _correlated(channels: int, size: int, seed: int) -> tuple[torch.Tensor, Moments]:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator) + 2.0
    rows = torch.randn(channels, size, generator=generator)
    gram = (mixing @ mixing.T / size)[None] + 0.05 * torch.eye(size)
    return rows, Moments(gram, None, torch.zeros(1), rows @ gram[0])


@pytest.mark.kernels
@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize("one_scale", [True, False])
def test_codes_are_inside_the_range_and_beat_the_nearest(
    bits: int, search: bool, one_scale: bool
) -> None:
    rows, seen = _correlated(8, 60, bits)
    nearest = quantize_weight(rows, bits, ScaleLayout(one_scale))
    found = round_to_outputs(nearest.scales, bits, seen, ScaleLayout(one_scale), search)
    low, high = weight_codes_range(bits)
    assert low <= int(found.codes.min()) <= int(found.codes.max()) <= high
    assert search or torch.equal(found.scales, nearest.scales)
    assert not one_scale or bool((found.scales == found.scales[0]).all())
    assert bool((found.scales > 0).all())
    before, after = (seen.errors(weight.dequantize()) for weight in (nearest, found))
    assert one_scale or bool((after <= before * 1.001).all())
    assert float(after.sum()) < 0.5 * float(before.sum())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("one_scale", [True, False])
def test_nearest_codes_take_the_scale_and_range_that_outputs_prefer(
    bits: int, one_scale: bool
) -> None:
    rows, seen = _correlated(40, 30, bits)
    nearest = quantize_weight(rows, bits, ScaleLayout(one_scale))
    found = nearest_to_outputs(rows, nearest.scales, bits, seen, ScaleLayout(one_scale))
    assert not one_scale or bool((found.scales == found.scales[0]).all())
    low, high = weight_codes_range(bits)
    exact = (rows / found.scales[:, None]).round()
    for channel, (codes, wanted) in enumerate(zip(found.codes, exact, strict=True)):
        ranges = [wanted.clamp(least, high) for least in (low, -high)]
        assert any(torch.equal(codes.float(), one) for one in ranges), channel
    before, after = (seen.errors(weight.dequantize()) for weight in (nearest, found))
    if one_scale:
        before, after = before.sum(), after.sum()
    assert bool((after <= before * 1.0001).all())
    assert one_scale or float(after.sum()) < 0.95 * float(before.sum())


def test_a_search_of_scales_pays() -> None:
    rows, seen = _correlated(16, 40, 3)
    scales = quantize_weight(rows, 3).scales
    kept, searched = (
        seen.errors(round_to_outputs(scales, 3, seen, search=search).dequantize())
        for search in (False, True)
    )
    assert float(searched.sum()) < 0.9 * float(kept.sum())


@pytest.mark.parametrize("columns", [64, 7])
def test_compensation_is_that_of_the_optimal_brain_surgeon(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the textbook: after each weight, the best values of all that are not rounded yet."""
    monkeypatch.setattr(compensated_rounding, "_COLUMNS", columns)
    rows, seen = _correlated(5, 20, 11)
    gram = seen.block(0, 20)[0].double()
    scales = quantize_weight(rows, 3).scales
    codes = compensated_rounding._Rounding(seen, -4, 3).compensated(scales)
    order = gram.diagonal().argsort(descending=True).tolist()
    for row, scale, found in zip(rows.double(), scales.double(), codes, strict=True):
        fixed: dict[int, float] = {}
        for index in order:
            free = [other for other in order if other not in fixed]
            known = list(fixed)
            wanted = row.clone()
            if known:  # argmin over the free ones of (w - w*) G (w - w*)ᵀ
                change = torch.tensor([fixed[k] for k in known]) - row[known]
                pull = gram[free][:, known] @ change
                wanted[free] -= torch.linalg.solve(gram[free][:, free], pull)
            code = float((wanted[index] / scale).round().clamp(-4, 3))
            fixed[index] = code * float(scale)
            assert code == float(found[index])


@pytest.mark.kernels
def test_near_the_best_of_all_codes() -> None:
    """Exhaustive search over the 16,384 rows of codes of each channel."""
    rows, seen = _correlated(6, 7, 5)
    nearest = quantize_weight(rows, 2)
    found = round_to_outputs(nearest.scales, 2, seen, search=False)
    every = torch.tensor(list(itertools.product((-2.0, -1.0, 0.0, 1.0), repeat=7)))
    assert seen.gram is not None
    usual, ours = (seen.errors(weight.dequantize()) for weight in (nearest, found))
    best = torch.stack([
        (((difference := every * scale - row) @ seen.gram[0]) * difference).sum(1).min()
        for row, scale in zip(rows, nearest.scales, strict=True)
    ])  # fmt: skip
    assert bool((best <= ours * 1.0001).all())
    assert float((usual - ours).sum()) >= 0.9 * float((usual - best).sum())


def test_wide_layers_are_rounded_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, seen = _correlated(4, 50, 2)
    nearest = quantize_weight(rows, 3)
    whole = round_to_outputs(nearest.scales, 3, seen)
    monkeypatch.setattr(compensated_rounding, "_LARGEST", 16)
    parts = round_to_outputs(nearest.scales, 3, seen)
    before, apart, at_once = (
        float(seen.errors(weight.dequantize()).sum()) for weight in (nearest, parts, whole)
    )
    assert at_once < apart < 0.5 * before


@pytest.mark.parametrize("bits", [2, 8])
def test_inputs_that_never_vary_leave_the_weights_at_the_nearest_codes(bits: int) -> None:
    rows, _ = _correlated(3, 10, 1)
    module = nn.Linear(10, 3)
    module.weight.data = rows.clone()
    network = Network.from_module(module.eval(), (torch.zeros(4, 10),))
    (layer,) = network.layers
    uses = _uses(network, layer, (torch.zeros(4, 10),))
    seen = moments(network, layer, uses, FLOAT, True, torch.Generator())
    nearest = quantize_weight(rows, bits)
    found = round_to_outputs(nearest.scales, bits, seen, search=False)
    assert torch.equal(found.codes, nearest.codes)


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
        settings = PLAIN if rounding == "nearest" else PostTraining(correct_bias=False)
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
    assert seen.factor is not None
    whole = Moments(seen.block(0, 300), None, torch.zeros(1), seen.targets)
    assert torch.allclose(seen.optimum, whole.optimum, atol=1e-3)
    nearest = quantize_weight(rows, 4)
    found = round_to_outputs(nearest.scales, 4, seen)
    uses = _uses(network, layer, (x[100:],))
    before, after = (_layer_error(network, layer, uses, q.dequantize()) for q in (nearest, found))
    assert after < 0.5 * before

"""Hessian traces against the dense Hessian, entry by entry in float64."""

import gc
import math
import weakref

import dense_hessian
import networks
import numpy as np
import pytest
import torch
from torch.nn import functional

import mpsearch
from mpsearch.data import with_loss
from mpsearch.graph.layers import is_transposed
from mpsearch.graph.network import Network
from mpsearch.losses.forms import output_factor, random_direction
from mpsearch.losses.loss import CROSS_ENTROPY, DIVERGENCE
from mpsearch.running.seeds import generator
from mpsearch.sensitivity import gradient_norms
from mpsearch.sensitivity.gradient_norms import GradientNorms
from mpsearch.sensitivity.hutchinson import estimate, residual_traces
from mpsearch.sensitivity.traces import (
    piecewise_linear,
    sampled_traces,
    trace_sums,
)

PIECEWISE_LINEAR = ("residual", "two-inputs", "transposed")


def _double(name: str) -> tuple[Network, tuple[torch.Tensor, ...], torch.Tensor]:
    model, inputs, labels = networks.build(name)
    return *networks.in_float64(model, inputs), labels


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("spread", [0.1, 5.0, 60.0])
def test_the_output_factor_squares_to_the_hessian_of_softmax(classes: int, spread: float) -> None:
    logits = torch.randn(20, classes, dtype=torch.float64, generator=_seeded(1)) * spread
    factor = output_factor(logits)
    p = torch.softmax(logits, 1)
    expected = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    assert factor.shape == (20, classes, classes - 1)
    torch.testing.assert_close(factor @ factor.transpose(1, 2), expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", PIECEWISE_LINEAR)
def test_exact_traces_equal_the_dense_hessians(name: str) -> None:
    network, inputs, labels = _double(name)
    sums = trace_sums(network, inputs)
    for layer in network.layers:
        assert piecewise_linear(network.graph, layer)
        dense = dense_hessian.block(network.graph, layer.weight_name, inputs, labels).trace()
        assert sums[layer.name] / len(labels) == pytest.approx(float(dense), rel=1e-8)


@pytest.mark.parametrize("name", ["residual", "smooth"])
def test_the_public_traces_are_those_of_the_dense_hessian(name: str) -> None:
    network, inputs, labels = _double(name)
    data = with_loss(mpsearch.Data("own", inputs, labels), network)  # bound: it stays float64
    found = mpsearch.hessian_traces(network, data, rtol=0.02)
    assert list(found) == [layer.name for layer in network.layers]
    estimated = [layer for layer, trace in found.items() if trace.probes]
    assert bool(estimated) == (name == "smooth")
    for layer in network.layers:
        dense = dense_hessian.block(network.graph, layer.weight_name, inputs, labels).trace()
        trace = found[layer.name]
        assert (trace.stderr > 0) == (layer.name in estimated)
        assert abs(trace.value - float(dense)) <= 5 * trace.stderr + 1e-8 * abs(float(dense))


@pytest.mark.parametrize("name", ["smooth", "shared"])
def test_where_the_gauss_newton_block_is_not_the_hessian_it_is_not_called_exact(name: str) -> None:
    network, inputs, labels = _double(name)
    first, last = network.layers
    assert not piecewise_linear(network.graph, first)
    assert piecewise_linear(network.graph, last)
    sums = trace_sums(network, inputs)
    dense = dense_hessian.block(network.graph, first.weight_name, inputs, labels).trace()
    assert sums[first.name] / len(labels) != pytest.approx(float(dense), rel=1e-3)


def test_a_shared_weight_has_its_gradients_summed_over_the_uses() -> None:
    network, inputs, _ = _double("shared")
    inner = network.layers[0]
    weight = network.weight(inner)

    def outputs(w: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(network.graph, {inner.weight_name: w}, inputs)

    jacobian = torch.autograd.functional.jacobian(outputs, weight).flatten(2)
    assert isinstance(jacobian, torch.Tensor)
    p = torch.softmax(network(*inputs), 1)
    output_hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    expected = torch.einsum("nci,ncd,ndi->", jacobian, output_hessian, jacobian)
    assert trace_sums(network, inputs)["inner"] == pytest.approx(float(expected), rel=1e-8)


@pytest.mark.parametrize("name", ["smooth", "shared", "residual"])
def test_the_two_parts_agree_with_the_dense_hessian_within_their_own_error(name: str) -> None:
    """Exact Gauss-Newton trace plus sampled rest; the rest of a piecewise linear layer is 0."""
    network, inputs, labels = _double(name)
    keys = [f"3 {probe}" for probe in range(600)]
    exact = trace_sums(network, inputs)
    rest = residual_traces(network, CROSS_ENTROPY, (inputs, labels), network.layers, keys)
    for layer in network.layers:
        dense = dense_hessian.block(network.graph, layer.weight_name, inputs, labels).trace()
        value, stderr = estimate([[rest[layer.name]]])
        truth = float(dense) * len(labels)
        assert abs(exact[layer.name] + value - truth) <= 4 * stderr + 1e-10 * abs(truth)
        if piecewise_linear(network.graph, layer):
            assert (value, stderr) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_the_standard_error_of_the_rest_is_calibrated() -> None:
    """Over 200 seeds the 95 % interval of 32 probes covers the truth in 90 to 99 % of the runs."""
    network, inputs, labels = _double("smooth")
    layer = network.layers[0]
    dense = dense_hessian.block(network.graph, layer.weight_name, inputs, labels).trace()
    truth = float(dense) * len(labels) - trace_sums(network, inputs)[layer.name]
    covered = 0
    for seed in range(200):
        keys = [f"{seed} {probe}" for probe in range(32)]
        rest = residual_traces(network, CROSS_ENTROPY, (inputs, labels), [layer], keys)
        value, stderr = estimate([[rest[layer.name]]])
        covered += abs(value - truth) <= 2.04 * stderr
    assert 180 <= covered <= 198


def test_random_directions_have_the_hessian_of_softmax_as_second_moment() -> None:
    """Over all 2^C signs, not a sample of them: E[u uᵀ] = diag(p) − p pᵀ exactly."""
    logits = torch.randn(1, 6, dtype=torch.float64, generator=_seeded(2)) * 3
    p = torch.softmax(logits, 1)[0]
    every = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 6)
    drawn = {tuple(row.tolist()) for row in every * p.sqrt()}
    scaled = every * p.sqrt()
    directions = scaled - p * scaled.sum(1, keepdim=True)
    expected = torch.diag(p) - p[:, None] * p[None, :]
    torch.testing.assert_close(directions.T @ directions / 64, expected, rtol=1e-12, atol=1e-15)
    one = random_direction(logits, generator("any key"))[0]
    assert any(torch.allclose(one, direction, rtol=1e-12) for direction in directions)
    assert len(drawn) == 64


@pytest.mark.parametrize("name", ["residual", "two-inputs", "transposed", "shared"])
def test_sampled_gauss_newton_traces_are_unbiased_and_their_error_calibrated(name: str) -> None:
    """The 95 % interval of 8 probes covers the exact value in 90 to 99 % of 200 runs; the mean of
    all runs agrees within its error."""
    network, inputs, _ = _double(name)
    exact = trace_sums(network, inputs)
    covered = dict.fromkeys(exact, 0)
    means: dict[str, list[float]] = {layer: [] for layer in exact}
    for seed in range(200):
        keys = [f"{seed} {probe}" for probe in range(8)]
        for layer, moments in sampled_traces(network, inputs, network.layers, keys).items():
            value, stderr = estimate([[moments]])
            covered[layer] += abs(value - exact[layer]) <= 2.02 * stderr + 1e-10 * exact[layer]
            means[layer].append(value)
    for layer, values in means.items():
        error = np.std(values) / math.sqrt(len(values))
        assert abs(np.mean(values) - exact[layer]) <= 4 * error + 1e-10 * exact[layer]
        assert 180 <= covered[layer] <= 200, (layer, covered[layer])
    assert sum(covered.values()) <= 0.99 * 200 * len(covered)


def test_both_formulas_for_a_gradients_norm_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of positions and products of gradients: forced one way, then the other."""
    for name in networks.BUILDERS:
        network, inputs, _ = _double(name)
        found = []
        for cheaper in (True, False):
            monkeypatch.setattr(
                gradient_norms, "_products_are_cheaper", lambda use, *_, c=cheaper:
                c and not is_transposed(use[0]),
            )  # fmt: skip
            found.append(trace_sums(network, inputs))
        assert found[0] == pytest.approx(found[1], rel=1e-10, abs=1e-20)


def test_chunks_do_not_change_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs, _ = _double("two-inputs")
    whole = trace_sums(network, inputs)
    monkeypatch.setattr(gradient_norms, "_CHUNK", 1)  # one sample at a time
    assert trace_sums(network, inputs) == pytest.approx(whole, rel=1e-12)


def test_a_pass_keeps_no_batch_alive() -> None:
    """Memory must not grow over batches: nothing waits for the cycle collector."""
    network, inputs, _ = _double("residual")
    gc.disable()
    try:
        norms = GradientNorms(network, network.layers, inputs, 2)
        norms.squares(torch.ones_like(norms.logits))
        logits = weakref.ref(norms.logits)
        del norms
        assert logits() is None
    finally:
        gc.enable()


def test_without_labels_the_hessian_is_that_of_the_divergence_from_itself() -> None:
    network, inputs, _ = _double("smooth")
    layer = network.layers[0]
    target = functional.softmax(network(*inputs), 1).detach()

    def loss(flat: torch.Tensor) -> torch.Tensor:
        weight = {layer.weight_name: flat.reshape(network.weight(layer).shape)}
        logits = torch.func.functional_call(network.graph, weight, inputs)
        return -(target * functional.log_softmax(logits, 1)).sum(1).mean()

    dense = torch.autograd.functional.hessian(loss, network.weight(layer).reshape(-1))
    assert isinstance(dense, torch.Tensor)
    # at its own predictions the residual term vanishes: Gauss-Newton is the whole Hessian
    trace = trace_sums(network, inputs)[layer.name] / len(inputs[0])
    assert trace == pytest.approx(float(dense.trace()), rel=1e-8)
    rest = residual_traces(network, DIVERGENCE, (inputs, None), [layer], ["0", "1"])
    assert rest[layer.name].total == pytest.approx(0.0, abs=1e-12)


def test_a_layer_that_the_loss_does_not_reach_has_trace_zero() -> None:
    network = Network.from_module(networks.Unreached(), (torch.randn(2, 4),))
    sums = trace_sums(network, (torch.randn(3, 4),))
    assert sums["used"] > 0
    assert sums.get("unused", 0.0) == 0.0


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)

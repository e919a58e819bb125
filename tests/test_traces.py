"""Hessian traces against the dense Hessian, entry by entry in float64."""

import math

import dense_hessian
import networks
import numpy as np
import pytest
import torch
from torch.nn import functional

from mpsearch.losses import CROSS_ENTROPY, DIVERGENCE
from mpsearch.network import Network
from mpsearch.sensitivity.gauss_newton import output_factor, trace_sums
from mpsearch.sensitivity.hutchinson import probe_sums
from mpsearch.sensitivity.linearity import piecewise_linear

PIECEWISE_LINEAR = ("residual", "two-inputs", "transposed")


def _double(name: str) -> tuple[Network, tuple[torch.Tensor, ...], torch.Tensor]:
    model, inputs, labels = networks.build(name)
    model, inputs = model.double(), tuple(x.double() for x in inputs)
    return Network.from_module(model, inputs), inputs, labels


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
def test_hutchinson_agrees_with_the_dense_hessian_within_its_own_error(name: str) -> None:
    network, inputs, labels = _double(name)
    probes = 600
    sums = probe_sums(network, CROSS_ENTROPY, (inputs, labels), network.layers, probes, seed=3)
    for layer in network.layers:
        values = np.array(sums[layer.name]) / len(labels)
        dense = dense_hessian.block(network.graph, layer.weight_name, inputs, labels).trace()
        stderr = values.std(ddof=1) / math.sqrt(probes)
        assert abs(values.mean() - float(dense)) <= 4 * stderr + 1e-12


def test_the_standard_error_is_calibrated() -> None:
    """Over 200 seeds the 95 % interval of 32 probes covers the truth in 90 to 99 % of the runs."""
    network, inputs, labels = _double("smooth")
    layer = network.layers[0]
    truth = float(dense_hessian.block(network.graph, layer.weight_name, inputs, labels).trace())
    covered = 0
    for seed in range(200):
        sums = probe_sums(network, CROSS_ENTROPY, (inputs, labels), [layer], 32, seed)
        values = np.array(sums[layer.name]) / len(labels)
        covered += abs(values.mean() - truth) <= 2.04 * values.std(ddof=1) / math.sqrt(32)
    assert 180 <= covered <= 198


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
    sums = probe_sums(network, DIVERGENCE, (inputs, None), [layer], 400, 0)[layer.name]
    values = np.array(sums) / len(inputs[0])
    assert abs(values.mean() - trace) <= 4 * values.std(ddof=1) / math.sqrt(400)


def test_a_layer_that_the_loss_does_not_reach_has_trace_zero() -> None:
    network = Network.from_module(networks.Unreached(), (torch.randn(2, 4),))
    sums = trace_sums(network, (torch.randn(3, 4),))
    assert sums["used"] > 0
    assert sums.get("unused", 0.0) == 0.0


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)

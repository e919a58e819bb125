"""Attention: tensors whose samples are not along dimension 0, and the whole loop on a small one."""

import json
from pathlib import Path

import dense_hessian
import networks
import numpy as np
import pytest
import token_networks
import torch
from click.testing import CliRunner

import mpsearch
from mpsearch.cli import cli
from mpsearch.graph.network import Network
from mpsearch.graph.sample_layout import parts
from mpsearch.losses.loss import CROSS_ENTROPY
from mpsearch.sensitivity.gradient_norms import GradientNorms
from mpsearch.sensitivity.hutchinson import residual_traces
from mpsearch.sensitivity.traces import trace_sums


def double(name: str) -> tuple[Network, tuple[torch.Tensor, ...], torch.Tensor]:
    model, inputs, labels = token_networks.build(name)
    return *networks.in_float64(model, inputs), labels


def norms_alone(
    network: Network, inputs: tuple[torch.Tensor, ...], directions: torch.Tensor
) -> dict[str, torch.Tensor]:
    """||∂(u_nᵀ f_n)/∂W||² by autograd, one sample after the other."""
    squares = {}
    for layer in network.layers:
        weight = network.weight(layer).detach().requires_grad_(True)
        rows = []
        for index, direction in enumerate(directions):
            one = tuple(x[index : index + 1] for x in inputs)
            named = {layer.weight_name: weight}
            outputs = torch.func.functional_call(network.graph, named, one)
            (gradient,) = torch.autograd.grad((outputs[0] * direction).sum(), weight)
            rows.append(gradient.square().sum())
        squares[layer.name] = torch.stack(rows)
    return squares


@pytest.mark.parametrize("name", token_networks.BUILDERS)
def test_gradient_norms_are_those_of_single_samples(name: str) -> None:
    network, inputs, _ = double(name)
    nodes = [node for layer in network.layers for node in layer.nodes]
    assert len(list(parts(network.graph, nodes, inputs))) == 1  # all go in one batch
    norms = GradientNorms(network, network.layers, inputs, 2)
    directions = torch.randn(norms.logits.shape, dtype=torch.float64)
    expected = norms_alone(network, inputs, directions)
    for _ in range(2):
        for layer, squares in norms.squares(directions).items():
            torch.testing.assert_close(squares, expected[layer], rtol=1e-9, atol=1e-12)


def test_constant_samples_do_not_tell_where_they_are_and_pass_one_by_one() -> None:
    network, inputs, _ = double("sequence-first")
    equal = tuple(torch.ones_like(x[:4]) for x in inputs)
    nodes = [node for layer in network.layers for node in layer.nodes]
    assert len(list(parts(network.graph, nodes, equal))) == 4
    norms = GradientNorms(network, network.layers, equal, 2)
    directions = torch.randn(norms.logits.shape, dtype=torch.float64)
    expected = norms_alone(network, equal, directions)
    for layer, squares in norms.squares(directions).items():
        torch.testing.assert_close(squares, expected[layer], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["vision-fused", "language"])
def test_traces_through_attention_equal_the_dense_hessians(name: str) -> None:
    network, inputs, labels = double(name)
    layers = [layer for layer in network.layers if layer.weights < 70]
    exact = trace_sums(network, inputs)
    keys = [str(probe) for probe in range(64)]
    residual = residual_traces(network, CROSS_ENTROPY, (inputs, labels), layers, keys)
    for layer in layers:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            dense = dense_hessian.block(network.graph, layer.weight_name, inputs, labels).trace()
        found = residual[layer.name]
        estimate = (exact[layer.name] + found.total / len(keys)) / len(labels)
        stderr = (found.scatter / (len(keys) * (len(keys) - 1))) ** 0.5 / len(labels)
        assert abs(estimate - float(dense)) < 4 * stderr + 1e-8 * abs(float(dense)), layer.name


def test_layers_and_macs_by_hand() -> None:
    network, _, _ = double("language")
    length, vocabulary = token_networks.LENGTH, token_networks.VOCABULARY
    assert {layer.name: (layer.kind, layer.weights, layer.macs) for layer in network.layers} == {
        "head": ("linear", 8 * vocabulary, 8 * vocabulary),  # the last position only
        "positions": ("embedding", 8 * length, 0),
        "encoder.layers.0.self_attn.in_proj_weight": ("linear", 192, 192 * length),
        "encoder.layers.0.self_attn.out_proj": ("linear", 64, 64 * length),
        "encoder.layers.0.linear1": ("linear", 96, 96 * length),
        "encoder.layers.0.linear2": ("linear", 96, 96 * length),
    }


@pytest.mark.parametrize("metric", ["sqnr", "hessian"])
def test_profile_solve_apply_evaluate(
    metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, inputs, labels = token_networks.build("language", samples=16)
    mpsearch.save(model, "model.pt", inputs, {"x0": inputs[0], "y": labels})

    def run(*words: str) -> str:
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == 0, result.output
        return result.output

    outside = "128 B of float tensors outside the layers are not counted in the size"
    said = run("profile", "model.pt", "--metric", metric, "--max-probes", "8")
    assert "encoder.layers.0.norm1 and 1 more" in said
    assert "without weights or MACs: gelu (1)" in said
    assert outside in run("solve", "--size", "85%", "-o", "assignment.json")
    assert outside in run("apply", "model.pt", "assignment.json", "-o", "quantized.pt")
    assignment = json.loads(Path("assignment.json").read_text())
    assert len({tuple(bits.values()) for bits in assignment["layers"].values()}) == 2
    np.savez("test.npz", x0=inputs[0].numpy(), y=labels.numpy())
    run("evaluate", "quantized.pt", "--fp32", "model.pt", "--data", "test.npz")
    run("report", ".", "-o", "report.md")
    assert "What stays in float" in Path("report.md").read_text()

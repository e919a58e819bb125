"""The PyHessian adapter against the dense Hessian, and what it leaves behind."""

import gc
import weakref
from pathlib import Path

import dense_hessian
import networks
import pytest
import torch

from mpsearch.commands.console import progress
from mpsearch.data import Data
from mpsearch.graph.network import Network
from mpsearch.losses.loss import CROSS_ENTROPY
from mpsearch.profiling.profile import ProfileSettings, profile
from mpsearch.sensitivity.hutchinson import Moments, estimate
from mpsearch.sensitivity.pyhessian_backend import samples
from mpsearch.sensitivity.study import Study
from mpsearch.tables.choice import Choice


def _double(name: str) -> Study:
    model, inputs, labels = networks.build(name)
    network, inputs = networks.in_float64(model, inputs)
    data = Data("test", inputs, labels)
    return Study(network, data, CROSS_ENTROPY, (Choice(4, 4),), 6, 0, rtol=0.05, max_probes=256)


@pytest.mark.parametrize("name", ["residual", "two-inputs", "smooth", "shared"])
def test_it_agrees_with_the_dense_hessian_within_its_own_scatter(name: str) -> None:
    study = _double(name)
    data = study.data
    assert data.labels is not None
    for layer in study.network.layers:
        values = samples(study, layer, (data.inputs, data.labels), "0", 100)
        assert len(values) == 100  # it does not stop early
        moments = Moments.of(torch.tensor(values, dtype=torch.float64)[:, None])
        mean, stderr = estimate([[moments]])
        dense = dense_hessian.block(
            study.network.graph, layer.weight_name, data.inputs, data.labels
        ).trace()
        assert abs(mean - float(dense) * len(data)) <= 4 * stderr + 1e-10


def test_a_layer_that_the_loss_does_not_reach_has_trace_zero() -> None:
    inputs, labels = (torch.randn(3, 4),), torch.tensor([0, 1, 2])
    network = Network.from_module(networks.Unreached(), inputs)
    data = Data("test", inputs, labels)
    study = Study(network, data, CROSS_ENTROPY, (), 3, 0, rtol=0.05, max_probes=9)
    for layer in network.layers:
        values = samples(study, layer, (inputs, labels), "0", 4)
        assert (max(values) == 0) == (layer.name == "unused")


def test_the_network_and_torchs_random_state_come_back_unchanged(tmp_path: Path) -> None:
    model, inputs, labels = networks.build("two-inputs", samples=7)
    network, data = Network.from_module(model, inputs), Data("test", inputs, labels)
    before = {name: tensor.clone() for name, tensor in network.graph.state_dict().items()}
    state = torch.random.get_rng_state()
    settings = ProfileSettings(metric="pyhessian", batch_size=4)
    first = profile(network, data, tmp_path / "a.csv", settings, progress)
    provenance = first.provenance
    second = profile(network, data, tmp_path / "b.csv", settings, progress)
    assert first.digest == second.digest  # seeded
    assert provenance["metric_notes"]["probes_per_layer"] == 10
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, tensor in network.graph.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.grad is None
        assert not tensor.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_agrees_with_our_own_metric(tmp_path: Path) -> None:
    """Two implementations, one Ω. Of 10 probes, 6.6 standard errors: exceeded once in 10,000."""
    model, inputs, labels = networks.build("residual", samples=12)
    network, data = Network.from_module(model, inputs), Data("test", inputs, labels)
    ours = profile(network, data, tmp_path / "a.csv", ProfileSettings(metric="hessian"), progress)
    settings = ProfileSettings(metric="pyhessian")
    theirs = profile(network, data, tmp_path / "b.csv", settings, progress)
    difference = abs(ours.omega - theirs.omega)
    assert (difference <= 6.6 * theirs.omega_stderr + 1e-12).all()


def test_memory_does_not_grow_over_batches() -> None:
    """The cycle between a parameter and its differentiable gradient is cut."""
    study = _double("residual")
    data = study.data
    assert data.labels is not None
    gc.collect()
    gc.disable()
    try:
        seen = []
        original = torch.func.functional_call

        def watched(*arguments: object) -> object:
            logits = original(*arguments)  # type: ignore[arg-type]
            seen.append(weakref.ref(logits))
            return logits

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.func, "functional_call", watched)
            for _ in range(3):
                samples(study, study.network.layers[0], (data.inputs, data.labels), "0", 2)
        assert len(seen) == 3
        assert all(logits() is None for logits in seen)
    finally:
        gc.enable()

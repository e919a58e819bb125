"""Every metric against its definition, computed from whole networks and plain arithmetic."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from mpsearch.commands.console import progress
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.network import Network
from mpsearch.losses.loss import CROSS_ENTROPY, DIVERGENCE
from mpsearch.profiling.profile import GROUP, ProfileSettings, output_metrics, profile
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.quantization.quantizer import quantize_weight
from mpsearch.running.journal import Journal
from mpsearch.running.plugins import installed, load
from mpsearch.sensitivity.cells import cells_of
from mpsearch.sensitivity.kfac import PROFILER as KFAC
from mpsearch.sensitivity.study import Profiler, Scores, Study
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable

CHOICES = (Choice(2, 4), Choice(4, 8), Choice(8, 8))
FLOAT = Choice(32, 32)
Array = np.ndarray[Any, np.dtype[np.float64]]


@cache
def _network(name: str, samples: int) -> tuple[Network, tuple[torch.Tensor, ...], torch.Tensor]:
    model, inputs, classes = networks.build(name, samples=samples)
    return Network.from_module(model, inputs), inputs, classes


def _study(name: str, labels: bool = True, samples: int = 40) -> Study:
    network, inputs, classes = _network(name, samples)
    data = Data("test", inputs, classes if labels else None)
    loss = DIVERGENCE if data.labels is None else CROSS_ENTROPY
    return Study(network, data, loss, CHOICES, batch_size=16, seed=0, rtol=0.5, max_probes=8)


def _score(metric: str, study: Study, folder: Path) -> Scores:
    profiler: Profiler = load(GROUP, metric, "metric")
    with Journal(folder / f"{metric}.csv", "sha256:0") as journal:
        scores = profiler.score(study, journal, lambda: None)
        journal.discard()
    return scores


def _perturbation(f: Array, g: Array, y: Array) -> Array:
    p = softmax(f, axis=1)
    hessian = np.einsum("nc,cd->ncd", p, np.eye(p.shape[1])) - np.einsum("nc,nd->ncd", p, p)
    return 0.5 * np.asarray(np.einsum("nc,ncd,nd->n", g - f, hessian, g - f))


def _kl(f: Array, g: Array, y: Array) -> Array:
    return np.asarray((softmax(f, axis=1) * (log_softmax(f, 1) - log_softmax(g, 1))).sum(1))


def _loss(f: Array, g: Array, y: Array) -> Array:
    rows = np.arange(len(y))
    return np.asarray(log_softmax(f, 1)[rows, y] - log_softmax(g, 1)[rows, y])


def _accuracy(f: Array, g: Array, y: Array) -> Array:
    return np.asarray((f.argmax(1) == y).astype(float) - (g.argmax(1) == y))


def _sqnr(f: Array, g: Array, y: Array) -> Array:
    noise, signal = g - f, f - f.mean(1, keepdims=True)
    power = (signal**2).sum(1).mean()
    return np.asarray(((noise - noise.mean(1, keepdims=True)) ** 2).sum(1) / power)


DEFINITIONS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "perturbation": _perturbation,
    "kl": _kl,
    "loss": _loss,
    "empirical": _loss,
    "accuracy": _accuracy,
    "sqnr": _sqnr,
}


@cache
def _quantized_alone(name: str) -> tuple[Study, Array, dict[tuple[str, Choice], Array]]:
    """A study, the float network's outputs, and those with each layer alone quantized."""
    study = _study(name)
    network, inputs = study.network, study.data.inputs
    histograms = calibrate(network, study.data, 16)
    outputs = {}
    with torch.no_grad():
        for layer, choice in itertools.product(network.layers, CHOICES):
            alone = {each.name: FLOAT for each in network.layers} | {layer.name: choice}
            changed = quantize(network, alone, histograms)(*inputs)
            outputs[layer.name, choice] = changed.double().numpy()
        return study, network(*inputs).double().numpy(), outputs


@pytest.mark.parametrize("metric", DEFINITIONS)
@pytest.mark.parametrize("name", ["residual", "two-inputs", "smooth", "shared"])
def test_metrics_of_the_outputs_agree_with_their_definitions(
    metric: str, name: str, tmp_path: Path
) -> None:
    study, f, outputs = _quantized_alone(name)
    labels = study.data.labels
    assert labels is not None
    scores = _score(metric, study, tmp_path)
    assert set(scores) == set(outputs)
    for cell, score in scores.items():
        values = DEFINITIONS[metric](f, outputs[cell], labels.numpy())
        expected = max(0.0, float(values.mean()))
        assert score.omega == pytest.approx(expected, rel=2e-3, abs=1e-7)
        stderr = float(values.std(ddof=1)) / math.sqrt(len(values))
        assert score.stderr == pytest.approx(stderr, rel=2e-3, abs=1e-7)


def test_all_metrics_of_the_outputs_come_from_one_pass(tmp_path: Path) -> None:
    """Whichever is chosen: Ω is what it gives alone, the others stand beside it with their sign."""
    study = _study("two-inputs")
    together = replace(study, beside=output_metrics(study.data, study.loss))
    alone = {metric: _score(metric, study, tmp_path) for metric in DEFINITIONS}
    columns = ("omega_sqnr", "omega_loss", "omega_kl", "omega_perturbation", "omega_accuracy")
    for metric, scores in alone.items():
        for cell, score in _score(metric, together, tmp_path).items():
            assert (score.omega, score.stderr) == (scores[cell].omega, scores[cell].stderr)
            assert tuple(score.metrics) == columns
            for other in columns:
                own = alone[other.removeprefix("omega_")][cell].metrics
                assert score.metrics[other] == own[other]
    below = [cell for cell, score in alone["loss"].items() if score.metrics["omega_loss"] < 0]
    assert all(alone["loss"][cell].omega == 0 for cell in below)
    unlabelled = _study("two-inputs", labels=False)
    beside = output_metrics(unlabelled.data, unlabelled.loss)
    assert [metric.name for metric in beside] == ["sqnr", "kl", "perturbation"]


def test_the_table_has_a_column_for_every_metric_of_the_outputs(tmp_path: Path) -> None:
    network, inputs, classes = _network("smooth", 40)
    data = Data("test", inputs, classes)
    settings = ProfileSettings(metric="kl", choices=CHOICES)
    table = profile(network, data, tmp_path / "t.csv", settings)
    provenance = table.provenance
    again = LayerTable.read_csv(tmp_path / "t.csv")
    assert list(again.metrics) == provenance["metrics_beside"]
    assert list(again.metrics) == [
        "omega_sqnr", "omega_loss", "omega_kl", "omega_perturbation", "omega_accuracy"
    ]  # fmt: skip
    assert np.array_equal(np.maximum(0, again.metrics["omega_kl"]), table.omega)
    settings = ProfileSettings(metric="weight-mse", choices=CHOICES)
    assert not profile(network, data, tmp_path / "w.csv", settings).metrics


def test_fisher_is_the_squared_gradient_times_change_of_each_layers_outputs(tmp_path: Path) -> None:
    """For the last layer, whose outputs are the logits: ∂ℓ/∂z = p − onehot(y)."""
    study = _study("smooth")
    network, inputs, labels = study.network, study.data.inputs, study.data.labels
    assert labels is not None
    scores = _score("fisher", study, tmp_path)
    histograms = calibrate(network, study.data, 16)
    with torch.no_grad():
        logits = network(*inputs)
        gradient = torch.softmax(logits, 1) - nn.functional.one_hot(labels, 3)
        for choice in CHOICES:
            changed = quantize(network, {"first": FLOAT, "second": choice}, histograms)(*inputs)
            expected = 0.5 * float((gradient * (changed - logits)).square().sum(1).mean())
            assert scores["second", choice].omega == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("repaired", [False, True])
def test_kfac_is_the_quadratic_form_of_inputs_and_gradients(repaired: bool, tmp_path: Path) -> None:
    """For the last layer, whose inputs and gradients are known: ½ Σ_c E[g_c²] E[(Δw_c·x)²]."""
    study = replace(_study("smooth"), rounding="adaptive" if repaired else "nearest")
    study = replace(study, correct_bias=repaired)
    network, (x,), labels = study.network, study.data.inputs, study.data.labels
    assert labels is not None
    with Journal(tmp_path / "k.csv", "sha256:0") as journal:
        scores = KFAC.score(study, journal, lambda: None)
        journal.discard()
    first, second = network.layers
    with torch.no_grad():
        gradient = torch.softmax(network(x), 1) - nn.functional.one_hot(labels, 3)
        hidden = nn.functional.gelu(
            nn.functional.linear(x, network.weight(first), network.bias(first))
        )
    power = gradient.double().square().mean(0).numpy()
    for choice, cell in zip(CHOICES, cells_of(study, second), strict=True):
        assert cell.weight is not None
        change = (cell.weight.dequantize() - network.weight_rows(second)[0]) @ hidden.T
        noise = (
            change.double().var(1, correction=0) if repaired else change.double().square().mean(1)
        )
        expected = 0.5 * float((power * noise.numpy()).sum())
        assert scores["second", choice].omega == pytest.approx(expected, rel=2e-3)


def test_weight_mse_is_the_squared_error_of_the_weights(tmp_path: Path) -> None:
    study = _study("residual")
    scores = _score("weight-mse", study, tmp_path)
    for layer in study.network.layers:
        rows, _ = study.network.weight_rows(layer)
        for choice in CHOICES:
            error = float((quantize_weight(rows, choice.w_bits).dequantize() - rows).square().sum())
            assert scores[layer.name, choice].omega == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("metric", installed(GROUP))
def test_every_metric_is_repeatable_ordered_and_leaves_no_trace(
    metric: str, tmp_path: Path
) -> None:
    """Two runs agree to the bit; 2 bits hurt more than 8 in total; nothing outside has changed."""
    study = _study("two-inputs")
    digest, state = study.network.digest, torch.random.get_rng_state()
    first, second = (_score(metric, study, tmp_path) for _ in range(2))
    assert first == second
    total = dict.fromkeys(CHOICES, 0.0)
    for (_, choice), score in first.items():
        total[choice] += score.omega
    assert total[CHOICES[0]] > total[CHOICES[2]] or metric == "accuracy"
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not list(tmp_path.iterdir())
    fresh = Network(**{f: getattr(study.network, f) for f in study.network.__dataclass_fields__})
    assert fresh.digest == digest


@pytest.mark.parametrize("metric", installed(GROUP))
def test_every_metric_serves_awkward_cases_or_says_why_not(metric: str, tmp_path: Path) -> None:
    """One sample, unlabelled data, a layer of zeros, a layer that the output does not see."""
    single = _study("smooth", samples=1)
    scores = _score(metric, single, tmp_path)
    assert all(math.isfinite(score.omega) for score in scores.values())
    unlabelled = _study("smooth", labels=False)
    if metric == "accuracy":
        with pytest.raises(InputError, match="accuracy needs labels"):
            _score(metric, unlabelled, tmp_path)
    else:
        assert all(score.omega >= 0 for score in _score(metric, unlabelled, tmp_path).values())
    model, inputs, labels = networks.build("smooth", samples=10)
    with torch.no_grad():
        model.get_parameter("first.weight").zero_()
    network = Network.from_module(model, inputs)
    zeros = Study(network, Data("z", inputs, labels), CROSS_ENTROPY, (Choice(4, 32),), 8, 0, 0.5, 8)
    assert _score(metric, zeros, tmp_path)["first", Choice(4, 32)].omega == pytest.approx(
        0, abs=1e-9
    )


def test_a_network_that_returns_no_numbers_is_an_error(tmp_path: Path) -> None:
    model, inputs, labels = networks.build("smooth")
    with torch.no_grad():
        model.get_parameter("second.bias")[0] = float("nan")
    network = Network.from_module(model, inputs)
    data = Data("test", inputs, labels)
    for metric in ("perturbation", "hessian", "fisher"):
        with pytest.raises(InputError, match=r"NaN|no number"):
            profile(network, data, tmp_path / "p.csv", ProfileSettings(metric=metric), progress)
    assert not (tmp_path / "p.csv").exists()


def test_a_loss_that_no_choice_changes_is_an_error_and_a_blind_layer_is_named(
    tmp_path: Path,
) -> None:
    model, inputs, labels = networks.build("smooth", samples=10)
    data = Data("test", inputs, labels)
    with torch.no_grad():
        model.get_parameter("second.weight")[:] = 0
        network = Network.from_module(model, inputs)
        settings = ProfileSettings(  # corrected biases take up all that a constant input changes
            choices=(Choice(4, 32),), metric="perturbation", rounding="nearest", correct_bias=False
        )
        with pytest.raises(InputError, match="no choice changes anything on 10 samples of test"):
            profile(network, data, tmp_path / "p.csv", settings, progress)
        model.get_parameter("second.weight")[:] = torch.randn(3, 5)
        model.get_parameter("first.weight")[:] = 0
    network = Network.from_module(model, inputs)
    provenance = profile(network, data, tmp_path / "p.csv", settings, progress).provenance
    assert provenance["layers_without_effect"] == ["first"]


def test_frozen_parameters_are_profiled_like_others(tmp_path: Path) -> None:
    tables = []
    for frozen in (False, True):
        model, inputs, labels = networks.build("residual")
        model.requires_grad_(not frozen)
        network = Network.from_module(model, inputs)
        data = Data("test", inputs, labels)
        tables.append(profile(network, data, tmp_path / "p.csv", ProfileSettings(), progress))
        assert all(p.requires_grad is not frozen for p in model.parameters())
    assert tables[0].digest == tables[1].digest


def test_random_operators_and_missing_devices_are_errors(tmp_path: Path) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(self.dense(x), 0.5, training=True)

    noise = (torch.randn(8, 4),)
    with pytest.raises(InputError, match="other outputs each time that it runs on the same"):
        Network.from_module(Noisy(), noise)
    data = Data("test", noise, None)
    model, inputs, _ = networks.build("smooth")
    network = Network.from_module(model, inputs)
    for device in ("nonsense", "cuda:99"):
        with pytest.raises(InputError, match=f"no device '{device}'"):
            profile(network, data, tmp_path / "p.csv", ProfileSettings(), progress, device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("metric", ["hessian", "perturbation", "fisher"])
def test_a_gpu_gives_the_same_numbers(metric: str, tmp_path: Path) -> None:
    study = _study("two-inputs")
    settings = ProfileSettings(metric=metric, choices=CHOICES)
    args = (study.network, study.data)
    cpu = profile(*args, tmp_path / "a.csv", settings, progress, "cpu")
    gpu = profile(*args, tmp_path / "b.csv", settings, progress, "cuda")
    np.testing.assert_allclose(gpu.omega, cpu.omega, rtol=1e-3, atol=1e-9)

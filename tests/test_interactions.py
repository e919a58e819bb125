"""Stored interactions: the Gram matrix and superposition against whole networks."""

from pathlib import Path

import networks
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from mpsearch.cli import run
from mpsearch.commands.console import progress
from mpsearch.data import Data, bind
from mpsearch.errors import InputError
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save
from mpsearch.interactions.interactions import (
    Interactions,
    interactions_path,
    load_interactions,
    predict,
)
from mpsearch.profiling.profile import ProfileSettings, profile
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.sensitivity import interactions as gathering
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable

CHOICES = (Choice(2, 8), Choice(4, 8), Choice(8, 8))
FLOAT = Choice(32, 32)


def _profiled(
    folder: Path, metric: str = "perturbation", labels: bool = True
) -> tuple[Network, Data, LayerTable, Interactions]:
    model, inputs, classes = networks.build("two-inputs", samples=30)
    network = Network.from_module(model, inputs)
    data = Data("test", inputs, classes if labels else None)
    settings = ProfileSettings(
        metric=metric, choices=CHOICES, batch_size=8, interactions=True,
        rounding="nearest", correct_bias=False,
    )  # fmt: skip
    table = profile(network, data, folder / "p.csv", settings, progress)
    return network, data, table, load_interactions(interactions_path(folder / "p.csv"))


def test_the_diagonal_of_the_gram_matrix_is_the_metric_perturbation(tmp_path: Path) -> None:
    _, _, table, stored = _profiled(tmp_path)
    cells = zip(stored.layers, stored.choices, strict=True)
    omega = [table.omega[table.row_of(layer, choice)] for layer, choice in cells]
    np.testing.assert_allclose(np.diag(stored.gram), omega, rtol=0.01, atol=1e-9)
    assert np.linalg.eigvalsh(stored.gram).min() >= -1e-12


@pytest.mark.parametrize("metric", ["hessian", "kl", "weight-mse"])
def test_every_metric_can_have_interactions_beside_it(metric: str, tmp_path: Path) -> None:
    *_, reference = _profiled(tmp_path)
    *_, stored = _profiled(tmp_path, metric)
    np.testing.assert_array_equal(stored.gram, reference.gram)


def test_gram_entries_and_superposition_against_whole_networks(tmp_path: Path) -> None:
    network, data, _, stored = _profiled(tmp_path)
    histograms = calibrate(network, data, 8)
    names = [layer.name for layer in network.layers]
    picks = dict(zip(names, [CHOICES[i % 3] for i in range(len(names))], strict=True))
    with torch.no_grad():
        f = network(*data.inputs).double()
        changes = {}
        for name, choice in picks.items():
            alone = dict.fromkeys(names, FLOAT) | {name: choice}
            changes[name] = quantize(network, alone, histograms)(*data.inputs).double() - f
    p = torch.softmax(f, 1)
    hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    position = {cell: k for k, cell in enumerate(zip(stored.layers, stored.choices, strict=True))}
    total = 0.0
    for a, u in changes.items():
        for b, v in changes.items():
            expected = 0.5 * float(torch.einsum("nc,ncd,nd->n", u, hessian, v).mean())
            entry = stored.gram[position[a, picks[a]], position[b, picks[b]]]
            assert entry == pytest.approx(expected, rel=0.02, abs=2e-6)
            total += expected
    prediction = predict(stored, picks)
    assert prediction.quadratic == pytest.approx(total, rel=0.02)
    superposed = f + torch.stack(list(changes.values())).sum(0)
    assert data.labels is not None
    loss = float(functional.cross_entropy(superposed, data.labels))
    assert prediction.loss == pytest.approx(loss, rel=2e-3)
    accuracy = float((superposed.argmax(1) == data.labels).double().mean())
    assert prediction.accuracy == pytest.approx(accuracy, abs=1 / 30 + 1e-9)
    divergence = functional.kl_div(
        torch.log_softmax(superposed, 1), torch.log_softmax(f, 1), reduction="batchmean",
        log_target=True,
    )  # fmt: skip
    assert prediction.kl == pytest.approx(float(divergence), rel=0.02)


def test_without_labels_there_is_a_divergence_but_no_accuracy(tmp_path: Path) -> None:
    *_, stored = _profiled(tmp_path, labels=False)
    prediction = predict(stored, dict.fromkeys(stored.layers, CHOICES[0]))
    assert (prediction.loss, prediction.accuracy) == (None, None)
    assert prediction.kl > 0


def test_the_size_is_bounded_by_keeping_fewer_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "MOST_BYTES", 2 * 15 * 4 * 11)  # 15 cells, 4 classes, 11 samples
    *_, stored = _profiled(tmp_path)
    assert stored.logits.shape == (11, 4)
    assert stored.changes.nbytes <= 2 * 15 * 4 * 11


def test_assignments_that_the_file_does_not_know_are_named(tmp_path: Path) -> None:
    *_, stored = _profiled(tmp_path)
    good = dict.fromkeys(stored.layers, CHOICES[0])
    for bad, message in (
        ({**good, "conv": Choice(3, 3)}, "no w3a3 for layer 'conv'"),
        ({**good, "other": CHOICES[0]}, "no layer 'other'"),
        ({k: v for k, v in good.items() if k != "conv"}, "no choice for layer 'conv'"),
    ):
        with pytest.raises(InputError, match=message):
            predict(stored, bad)


def test_the_command_and_its_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model, inputs, labels = networks.build("two-inputs", samples=30)
    save(model, "model.pt", inputs, {"x0": inputs[0], "x1": inputs[1], "y": labels})
    assert run(["predict"]) == 2
    assert "--interactions" in capsys.readouterr().err
    Path("profile.interactions.npz").write_bytes(b"PK\x03\x04 not really")
    assert run(["predict"]) == 2
    assert "damaged archive" in capsys.readouterr().err
    assert run("profile model.pt --metric perturbation --interactions".split()) == 0
    names = ["conv", "depthwise", "pointwise", "dense", "head"]
    Assignment.uniform(names, Choice(4, 4)).save("assignment.json")
    assert run(["predict"]) == 0
    assert "by superposition on the 30 samples" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["bce", "mse"])
def test_interactions_of_other_losses_are_those_of_whole_networks(
    name: str, tmp_path: Path
) -> None:
    """The diagonal is the metric perturbation, the superposed outputs have the formulas' loss."""
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Unflatten(1, (2, 2)))
    x = torch.randn(20, 6, generator=random)
    y = torch.randint(0, 2, (20, 2, 2), generator=random).float()
    network = Network.from_module(model.eval(), (x,))
    data = bind(Arrays("source", {"x0": x, "y": y}), network, (name,))
    settings = ProfileSettings(metric="perturbation", choices=(Choice(3, 4),), interactions=True)
    table = profile(network, data, tmp_path / "p.csv", settings)
    stored = load_interactions(tmp_path / "p.interactions.npz")
    assert stored.loss == name
    np.testing.assert_allclose(np.diag(stored.gram), table.omega, rtol=2e-3)
    found = predict(stored, dict.fromkeys(("0", "2"), Choice(3, 4)))
    z = stored.logits + np.tensordot(stored.scales, stored.changes.astype(float), axes=1)
    t = y.reshape(20, 4).numpy()
    p, q = (1 / (1 + np.exp(-one.astype(float))) for one in (stored.logits, z))
    if name == "mse":
        expected = ((z - t) ** 2).mean(), ((z - stored.logits) ** 2).mean(), None
    else:
        loss = -(t * np.log(q) + (1 - t) * np.log(1 - q)).mean()
        kl = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
        expected = loss, kl, np.mean((z > 0) == (t > 0.5))
    assert found.loss == pytest.approx(expected[0], rel=1e-5)
    assert found.kl == pytest.approx(expected[1], rel=1e-4)
    assert found.accuracy == (None if expected[2] is None else pytest.approx(expected[2]))

"""Embedding tables as layers: rows of integers, sizes to the byte, no activation quantizer."""

import random
from functools import cache
from pathlib import Path

import pytest
import token_networks
import torch
from torch import nn

from mpsearch.data import Data
from mpsearch.finetuning.student import student
from mpsearch.graph.network import Network
from mpsearch.graph.partial_forward import PartialForward
from mpsearch.losses.loss import CROSS_ENTROPY
from mpsearch.post_training.repairing import PostTraining, quantize_after_training
from mpsearch.profiling.profile import ProfileSettings, profile
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.packing import bops, size_bytes
from mpsearch.quantization.quantized import quantize
from mpsearch.quantization.quantized_file import load_quantized, payload, save_quantized
from mpsearch.quantization.quantizer import quantize_weight
from mpsearch.quantization.scale_layout import PER_TENSOR, layout_of
from mpsearch.running.journal import Journal
from mpsearch.sensitivity.cells import cells_of, replacement
from mpsearch.sensitivity.fisher import PROFILER as FISHER
from mpsearch.sensitivity.study import Study
from mpsearch.tables.choice import Choice

CHOICES = (Choice(2, 4), Choice(4, 8), Choice(8, 32), Choice(32, 4))
FLOAT = Choice(32, 32)


@cache
def prepare(name: str) -> tuple[Network, Data]:
    model, inputs, labels = token_networks.build(name, samples=6)
    return Network.from_module(model, inputs), Data(name, inputs, labels)


def study_of(name: str, batch_size: int, choices: tuple[Choice, ...] = CHOICES) -> Study:
    network, data = prepare(name)
    return Study(network, data, CROSS_ENTROPY, choices, batch_size, seed=0, rtol=0.5, max_probes=8)


def mixed(network: Network, seed: int) -> dict[str, Choice]:
    source = random.Random(seed)
    return {layer.name: source.choice([*CHOICES, FLOAT]) for layer in network.layers}


def test_size_and_cost_by_hand() -> None:
    network, _ = prepare("bag")
    table = network.layers[0]
    assert (table.name, table.kind, table.weights, table.macs) == ("table", "embedding", 66, 0)
    w4 = {"table": Choice(4, 8), "head": FLOAT}
    assert size_bytes(network, w4) == 33 + 4 + 4 * (18 + 3)  # 66 codes, one scale; the head
    assert size_bytes(network, {"table": FLOAT, "head": FLOAT}) == 4 * 66 + 4 * 21
    assert bops(network, w4) == 18 * 32 * 32
    wide = nn.Sequential(nn.Embedding(5, 64), nn.Flatten(), nn.Linear(64, 2))
    network = Network.from_module(wide, (torch.tensor([[1], [2]]),))
    choices = {"0": Choice(4, 4), "2": FLOAT}
    assert size_bytes(network, choices) == 5 * 32 + 4 * 5 + 4 * 130  # long rows: a scale for each


def test_rows_are_read_from_the_integers() -> None:
    network, data = prepare("bag")
    quantized = quantize(network, {"table": Choice(4, 4), "head": FLOAT}, calibrate(network, data))
    weight = quantized.layers["table"].weight
    assert weight is not None
    assert len(set(weight.scales.tolist())) == 1
    table = weight.codes.double() * float(weight.scales[0])
    summed = torch.stack([torch.stack([table[t] for t in row]).sum(0) for row in data.inputs[0]])
    bias = network.bias(network.layers[1])
    assert bias is not None
    expected = torch.relu(summed) @ network.weight(network.layers[1]).double().T + bias
    with torch.no_grad():
        torch.testing.assert_close(quantized(*data.inputs).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", token_networks.BUILDERS)
def test_the_file_gives_identical_outputs_and_has_the_predicted_size(
    name: str, tmp_path: Path
) -> None:
    network, data = prepare(name)
    histograms = calibrate(network, data)
    for seed in range(2):
        choices = mixed(network, seed)
        quantized = quantize(network, choices, histograms)
        save_quantized(quantized, tmp_path / "q.pt")
        loaded = load_quantized(tmp_path / "q.pt")
        with torch.no_grad():
            assert torch.equal(loaded(*data.inputs), quantized(*data.inputs))
        stored = [payload(each, loaded.layers[each.name], loaded.source) for each in network.layers]
        total = sum(t.numel() * t.element_size() for tensors in stored for t in tensors.values())
        assert total == size_bytes(network, choices)


@pytest.mark.parametrize("name", ["bag", "twice", "language", "sequence-first"])
def test_partial_passes_give_the_outputs_of_the_network_with_one_layer_quantized(name: str) -> None:
    study = study_of(name, 6)
    network, inputs = study.network, study.data.inputs
    engine = PartialForward(network.graph, inputs)
    values = engine.run(inputs)
    for layer in network.layers:
        replace = replacement(study, layer, cells_of(study, layer))
        found = engine.rerun(layer, values, replace, len(CHOICES))
        for choice, outputs in zip(CHOICES, found, strict=True):
            alone = {each.name: FLOAT for each in network.layers} | {layer.name: choice}
            with torch.no_grad():
                expected = quantize(network, alone, study.histograms)(*inputs)
            torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["twice", "language", "sequence-first"])
def test_fisher_of_a_batch_equals_that_of_single_samples(name: str, tmp_path: Path) -> None:
    scores = []
    for batch_size in (6, 1):  # single samples need no knowledge of where samples are
        study = study_of(name, batch_size, (Choice(4, 32), Choice(32, 4)))
        with Journal(tmp_path / f"{batch_size}.csv", "run") as journal:
            scores.append(FISHER.score(study, journal, lambda: None))
    for cell, score in scores[0].items():
        # float32, and fused kernels that depend on the batch
        assert score.omega == pytest.approx(scores[1][cell].omega, rel=2e-3, abs=1e-9)
        assert score.stderr == pytest.approx(scores[1][cell].stderr, rel=2e-3, abs=1e-9)


def test_the_activations_bits_make_no_difference_to_a_table(tmp_path: Path) -> None:
    network, data = prepare("bag")
    settings = ProfileSettings(choices=(Choice(4, 4), Choice(4, 8)), batch_size=6)
    table = profile(network, data, tmp_path / "p.csv", settings)
    provenance = table.provenance
    narrow, wide = (table.row_of("table", choice) for choice in settings.choices)
    assert table.omega[narrow] == pytest.approx(table.omega[wide], rel=1e-4)  # two float sums
    assert table.omega[narrow] > 0
    assert table.resources["bops"][narrow] == table.resources["bops"][wide] == 0
    narrow, wide = (table.row_of("head", choice) for choice in settings.choices)
    assert table.omega[narrow] != table.omega[wide]
    assert provenance["float_bytes_outside_layers"] == 0


@pytest.mark.parametrize("name", ["bag", "twice", "language"])
def test_fine_tuning_starts_at_the_quantized_network(name: str) -> None:
    network, data = prepare(name)
    choices = dict.fromkeys((layer.name for layer in network.layers), Choice(4, 8))
    start = quantize(network, choices, calibrate(network, data))
    copy = student(network, start)
    with torch.no_grad():
        torch.testing.assert_close(copy(*data.inputs), start(*data.inputs), rtol=1e-4, atol=1e-5)
        assert torch.equal(copy.quantized()(*data.inputs), start(*data.inputs))
    copy(*data.inputs).square().sum().backward()
    missing = [key for key, value in copy.parameters.items() if value.grad is None]
    assert not missing  # an input step of a table would be one


def test_repairs_leave_a_table_at_its_nearest_codes() -> None:
    network, data = prepare("bag")
    choices = {"table": Choice(3, 8), "head": Choice(3, 8)}
    repairs = PostTraining(ranges="auto", equalize=True)
    repaired = quantize_after_training(network, choices, data, repairs).layers["table"].weight
    assert repaired is not None
    nearest = quantize_weight(network.weight(network.layers[0]), 3, PER_TENSOR)
    assert torch.equal(repaired.codes, nearest.codes)


def test_a_tied_table_is_one_layer_with_scales_per_row() -> None:
    network, data = prepare("language")
    tied = network.layers[0]
    assert (tied.kind, tied.weights, tied.macs, len(tied.nodes)) == ("linear", 88, 88, 2)
    assert layout_of(tied, Choice(3, 8)).stored(tied) == token_networks.VOCABULARY
    choices = {layer.name: FLOAT for layer in network.layers} | {tied.name: Choice(32, 4)}
    quantized = quantize(network, choices, calibrate(network, data))
    inserted = [n for n in quantized.graph.graph.nodes if "fake_quantize" in str(n.target)]
    assert len(inserted) == 1  # before the linear use, none before the indices
    choices[tied.name] = Choice(3, 8)
    with torch.no_grad():
        outputs = quantize_after_training(network, choices, data)(*data.inputs)
    assert bool(torch.isfinite(outputs).all())

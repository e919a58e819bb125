"""Partial passes give what whole passes give, whatever the structure and the batching."""

import networks
import pytest
import torch
from torch import nn

from mpsearch.data import Data
from mpsearch.graph import partial_forward
from mpsearch.graph.network import Network
from mpsearch.graph.partial_forward import PartialForward, activation_bytes
from mpsearch.losses.loss import CROSS_ENTROPY
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.sensitivity.cells import cells_of, replacement
from mpsearch.sensitivity.study import Study
from mpsearch.tables.choice import Choice

CHOICES = (Choice(2, 4), Choice(4, 8), Choice(8, 32), Choice(32, 4))
FLOAT = Choice(32, 32)


def study_of(name: str, **settings: object) -> Study:
    model, inputs, labels = networks.build(name, samples=20)
    network = Network.from_module(model, inputs)
    defaults: dict[str, object] = {"batch_size": 8, "seed": 0, "rtol": 0.5, "max_probes": 8}
    data = Data("test", inputs, labels)
    return Study(network, data, CROSS_ENTROPY, CHOICES, **{**defaults, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("name", networks.BUILDERS)
def test_each_cell_gives_the_outputs_of_the_network_with_that_layer_quantized(
    name: str, stacked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not stacked:
        monkeypatch.setattr(partial_forward, "_STACKED_BYTES", {})
    study = study_of(name)
    network, inputs = study.network, study.data.inputs
    histograms = calibrate(network, study.data, study.batch_size)
    engine = PartialForward(network.graph, inputs)
    assert engine.batch_first
    values = engine.run(inputs)
    for layer in network.layers:
        replace = replacement(study, layer, cells_of(study, layer))
        found = engine.rerun(layer, values, replace, len(CHOICES))
        for choice, outputs in zip(CHOICES, found, strict=True):
            alone = {each.name: FLOAT for each in network.layers} | {layer.name: choice}
            with torch.no_grad():
                expected = quantize(network, alone, histograms)(*inputs)
            torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # and the float values were not written over
        torch.testing.assert_close(engine.logits(values), network(*inputs))


def test_only_what_depends_on_the_layer_is_computed_again() -> None:
    study = study_of("two-inputs")
    engine = PartialForward(study.network.graph, study.data.inputs)
    layers = {layer.name: layer for layer in study.network.layers}
    other_branch = set(layers["conv"].nodes)
    names = {node.name for node in engine.downstream(layers["dense"])}
    assert not names & other_branch
    assert set(layers["head"].nodes) <= names
    assert {n.name for n in engine.downstream(layers["head"])} == set(layers["head"].nodes)


class _SecondDimension(nn.Module):
    """Samples move to dimension 1 on the way, as in attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x.transpose(0, 1)))).mean(0)


def test_networks_that_move_the_samples_are_not_stacked() -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(6, 5, 3),)
    network = Network.from_module(_SecondDimension(), inputs)
    data = Data("test", inputs, torch.zeros(6, dtype=torch.int64))
    study = Study(network, data, CROSS_ENTROPY, CHOICES, 6, 0, 0.5, 8)
    engine = PartialForward(network.graph, inputs)
    assert not engine.batch_first
    layer = network.layers[0]
    replace = replacement(study, layer, cells_of(study, layer))
    found = engine.rerun(layer, engine.run(inputs), replace, len(CHOICES))
    histograms = calibrate(network, data)
    for choice, outputs in zip(CHOICES, found, strict=True):
        with torch.no_grad():
            assert torch.allclose(
                outputs, quantize(network, {"first": choice, "second": FLOAT}, histograms)(*inputs),
                atol=1e-6,
            )  # fmt: skip


def test_the_memory_limit_makes_batches_smaller() -> None:
    plain = study_of("residual")
    per_sample = activation_bytes(plain.network.graph)
    assert plain.rows == 8
    assert study_of("residual", memory_limit=3 * per_sample).rows == 3
    assert study_of("residual", memory_limit=1).rows == 1
    assert [len(i[0]) for i, _ in study_of("residual", memory_limit=1).batches()] == [1] * 20

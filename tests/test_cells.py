"""One layer at one choice: what rounding and correction promise of its outputs, and their data."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import networks
import pytest
import token_networks
import torch
from torch import fx, nn

from mpsearch.cli import run
from mpsearch.data import Data
from mpsearch.graph.layers import Layer, layer_input
from mpsearch.graph.network import Network
from mpsearch.graph.partial_forward import PartialForward
from mpsearch.losses.loss import CROSS_ENTROPY
from mpsearch.quantization.quantizer import ActivationQuantizer
from mpsearch.sensitivity.cells import (
    Cells,
    cells_of,
    extent,
    input_moments,
    multiplying,
    notes_of,
    replacement,
)
from mpsearch.sensitivity.study import Study
from mpsearch.tables.choice import Choice

CHOICES = (Choice(2, 8), Choice(3, 8), Choice(3, 4), Choice(8, 8), Choice(32, 4), Choice(3, 32))
FLOAT = ActivationQuantizer(32, 1.0, 0)
NAMES = ["residual", "two-inputs", "transposed", "smooth", "shared"]


def study_of(model: nn.Module, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> Study:
    network = Network.from_module(model, inputs)
    return Study(
        network, Data("test", inputs, labels), CROSS_ENTROPY, CHOICES, 8, 0, 0.5, 8,
        rounding="adaptive", correct_bias=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def studies() -> dict[str, Study]:
    return {name: study_of(*networks.build(name, samples=20)) for name in NAMES}


def call(node: fx.Node, args: tuple[Any, ...]) -> torch.Tensor:
    found = node.target(*args, **node.kwargs)  # type: ignore[operator]
    assert isinstance(found, torch.Tensor)
    return found


def channels_of(node: fx.Node, z: torch.Tensor) -> int:
    return z.dim() - 1 if node.target == torch.ops.aten.linear.default else 1


def outputs_of(
    study: Study, layer: Layer, weight: torch.Tensor, quantizer: ActivationQuantizer
) -> torch.Tensor:
    """The layer with this weight and no bias, over all its uses: [channels, positions]."""
    values = PartialForward(study.network.graph, study.data.inputs).run(study.data.inputs)
    found = []
    for node in multiplying(study, layer):
        rest = (None, *node.args[3:]) if len(node.args) > 2 else ()
        x = quantizer.fake_quantize(values[layer_input(node)])
        z = call(node, (x, weight, *rest))
        found.append(z.movedim(channels_of(node, z), 0).flatten(1))
    return torch.cat(found, 1).double()


@pytest.mark.parametrize("name", NAMES)
def test_moments_give_mean_and_variance_of_any_weights_outputs(
    name: str, studies: dict[str, Study]
) -> None:
    """Whatever the convolution: E[W·x] and W·Cov·Wᵀ are those of the operator's own outputs."""
    study = studies[name]
    layers = study.network.layers
    quantizers = {layer.name: [study.histograms[layer.name].quantizer(3)] for layer in layers}
    found = input_moments(study, layers, quantizers)
    for layer in layers:
        rows, restore = study.network.weight_rows(layer)
        random = torch.randn(rows.shape, generator=torch.Generator().manual_seed(1))
        z = outputs_of(study, layer, restore(random), FLOAT)
        rounded = outputs_of(study, layer, restore(random), quantizers[layer.name][0])
        seen = found[layer.name]
        assert seen.positions == z.shape[1]
        shift = seen.shift(random, random, quantizers[layer.name][0]).double()
        torch.testing.assert_close(shift, z.mean(1) - rounded.mean(1), rtol=1e-3, atol=1e-5)
        for centred, power in ((True, z.var(1, correction=0)), (False, z.square().mean(1))):
            moments = seen.of(rows, centred)
            form = (random * moments.times(random)).sum(1)
            form -= moments.by_channel(moments.prior) * random.square().sum(1)
            torch.testing.assert_close(form.double(), power, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["two-inputs", "transposed", "shared"])
def test_repaired_cells_keep_the_mean_and_lose_less(name: str, studies: dict[str, Study]) -> None:
    """Against the float layer's outputs: mean shift within half a step of the bias, less error."""
    study = studies[name]
    values = PartialForward(study.network.graph, study.data.inputs).run(study.data.inputs)
    error = {"nearest": 0.0, "adaptive": 0.0}
    for rounding in ("nearest", "adaptive"):
        own = replace(study, rounding=rounding)
        cells = Cells(own)
        for layer in study.network.layers:
            at = replacement(own, layer, cells.of(layer))
            for index, cell in enumerate(cells.of(layer)):
                changes = []
                for node in multiplying(study, layer):
                    args = tuple(values[a] if isinstance(a, fx.Node) else a for a in node.args)
                    change = call(node, at(node, args, index)) - values[node]
                    channels = channels_of(node, change)
                    changes.append(change.double().movedim(channels, 0).flatten(1))
                change = torch.cat(changes, 1)
                if cell.choice == Choice(2, 8):
                    error[rounding] += float(change.square().sum())
                if study.network.bias(layer) is None:
                    continue
                step = torch.zeros(1)
                if cell.weight is not None and cell.choice.a_bits != 32:
                    step = cell.weight.scales * cell.activation.scale
                room = 0.51 * step + 1e-4 * float(values[node].abs().max())
                assert bool((change.mean(1).abs() <= room).all())
    assert error["adaptive"] < error["nearest"]


def test_memory_and_order_change_no_cell(studies: dict[str, Study]) -> None:
    """Layers in several passes, the last one asked for first as after a kill: the same codes."""
    study = studies["two-inputs"]
    limit = max(extent(study, layer).bytes for layer in study.network.layers)
    small, whole = Cells(replace(study, memory_limit=limit)), Cells(study)
    for layer in reversed(study.network.layers):
        for one, other in zip(small.of(layer), whole.of(layer), strict=True):
            assert one.activation == other.activation
            assert (one.bias is None) == (other.bias is None)
            if one.bias is not None and other.bias is not None:
                torch.testing.assert_close(one.bias, other.bias)
            if one.weight is not None and other.weight is not None:
                assert torch.equal(one.weight.codes, other.weight.codes)
                assert one.weight.codes.dtype == torch.int8
        by_bits = {cell.choice.w_bits: cell.weight for cell in whole.of(layer)}
        assert all(cell.weight is by_bits[cell.choice.w_bits] for cell in whole.of(layer))


class _Awkward(nn.Module):
    """More inputs than samples, a dead channel, and a layer whose input never changes."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.blind = nn.Linear(50, 4), nn.Linear(3, 4)
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            self.wide.weight[1] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        constant = self.blind(torch.ones_like(x[:, :3]))
        found: torch.Tensor = self.head(torch.relu(self.wide(x)) + constant)
        return found


def test_few_samples_constant_inputs_and_dead_channels() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 50)
    study = study_of(_Awkward(), (x,), torch.zeros(6, dtype=torch.int64))
    wide = next(layer for layer in study.network.layers if layer.name == "wide")
    assert notes_of(study)["fewer_positions_than_inputs"] == {"wide": 6}
    cells = Cells(study)
    for layer in study.network.layers:
        for cell in cells.of(layer):
            if cell.weight is not None:
                assert bool(torch.isfinite(cell.weight.dequantize()).all())
            assert cell.bias is not None
            assert bool(torch.isfinite(cell.bias).all())
    cell = cells.of(wide)[0]
    assert cell.weight is not None
    assert int(cell.weight.codes[1].abs().max()) == 0


def test_inputs_far_from_zero_keep_their_variance() -> None:
    """A mean of 3,000 beside a deviation of 1: squares in float32 would lose the latter."""
    x = 3000 + torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    study = study_of(nn.Sequential(nn.Linear(8, 3)), (x,), torch.zeros(40, dtype=torch.int64))
    (layer,) = study.network.layers
    rows, _ = study.network.weight_rows(layer)
    moments = input_moments(study, [layer], {layer.name: ()})[layer.name].of(rows, centred=True)
    form = (rows * moments.times(rows)).sum(1) - moments.prior * rows.square().sum(1)
    exact = (x.double() @ rows.double().T).var(0, correction=0)
    torch.testing.assert_close(form.double(), exact, rtol=1e-3, atol=0)


def test_an_embedding_keeps_the_nearest_codes() -> None:
    study = study_of(*token_networks.build("bag", samples=6))
    table = study.network.layers[0]
    plain = replace(study, rounding="nearest", correct_bias=False)
    for one, other in zip(cells_of(study, table), cells_of(plain, table), strict=True):
        assert (one.weight is None) == (other.weight is None)
        if one.weight is not None and other.weight is not None:
            assert torch.equal(one.weight.dequantize(), other.weight.dequantize())


def test_the_command_says_how_layers_were_rounded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    import mpsearch

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    x = torch.randn(6, 50)
    sample = {"x0": x, "y": torch.tensor([0, 1, 0, 1, 1, 0])}
    mpsearch.save(_Awkward(), "m.pt", example_inputs=(x[:1],), sample=sample)
    assert run(["profile", "m.pt", "--choices", "w3a8"]) == 0
    out = capsys.readouterr().out
    assert "6 positions of wide are fewer than its inputs: rounding is damped" in out
    found = json.loads(Path("profile.json").read_text())
    assert (found["rounding"], found["bias_correction"]) == ("adaptive", True)
    plain = ["--rounding", "nearest", "--no-bias-correction"]
    for call in (plain, ["--metric", "weight-mse"]):
        assert run(["profile", "m.pt", "--choices", "w3a8", *call]) == 0
        assert "positions of" not in capsys.readouterr().out
        found = json.loads(Path("profile.json").read_text())
        assert (found["rounding"], found["bias_correction"]) == ("nearest", False)

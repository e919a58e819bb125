"""Cross-layer equalisation leaves the function alone and evens out what per-tensor scales see."""

from collections.abc import Callable
from dataclasses import replace

import networks
import pytest
import torch
from torch import nn

from mpsearch.data import Data
from mpsearch.graph.network import Network
from mpsearch.post_training.equalization import equalize, find_pairs
from mpsearch.post_training.repairing import PLAIN, quantize_after_training
from mpsearch.tables.choice import Choice


def _wild(model: nn.Module) -> nn.Module:
    """The same function with channel scales from 1/30 to 30 between the first two convolutions."""
    first, second = model.get_submodule("0"), model.get_submodule("2")
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    assert first.bias is not None
    factors = torch.logspace(-1.5, 1.5, first.out_channels)
    with torch.no_grad():
        first.weight *= factors[:, None, None, None]
        first.bias *= factors
        if second.groups > 1:
            second.weight /= factors.repeat_interleave(2)[:, None, None, None]
        else:
            second.weight /= factors[None, :, None, None]
    return model


def _chain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(24, 9), nn.ReLU(), nn.Linear(9, 3),
    )  # fmt: skip


def _depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, groups=8), nn.LeakyReLU(),
        nn.Conv2d(16, 8, 1, groups=2), nn.ReLU(), nn.AvgPool2d(2),
        nn.ConvTranspose2d(8, 6, 2, groups=2), nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3),
    )  # fmt: skip


def _prepare(make: Callable[[], nn.Module], samples: int = 60) -> tuple[Network, Data]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _wild(make()).eval()
        inputs = (torch.randn(samples, 2, 8, 8),)
    return Network.from_module(model, inputs), Data("test", inputs, None)


@pytest.mark.parametrize(("make", "pairs"), [(_chain, 3), (_depthwise, 5)])
def test_float_outputs_stay_and_ranges_meet(make: Callable[[], nn.Module], pairs: int) -> None:
    network, data = _prepare(make)
    before = network.digest
    equal = equalize(network, data)
    assert len(find_pairs(network.graph)) == pairs
    with torch.no_grad():
        expected = network(*data.inputs)
        torch.testing.assert_close(equal(*data.inputs), expected, rtol=1e-5, atol=1e-5)
    assert replace(network).digest == before
    first, second = (equal.weight(layer) for layer in equal.layers[:2])
    assert first.abs().amax((1, 2, 3)).log().std() < 1.0 < _spread(network)
    if make is _chain:  # up to a factor of all channels, which no quantizer sees
        ratio = first.abs().amax((1, 2, 3)) / second.abs().amax((0, 2, 3))
        torch.testing.assert_close(ratio, ratio.median().expand(8), rtol=0.02, atol=0)


def _spread(network: Network) -> float:
    return float(network.weight(network.layers[0]).abs().amax((1, 2, 3)).log().std())


@pytest.mark.kernels
@pytest.mark.parametrize("make", [_chain, _depthwise])
def test_it_repairs_per_tensor_weights_of_wild_scales(make: Callable[[], nn.Module]) -> None:
    network, data = _prepare(make)
    calibration, unseen = Data("a", (data.inputs[0][:30],), None), data.inputs[0][30:]
    choices = dict.fromkeys((layer.name for layer in network.layers), Choice(6, 16))
    errors = []
    for repair in (False, True):
        settings = replace(PLAIN, per_tensor=True, equalize=repair)
        quantized = quantize_after_training(network, choices, calibration, settings)
        with torch.no_grad():
            errors.append(float((quantized(unseen) - network(unseen)).square().mean()))
    assert errors[1] < 0.7 * errors[0]


class Joined(nn.Module):
    """Everything that must not be equalised."""

    def __init__(self, between: nn.Module, twice: bool = False, seen: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 3)
        self.between, self.twice, self.seen = between, twice, seen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.between(self.first(x))
        if self.twice:
            hidden = self.between(self.first(hidden))
        out: torch.Tensor = self.second(hidden)
        return out + hidden.sum(1, keepdim=True) if self.seen else out


@pytest.mark.parametrize(
    ("model", "pairs"),
    [
        (Joined(nn.ReLU()), 1),
        (Joined(nn.ReLU6()), 0),
        (Joined(nn.Hardtanh()), 0),
        (Joined(nn.GELU()), 0),
        (Joined(nn.Softmax(1)), 0),
        (Joined(nn.ReLU(), twice=True), 0),
        (Joined(nn.ReLU(), seen=True), 0),
    ],
)
def test_only_homogeneous_joints_without_other_readers_are_pairs(
    model: nn.Module, pairs: int
) -> None:
    inputs = (torch.randn(4, 5),)
    network = Network.from_module(model.eval(), inputs)
    assert len(find_pairs(network.graph)) == pairs
    with torch.no_grad():
        data = Data("test", inputs, None)
        torch.testing.assert_close(equalize(network, data)(*inputs), network(*inputs))


@pytest.mark.parametrize("name", networks.BUILDERS)
def test_every_network_keeps_its_outputs(name: str) -> None:
    model, inputs, _ = networks.build(name)
    network = Network.from_module(model, inputs)
    with torch.no_grad():
        torch.testing.assert_close(
            equalize(network, Data("test", inputs, None))(*inputs),
            network(*inputs),
            rtol=1e-5,
            atol=1e-5,
        )


def _network_with_dead_channels(dead: float) -> tuple[Network, Data]:
    """Channels 0 and 1 are their biases alone, as a batch norm leaves them whose scale is 0."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = nn.Sequential(
            nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 1),
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
        ).eval()  # fmt: skip
        inputs = (torch.randn(32, 2, 8, 8),)
        with torch.no_grad():
            first = model.get_submodule("0")
            assert isinstance(first, nn.Conv2d)
            assert first.bias is not None
            first.weight[:2] = dead * torch.randn(2, 2, 3, 3)
            first.bias[:2] = torch.tensor([2.0, 3.0])
    return Network.from_module(model, inputs), Data("test", inputs, None)


@pytest.mark.parametrize("dead", [0.0, 1e-12, 1e-7, 1e-2])
def test_a_dead_channel_keeps_its_bias(dead: float) -> None:
    """What the second layer reads has the same largest value as before: 3, of a bias alone."""
    network, data = _network_with_dead_channels(dead)
    equal = equalize(network, data)
    bias = equal.bias(equal.layers[0])
    assert bias is not None
    assert float(bias[:2].max()) <= 3.0 + 10 * dead
    choices = dict.fromkeys((layer.name for layer in network.layers), Choice(8, 8))
    noise = []
    for settings in (PLAIN, replace(PLAIN, equalize=True)):
        quantized = quantize_after_training(network, choices, data, settings)
        with torch.no_grad():
            noise.append(float((quantized(*data.inputs) - network(*data.inputs)).square().sum()))
    assert noise[1] <= noise[0]

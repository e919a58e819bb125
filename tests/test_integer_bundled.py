"""The bundled networks in integers: the paper's two, and ResNets with published weights."""

import os
import random
from pathlib import Path

import pytest
import torch
from float64_reference import Float64Reference

from mpsearch.data import Data, bind, read_arrays
from mpsearch.graph.network import Network
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.integer.inference import integer_network, outputs
from mpsearch.models.registry import architecture, build
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.tables.choice import Choice

CHOICES = ["w8a8", "mixed"]


def _assignment(network: Network, choice: str) -> dict[str, Choice]:
    names = [layer.name for layer in network.layers]
    if choice != "mixed":
        return dict.fromkeys(names, Choice.parse(choice))
    source = random.Random(1)
    return {name: Choice(source.randint(2, 8), source.randint(2, 8)) for name in names}


def _check(network: Network, choice: str, calibration: Data, test: Data) -> None:
    """The same classes, and 9 of 10 samples within one step of an 8-bit output.

    An activation that sits between two codes by less than the integers resolve goes either way, and
    with few bits that one code shifts a sample's outputs by some steps.
    """
    quantized = quantize(network, _assignment(network, choice), calibrate(network, calibration))
    integer = integer_network(quantized, calibration)
    got, meant = (outputs(n, test, 32) for n in (integer, Float64Reference(quantized)))
    within = (got - meant).abs().amax(dim=1) <= integer.graph.output_step
    assert float(within.double().mean()) >= 0.9
    assert torch.equal(got.argmax(1), meant.argmax(1))


@pytest.mark.parametrize("name", ["tinym2net-battlefield", "tinym2net-covid"])
def test_tinym2net(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = architecture(name).inputs.values()
    inputs = tuple(torch.randn(3, *shape, generator=generator) for shape in shapes)
    network = Network.from_module(build(name), inputs)
    data = Data("random", inputs, None)
    for choice in ("w4a8", "mixed"):
        _check(network, choice, data, data)


@pytest.mark.data
@pytest.mark.skipif("MPSEARCH_DATA" not in os.environ, reason="MPSEARCH_DATA is not set")
@pytest.mark.parametrize(
    ("name", "weights", "dataset"),
    [
        ("resnet20", "resnet20.safetensors", "cifar10"),
        ("resnet8", "resnet8_from_h5.safetensors", "cifar10-raw"),
    ],
)
def test_published_weights(name: str, weights: str, dataset: str) -> None:
    path = Path(os.environ["MPSEARCH_DATA"], "pretrained", weights)
    network = load_network(ModelSource(str(path), model=name)).network
    train, test = (bind(read_arrays(f"{dataset}:{split}"), network) for split in ("train", "test"))
    for choice in CHOICES:
        _check(network, choice, train.take(32, 0), test.take(20, 0))

"""The networks of the runtime benchmark, quantized, with one sample to run."""

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from mpsearch.data import Data, bind, read_arrays
from mpsearch.errors import InputError
from mpsearch.graph.network import Network
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.models.registry import architecture, build
from mpsearch.quantization.calibration import Histogram, calibrate
from mpsearch.quantization.quantized import QuantizedNetwork, quantize
from mpsearch.tables.choice import Choice

NETWORKS = ("tinym2net-battlefield", "tinym2net-covid", "resnet20")
ASSIGNMENTS = ("w8a8", "w4a8", "mixed")  # mixed: weights of 4 or 8 bits, drawn once
FLOAT = "w32a32"
SAMPLES = 32


@dataclass(frozen=True)
class Subject:
    """A network with the samples that calibrate it; the first of them is the one that is timed."""

    name: str
    network: Network
    data: Data

    @cached_property
    def histograms(self) -> Mapping[str, Histogram]:
        return calibrate(self.network, self.data)

    @property
    def sample(self) -> bytes:
        """The first sample as the C program reads it."""
        return b"".join(x[:1].contiguous().numpy().tobytes() for x in self.data.inputs)

    def quantized(self, assignment: str) -> QuantizedNetwork:
        """One of ASSIGNMENTS, or FLOAT."""
        source = random.Random(0)
        choices = {
            layer.name: Choice(source.choice((4, 8)), 8)
            if assignment == "mixed"
            else Choice.parse(assignment)
            for layer in self.network.layers
        }
        return quantize(self.network, choices, self.histograms)


def load_subject(name: str) -> Subject:
    """TinyM²Net with random weights and inputs, ResNet-20 with published weights on CIFAR-10.

    Speed does not depend on the weights. Raises InputError for another name.
    """
    if name not in NETWORKS:
        raise InputError(f"unknown network {name!r}; expected one of {', '.join(NETWORKS)}")
    if name == "resnet20":
        path = Path(os.environ.get("MPSEARCH_DATA", ""), "pretrained", "resnet20.safetensors")
        network = load_network(ModelSource(str(path), model=name)).network
        return Subject(name, network, bind(read_arrays("cifar10:train"), network).take(SAMPLES, 0))
    generator = torch.Generator().manual_seed(0)
    shapes = architecture(name).inputs.values()
    inputs = tuple(torch.randn(SAMPLES, *shape, generator=generator) for shape in shapes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network.from_module(build(name), inputs)
    return Subject(name, network, Data("random", inputs, None))

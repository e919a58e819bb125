"""The layers of a model's file, where there is no table; imports torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from mpsearch.comparing.layers import NetworkLayer
from mpsearch.graph.network import Network
from mpsearch.importers.kinds import QUANTIZED, detect
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.quantization.packing import layer_bytes
from mpsearch.quantization.quantized_file import load_quantized
from mpsearch.tables.choice import Choice


@dataclass(frozen=True)
class ReadModel:
    """What a model's file is, without any data."""

    network: Network
    """Its float network, or what its quantized one is computed from."""
    choices: Mapping[str, Choice] | None
    """Its bits; None for a float model."""
    model_digest: str | None
    """Of the float network: operators and weights."""
    integers: str | None
    """Of the integers that a quantized file holds."""


def read_model(source: ModelSource) -> ReadModel:
    """Read a float or a quantized model. Raises InputError for what is none."""
    if detect(source.path) != QUANTIZED:
        network = load_network(source).network
        return ReadModel(network, None, network.digest, None)
    quantized = load_quantized(source.path, source.max_memory)
    return ReadModel(
        quantized.source, quantized.assignment, quantized.model_digest, quantized.digest
    )  # fmt: skip


def layers_of_network(
    network: Network, choices: Mapping[str, Choice] | None = None
) -> dict[str, NetworkLayer]:
    """Every layer by name, with what the export stores and computes for it at its choice."""
    found = {}
    for layer in network.layers:
        choice = None if choices is None else choices.get(layer.name)
        costs = (None, None) if choice is None else (
            layer_bytes(layer, choice), layer.macs * choice.w_bits * choice.a_bits
        )  # fmt: skip
        found[layer.name] = NetworkLayer(layer.weights, layer.macs, choice, *costs)
    return found

"""The layers of a network itself, where there is no table; imports torch."""

from collections.abc import Mapping

from mpsearch.comparing.layers import NetworkLayer
from mpsearch.graph.network import Network
from mpsearch.quantization.packing import layer_bytes
from mpsearch.tables.choice import Choice


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

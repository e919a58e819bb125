"""Moments of what reaches each layer of the float network: the same for all of its choices.

One pass over the study's data serves as many layers as its memory holds.
"""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from mpsearch.graph.layers import Layer
from mpsearch.graph.operators import EMBEDDING, groups, layer_input, packet
from mpsearch.graph.partial_forward import PartialForward
from mpsearch.post_training.layer_moments import InputMoments, InputMomentsOf
from mpsearch.quantization.quantizer import ActivationQuantizer
from mpsearch.running.seeds import generator
from mpsearch.sensitivity.study import Study

POSITIONS = 2**13  # of the data, that a layer's moments are taken from


def input_moments(
    study: Study,
    layers: Sequence[Layer],
    quantizers: Mapping[str, Collection[ActivationQuantizer]],
) -> dict[str, InputMoments]:
    """Of every layer but embeddings, in one pass; positions are drawn evenly, by the seed.

    quantizers: layer -> those of its input. The layers that are asked for together make no
    difference to any one of them.
    """
    found: dict[str, InputMomentsOf] = {}
    uses = {layer.name: multiplying(study, layer) for layer in layers}
    positions = {layer.name: extent(study, layer).positions for layer in layers}
    engine: PartialForward | None = None
    for inputs, _ in study.batches():
        engine = engine or PartialForward(study.network.graph, inputs)
        values = engine.run(inputs)
        share = len(inputs[0]) / len(study.data)
        for layer in layers:
            nodes = uses[layer.name]
            if not nodes:
                continue
            if layer.name not in found:
                random = generator(f"{study.seed} {layer.name}")
                found[layer.name] = InputMomentsOf(
                    study.network, layer, 1, random, quantizers[layer.name]
                )
            taken = found[layer.name]
            taken.quota = max(1, math.ceil(positions[layer.name] * share / len(nodes)))
            with torch.no_grad():
                for node in nodes:
                    taken.add(node, values[layer_input(node)])
    return {name: taken.result() for name, taken in found.items()}


def multiplying(study: Study, layer: Layer) -> list[fx.Node]:
    """The layer's nodes that multiply: those of an embedding table read rows."""
    return [
        node
        for node in study.network.graph.graph.nodes
        if node.name in layer.nodes and packet(node) != EMBEDDING
    ]


@dataclass(frozen=True)
class Extent:
    """How many inputs a layer's rows have, how many positions its moments are taken from, and the
    bytes of these moments."""

    inputs: int
    positions: int
    bytes: int


def extent(study: Study, layer: Layer) -> Extent:
    """At most POSITIONS, and of very wide layers as many as the memory limit holds."""
    nodes = multiplying(study, layer)
    if not nodes:
        return Extent(0, 0, 0)
    inputs = study.network.weight_rows(layer)[0].shape[1]
    per_position = 4 * groups(nodes[0]) * inputs
    there = len(study.data) * sum(_per_sample(node) for node in nodes)
    positions = min(POSITIONS, there)
    if positions < inputs // 2:  # then they are kept themselves, and not their products
        positions = max(1, min(positions, study.memory_limit // per_position))
    return Extent(inputs, positions, per_position * min(inputs, positions))


def together(study: Study, layers: Sequence[Layer]) -> list[Layer]:
    """Of these, as many from the first on as the study's memory holds the moments of."""
    sizes = itertools.accumulate(extent(study, layer).bytes for layer in layers)
    fitting = sum(size <= study.memory_limit for size in sizes)
    return list(layers[: max(1, fitting)])


def _per_sample(node: fx.Node) -> int:
    """How often the weight is applied to one sample."""
    shape = node.meta["shape"]
    positions: int = math.prod(shape[1:-1] if packet(node) == "linear" else shape[2:])
    return max(1, positions)

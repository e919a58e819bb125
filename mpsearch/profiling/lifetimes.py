"""Network -> `Template`: one lowering whose steps are kept without their numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.layers import is_transposed, packet
from mpsearch.graph.network import Network
from mpsearch.integer import nodes
from mpsearch.integer.graph import IntegerTensor
from mpsearch.integer.layers import MUCH_LARGER, PROBABILITIES, at_own_scale
from mpsearch.integer.lowering import Lowering, lowered
from mpsearch.integer.nodes import Node
from mpsearch.integer.operators import (
    AVERAGES,
    CLAMPS,
    IDENTITIES,
    JOINING,
    LAYERS,
    MOVES,
    PRODUCTS,
    SOFTMAXES,
    is_repeated,
)
from mpsearch.integer.pointwise import sources_of
from mpsearch.integer.steps_json import step_to_json
from mpsearch.integer.template import Template, refused
from mpsearch.post_training.stored_tensors import store_tensors
from mpsearch.quantization.calibration import Histogram, calibrate
from mpsearch.quantization.quantized import QuantizedNetwork, quantize_layer
from mpsearch.tables.choice import Choice

_SAMPLES = 32  # of which ranges come: they decide next to nothing
_ANY = Choice(8, 8)


def lifetimes(network: Network, data: Data) -> dict[str, Any]:
    """The template of a network as JSON, or what keeps it from having an integer form."""
    try:
        return template_of(network, data.take(min(_SAMPLES, len(data)), 0)).to_json()
    except InputError as error:
        return refused(error)


def template_of(network: Network, data: Data) -> Template:
    """Raises InputError as `lower` does."""
    histograms = calibrate(network, data)
    layers = {}
    for layer in network.layers:
        rows, _ = network.weight_rows(layer)
        scales = (rows.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        layers[layer.name] = quantize_layer(network, layer, _ANY, histograms[layer.name], scales)
    quantized = store_tensors(network, layers, data, "8", _unasked)
    recorded, _ = lowered(_Recording, quantized, data)
    is_stored = quantized.stored is not None
    return Template(tuple(recorded.nodes), _quantizers(histograms), is_stored)


def _unasked(_: QuantizedNetwork) -> float:
    raise AssertionError("a fixed number of bits needs no measure")


def _quantizers(histograms: Mapping[str, Histogram]) -> dict[str, str]:
    """Layers that read the same numbers, under the name of the first of them."""
    first: dict[tuple[bytes, float, float], str] = {}
    found = {}
    for name, seen in histograms.items():
        # A layer that is used twice has seen everything twice.
        counts = seen.counts // max(1, int(np.gcd.reduce(seen.counts)))
        found[name] = first.setdefault((counts.tobytes(), seen.low, seen.high), name)
    return found


@dataclass
class _Recording(Lowering):
    """Keeps the steps of every node's own, before its result is brought into other forms."""

    nodes: list[Node] = field(default_factory=list)
    begun: int = 0
    scaled: dict[str, int] = field(default_factory=dict)

    def enter(self, node: fx.Node, index: int) -> None:
        super().enter(node, index)
        self._note(node, None, index)

    def add(self, node: fx.Node) -> None:
        self.begun, self.scaled = len(self.steps), {}
        super().add(node)
        if packet(node) == "argmax":
            self._note(node, self.tensors[node.name, None])

    def convert(self, node: fx.Node, result: IntegerTensor) -> None:
        if node.op != "placeholder":
            self._note(node, result)
        super().convert(node, result)

    def at_scale(
        self, output: IntegerTensor, node: fx.Node, tensor: IntegerTensor
    ) -> IntegerTensor:
        made = super().at_scale(output, node, tensor)
        self.scaled[made.name] = len(self.scaled)
        return made

    def _note(self, node: fx.Node, result: IntegerTensor | None, index: int = 0) -> None:
        sources = () if result is None else sources_of(node, self.functions)
        places = {
            tensor.name: place
            for place, source in reversed(list(enumerate(sources)))
            for (name, _), tensor in self.tensors.items()
            if name == source.name
        } | self.scaled
        products = packet(node) in PRODUCTS
        operands = self.forms.operands.get(node.name, ()) if products else ()
        sizes = {name: max(map(abs, ends)) for name, ends in self.ranges.items()}
        role = self._role(node)
        self.nodes.append(Node(
            name=node.name,
            role=role,
            sources=tuple(source.name for source in sources),
            shape=tuple(node.meta["shape"][1:]),
            layer=self.layer_of[node.name].name if node.name in self.layer_of else "",
            index=index,
            whole=node.meta["dtype"] in (torch.int64, torch.int32) and role != nodes.ARGMAX,
            probabilities=tuple(form == PROBABILITIES for form in operands),
            apart=tuple(
                MUCH_LARGER * sizes.get(source.name, 0.0) < sizes.get(node.name, 0.0)
                for source in sources
            ) if role == nodes.JOIN else (),
            averages=packet(node) in AVERAGES,
            clips=packet(node) in CLAMPS | IDENTITIES and role == nodes.MOVE,
            transposed=role == nodes.LAYER and is_transposed(node),
            steps=() if result is None else self._own_steps(result, places),
        ))  # fmt: skip

    def _own_steps(
        self, result: IntegerTensor, places: Mapping[str, int]
    ) -> tuple[dict[str, Any], ...]:
        steps = []
        for step in self.steps[self.begun :]:
            if step.output.name in self.scaled:
                continue
            named: list[int | str] = []
            for source in step.sources:
                if source in places:
                    named.append(places[source])
                elif source.startswith(f"{result.name}."):
                    named.append(source.removeprefix(result.name))
                else:
                    named.append("entry")
            steps.append({
                **step_to_json(step), "from": named,
                "to": step.output.name.removeprefix(result.name),
                "shape": list(step.output.shape),
            })  # fmt: skip
        return tuple(steps)

    def _role(self, node: fx.Node) -> str:
        kind = packet(node)
        if node.op == "placeholder":
            return nodes.INPUT
        if kind == "argmax":
            return nodes.ARGMAX
        if kind in SOFTMAXES:
            return nodes.SOFTMAX
        if is_repeated(node):
            return nodes.MOVE
        if kind in LAYERS:
            return nodes.TABLE if kind == "embedding" else nodes.LAYER
        if node.name in self.forms.scaled:
            return nodes.SCALED
        if node.name in self.functions or at_own_scale(node):
            return nodes.OWN
        if kind in JOINING:
            return nodes.JOIN
        return nodes.MOVE if kind in MOVES else nodes.SUM

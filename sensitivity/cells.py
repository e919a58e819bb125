"""One layer at one choice, ready to stand in for the float layer in a forward pass.

Its weights are those that quantizing after training gives it (mpsearch.post_training.repairing),
with what reaches it in the float network: the other layers are in float, so rounding has none of
their errors to make up for. Nobody ships the nearest codes, and Ω of them ranks what nobody ships.

Moments of what reaches each layer of the float network: the same for all of its choices.

One pass over the study's data serves as many layers as its memory holds.
"""

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from mpsearch.graph.layers import EMBEDDING, Layer, groups, layer_input, packet
from mpsearch.graph.partial_forward import PartialForward
from mpsearch.post_training.compensated_rounding import round_to_outputs
from mpsearch.post_training.layer_by_layer import has_own_bias
from mpsearch.post_training.layer_moments import InputMoments, InputMomentsOf
from mpsearch.quantization.quantized import QuantizedLayer, bias_codes, with_activation
from mpsearch.quantization.quantizer import (
    FLOAT_BITS,
    ActivationQuantizer,
    QuantizedWeight,
    quantize_weight,
)
from mpsearch.quantization.scale_layout import layout_of
from mpsearch.running.seeds import generator
from mpsearch.sensitivity.study import Study
from mpsearch.tables.choice import Choice, by_weights

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


_ROUNDED_UP_TO = 8  # bits: as in post_training, above them rounding is no source of error


@dataclass(frozen=True)
class Cell:
    """Weight codes (int8 up to 8 bits), bias and input range of a layer at a choice.

    Cells of equal weight bits share their codes: all of them take about a copy of the network.
    """

    choice: Choice
    weight: QuantizedWeight | None
    bias: torch.Tensor | None
    activation: ActivationQuantizer


class Cells:
    """The cells of a study, made when they are first asked for.

    Moments of the inputs are taken for as many layers at a time as the study's memory holds, from
    one pass over the data each time.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self._found: dict[str, list[Cell]] = {}

    def of(self, layer: Layer) -> list[Cell]:
        """The layer at every choice of the study."""
        if layer.name not in self._found:
            self._make(layer)
        return self._found[layer.name]

    def _make(self, first: Layer) -> None:
        study = self.study
        if study.rounding == "nearest" and not study.correct_bias:
            self._found[first.name] = _cells(study, first, study.quantizers[first.name], None)
            return
        rest = study.network.layers[study.network.layers.index(first) :]
        layers = together(study, [layer for layer in rest if layer.name not in self._found])
        quantizers = {layer.name: study.quantizers[layer.name] for layer in layers}
        wanted = {name: own.values() for name, own in quantizers.items()}
        moments = input_moments(study, layers, wanted)
        for layer in layers:
            seen = moments.pop(layer.name, None)
            self._found[layer.name] = _cells(study, layer, quantizers[layer.name], seen)


def notes_of(study: Study) -> dict[str, object]:
    """How the cells were quantized, for the provenance, and whose inputs were few to do so."""
    few = {
        layer.name: there
        for layer in study.network.layers
        if 0 < (there := extent(study, layer).positions) < extent(study, layer).inputs
    }
    looked = study.rounding != "nearest" or study.correct_bias
    return {
        "rounding": study.rounding,
        "bias_correction": study.correct_bias,
        "ranges": study.ranges,
        **({"positions": POSITIONS} if looked else {}),
        **({"fewer_positions_than_inputs": few} if looked and few else {}),
    }


def cells_of(study: Study, layer: Layer) -> list[Cell]:
    """The layer at every choice of the study."""
    return Cells(study).of(layer)


def _cells(
    study: Study,
    layer: Layer,
    quantizers: Mapping[int, ActivationQuantizer],
    seen: InputMoments | None,
) -> list[Cell]:
    """Rounded and corrected as the study says, where the layer's inputs were `seen`."""
    network = study.network
    rows, _ = network.weight_rows(layer)
    corrected = seen is not None and study.correct_bias and has_own_bias(network, layer)
    weights = rounded_weights(study, layer, seen, corrected)
    small: dict[str, QuantizedWeight] = {}
    cells = []
    for choice in study.choices:
        weight, activation = weights.get(choice.weights), quantizers[choice.a_bits]
        quantized = with_activation(network, layer, choice, weight, activation)
        bias = quantized.bias()
        if corrected:
            assert seen is not None
            bias = _corrected(rows, network.bias(layer), quantized, seen)
        weight = quantized.weight
        if weight is not None:
            codes = weight.codes.to(torch.int8 if choice.w_bits <= 8 else torch.int16)
            own = replace(weight, codes=codes)
            shared = small.setdefault(choice.weights, own)
            same = torch.equal(shared.codes, own.codes) and torch.equal(shared.scales, own.scales)
            weight = shared if same else own
        cells.append(Cell(choice, weight, bias, activation))
    return cells


def rounded_weights(
    study: Study, layer: Layer, seen: InputMoments | None, centred: bool
) -> dict[str, QuantizedWeight]:
    """Codes and scales by `Choice.weights`; `centred` where a corrected bias takes up the mean."""
    rows, _ = study.network.weight_rows(layer)
    moments = None
    if seen is not None and study.rounding == "adaptive":
        moments = seen.of(rows, centred)
    found = {}
    for weights, choice in by_weights(study.choices).items():
        bits, layout = choice.w_bits, layout_of(layer, choice)
        if bits == FLOAT_BITS:
            continue
        found[weights] = quantize_weight(rows, bits, layout)
        if moments is not None and bits <= _ROUNDED_UP_TO:
            found[weights] = round_to_outputs(found[weights].scales, bits, moments, layout)
    return found


def _corrected(
    rows: torch.Tensor,
    bias: torch.Tensor | None,
    quantized: QuantizedLayer,
    seen: InputMoments,
) -> torch.Tensor | None:
    """The bias without the shift of the layer's mean output, as its codes have it."""
    assert bias is not None
    weight = rows if quantized.weight is None else quantized.weight.dequantize()
    shift = seen.shift(rows, weight, quantized.activation)
    bias = (bias.double() + shift).to(bias.dtype)
    if quantized.bias_codes is None or quantized.weight is None:
        return bias
    codes = bias_codes(bias, quantized.weight, quantized.activation.scale)
    return replace(quantized, bias_codes=codes).bias()


def replacement(
    study: Study, layer: Layer, cells: list[Cell]
) -> Callable[[fx.Node, tuple[Any, ...], int], tuple[Any, ...]]:
    """`replace(node, args, index)` for PartialForward: the layer's arguments at cell `index`."""
    _, restore = study.network.weight_rows(layer)
    weights: dict[int, torch.Tensor] = {}

    def replace(node: fx.Node, args: tuple[Any, ...], index: int) -> tuple[Any, ...]:
        cell = cells[index]
        is_table = packet(node) == EMBEDDING
        weight, source, *rest = args if is_table else (args[1], args[0], *args[2:])
        if cell.weight is not None:
            if index not in weights:
                weights[index] = restore(cell.weight.dequantize()).to(weight.dtype)
            weight = weights[index]
        if is_table:
            return (weight, source, *rest)
        if cell.bias is not None and rest:
            rest[0] = cell.bias.to(weight.dtype)
        return (cell.activation.fake_quantize(source), weight, *rest)

    return replace

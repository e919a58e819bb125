"""One layer at one choice, ready to stand in for the float layer in a forward pass."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from mpsearch.choice import Choice
from mpsearch.layers import Layer
from mpsearch.operators import EMBEDDING, packet
from mpsearch.profiler import Study
from mpsearch.quantized import quantize_layer
from mpsearch.quantizer import FLOAT_BITS, ActivationQuantizer, quantize_weight, weight_at


@dataclass(frozen=True)
class Cell:
    """Scales, bias and input range of a layer at a choice; the weight is rounded when it is used.

    Keeping scales instead of weights makes all cells together smaller than one copy of the network.
    """

    choice: Choice
    scales: torch.Tensor | None
    bias: torch.Tensor | None
    activation: ActivationQuantizer


def cells_of(study: Study, layer: Layer) -> list[Cell]:
    """The layer at every choice of the study, quantized just as `apply` does it."""
    rows, _ = study.network.weight_rows(layer)
    found: dict[int, torch.Tensor] = {}
    cells = []
    for choice in study.choices:
        bits = choice.w_bits
        if bits != FLOAT_BITS and bits not in found:
            found[bits] = quantize_weight(rows, bits, layer.scales == 1).scales
        quantized = quantize_layer(
            study.network, layer, choice, study.histograms[layer.name], found.get(bits)
        )
        scales = None if quantized.weight is None else quantized.weight.scales
        cells.append(Cell(choice, scales, quantized.bias(), quantized.activation))
    return cells


def replacement(
    study: Study, layer: Layer, cells: list[Cell]
) -> Callable[[fx.Node, tuple[Any, ...], int], tuple[Any, ...]]:
    """`replace(node, args, index)` for PartialForward: the layer's arguments at cell `index`."""
    rows, restore = study.network.weight_rows(layer)
    weights: dict[int, torch.Tensor] = {}

    def replace(node: fx.Node, args: tuple[Any, ...], index: int) -> tuple[Any, ...]:
        cell = cells[index]
        is_table = packet(node) == EMBEDDING
        weight, source, *rest = args if is_table else (args[1], args[0], *args[2:])
        if cell.scales is not None:
            if index not in weights:
                rounded = weight_at(rows, cell.scales, cell.choice.w_bits).dequantize()
                weights[index] = restore(rounded).to(weight.dtype)
            weight = weights[index]
        if is_table:
            return (weight, source, *rest)
        if cell.bias is not None and rest:
            rest[0] = cell.bias.to(weight.dtype)
        return (cell.activation.fake_quantize(source), weight, *rest)

    return replace

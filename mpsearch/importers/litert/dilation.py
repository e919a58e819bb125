"""Dilated convolutions that a file writes with blocks of places as samples, as one operator again.

TensorFlow computes a dilated convolution as SPACE_TO_BATCH_ND, a plain convolution and
BATCH_TO_SPACE_ND; a line gets an axis for its height on the way. The bias is added behind all that.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mpsearch.importers.litert.constants import values_of
from mpsearch.importers.litert.reading import LiteRtGraph, Operator, Tensor

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_VALID = 1


def join_dilated(graph: LiteRtGraph) -> LiteRtGraph:
    """The graph with every such chain as a dilated convolution with explicit padding."""
    readers: dict[int, list[int]] = {}
    for place, operator in enumerate(graph.operators):
        for number in operator.inputs:
            if number is not None:
                readers.setdefault(number, []).append(place)
    for _, number in graph.outputs:
        readers.setdefault(number, []).append(-1)
    operators: list[Operator | None] = list(graph.operators)
    tensors = list(graph.tensors)
    for place, operator in enumerate(graph.operators):
        chain = _chain(graph, readers, place) if operator.name == "SPACE_TO_BATCH_ND" else None
        made = _joined(graph, [graph.operators[p] for p in chain]) if chain else None
        if chain and made:
            for old in chain:
                operators[old] = None
            for new, old in zip(made, chain, strict=False):
                operators[old] = new
                for number in new.outputs:  # between the blocks they had other shapes
                    tensors[number] = replace(tensors[number], signature=())
    left = tuple(operator for operator in operators if operator is not None)
    return replace(graph, operators=left, tensors=tuple(tensors))


def _chain(graph: LiteRtGraph, readers: Mapping[int, list[int]], place: int) -> list[int] | None:
    """Places of the operators from blocks to places, each the only reader of the one ahead of it;
    the addition of a bias at the end."""
    found = [place]
    for _ in range(5):
        outputs = graph.operators[found[-1]].outputs
        after = readers.get(outputs[0], []) if outputs else []
        if len(after) != 1 or after[0] <= found[-1]:
            break
        found.append(after[0])
    names = [graph.operators[p].name for p in found]
    lines = (("EXPAND_DIMS", "CONV", back) for back in ("RESHAPE", "SQUEEZE"))
    for middle in (("CONV",), *lines):
        wanted = ["SPACE_TO_BATCH_ND", *middle, "BATCH_TO_SPACE_ND"]
        if ["CONV" if name in _CONVOLUTIONS else name for name in names[: len(wanted)]] == wanted:
            with_bias = names[len(wanted) : len(wanted) + 1] == ["ADD"]
            return found[: len(wanted) + with_bias]
    return None


def _joined(graph: LiteRtGraph, chain: list[Operator]) -> list[Operator] | None:
    """The operators instead; None where the chain is none of a dilated convolution."""
    added = chain.pop() if chain[-1].name == "ADD" else None
    first, *_, last = chain
    place = next(i for i, operator in enumerate(chain) if operator.name in _CONVOLUTIONS)
    convolution, options = chain[place], chain[place].options
    line = len(chain) == 5
    parts = [_integers(graph, operator, i) for operator in (first, last) for i in (1, 2)]
    blocks, pads, back, crops = parts
    plain = (
        blocks is not None
        and blocks == back
        and pads is not None
        and crops is not None
        and len(blocks) == (1 if line else 2)
        and len(pads) == len(crops) == 2 * len(blocks)
        and all(pad >= crop for pad, crop in zip(pads, crops, strict=True))
        and (options["padding"], options["strideH"], options["strideW"]) == (_VALID, 1, 1)
        and (options["dilationHFactor"], options["dilationWFactor"]) == (1, 1)
        and (not line or _integers(graph, chain[1], 1) in ([1], [-3]))
    )
    if not plain:
        return None
    assert blocks is not None
    assert pads is not None
    assert crops is not None
    around = [pad - crop for pad, crop in zip(pads, crops, strict=True)]
    if line:
        blocks, around = [1, *blocks], [0, 0, *around]
    settings: dict[str, Any] = {
        **options, "dilationHFactor": blocks[0], "dilationWFactor": blocks[1], "around": around,
    }  # fmt: skip
    inputs, end, rest = convolution.inputs, last.outputs, []
    if added is not None:
        bias = _bias(graph, convolution, added, last.outputs[0])
        if bias is None:
            rest = [added]
        else:
            inputs, end = (*inputs[:2], bias), added.outputs
            settings["fusedActivationFunction"] = added.options["fusedActivationFunction"]
    if not line:
        return [replace(convolution, inputs=(first.inputs[0], *inputs[1:]), outputs=end,
                        options=settings), *rest]  # fmt: skip
    return [
        replace(chain[1], inputs=(first.inputs[0], chain[1].inputs[1])),
        replace(convolution, inputs=inputs, options=settings),
        Operator("SQUEEZE", convolution.outputs[:1], end, {"squeezeDims": np.array([1])}),
        *rest,
    ]


def _bias(graph: LiteRtGraph, convolution: Operator, added: Operator, source: int) -> int | None:
    """The tensor of a bias that is added behind a convolution whose own is zero."""
    other = [number for number in added.inputs if number not in (None, source)]
    own = _constant(graph, convolution.inputs[2]) if len(convolution.inputs) > 2 else None
    if len(other) != 1 or other[0] is None or convolution.options["fusedActivationFunction"]:
        return None
    found = _constant(graph, other[0])
    zero = own is not None and not values_of(own).any()
    return other[0] if found is not None and len(found.shape) == 1 and zero else None


def _constant(graph: LiteRtGraph, number: int | None) -> Tensor | None:
    """The tensor that holds the numbers, of half width or sparse perhaps; None where none does."""
    widened = {
        operator.outputs[0]: operator.inputs[0]
        for operator in graph.operators
        if operator.name in ("DEQUANTIZE", "DENSIFY") and operator.outputs and operator.inputs
    }
    while number is not None and number in widened:
        number = widened[number]
    tensor = graph.tensors[number] if number is not None else None
    return tensor if tensor is not None and tensor.data is not None else None


def _integers(graph: LiteRtGraph, operator: Operator, place: int) -> list[int] | None:
    number = operator.inputs[place] if place < len(operator.inputs) else None
    if number is None or graph.tensors[number].data is None:
        return None
    return [int(value) for value in values_of(graph.tensors[number]).reshape(-1)]

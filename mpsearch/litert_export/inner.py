"""8-bit quantizers for what no layer quantizes: sums, means, outputs, which LiteRT keeps in 8 bits.

The integer graph has 32 bits there. Here every such tensor gets the range that it has in the
fake-quantized network on the calibration data, zero included, in 255 steps. Tensors that an
operator moves without rescaling share one quantizer. Where layers read a group through one
quantizer, the group has its codes at once: a range chosen for the least error, and no rounding and
no operator in between.
"""

import re
from collections.abc import Iterable

from mpsearch.integer.graph import (
    AveragePool,
    Clamp,
    Concatenate,
    IntegerGraph,
    IntegerTensor,
    MaxPool,
    Pad,
    Permute,
    Requantize,
    Reshape,
    Slice,
    Softmax,
    Step,
)
from mpsearch.integer.ranges import Ranges
from mpsearch.quantizer import ActivationQuantizer, affine

# One scale in and out, in LiteRT's 8-bit kernels.
_MOVES = (AveragePool, Clamp, Concatenate, MaxPool, Pad, Permute, Reshape, Slice)
# Ranges of least error cut rare large values off, at 8 bits up to two fifths of the range: on
# ResNet-20 sums in such a range have less noise than in the whole one (0.80 steps at the logits,
# not 0.96), in what was a 4-bit layer's range more (1.55, not 0.84).
_CUT = 0.4
PROBABILITIES = ActivationQuantizer(8, 1 / 256, 0)  # the only one that LiteRT's softmax writes


def quantizers(graph: IntegerGraph, ranges: Ranges) -> dict[str, ActivationQuantizer]:
    """Tensor name -> the 8-bit quantizer that LiteRT keeps it at; class numbers are left out."""
    tensors = graph.tensors
    of_softmax = {step.output.name for step in graph.steps if isinstance(step, Softmax)}
    found: dict[str, ActivationQuantizer] = dict.fromkeys(of_softmax, PROBABILITIES)
    wide = [name for name, tensor in tensors.items() if tensor.signed and not _counts(graph, name)]
    for name, tensor in tensors.items():
        if not tensor.signed and name not in of_softmax:
            found[name] = codes_of(tensor)
    for members in _groups(wide, graph.steps):
        given = [range_of(name, ranges) for name in members]
        low, high = min(0.0, *(low for low, _ in given)), max(0.0, *(high for _, high in given))
        quantizer = _adopted(graph, members, low, high) or affine(8, low, high)
        found.update(dict.fromkeys(members, quantizer))
    return found


def codes_of(tensor: IntegerTensor) -> ActivationQuantizer:
    """The quantizer whose codes an unsigned tensor holds."""
    return ActivationQuantizer(tensor.bits, tensor.scale, tensor.zero_point)


def range_of(name: str, ranges: Ranges) -> tuple[float, float]:
    """The range of the node that the tensor belongs to; `NAME_as2` is another form of NAME."""
    return ranges.get(name) or ranges.get(node_of(name), (0.0, 0.0))


def node_of(name: str) -> str:
    """The graph node of a tensor's name."""
    return re.sub(r"_as\d+$", "", name)


def _counts(graph: IntegerGraph, name: str) -> bool:
    return graph.gives_classes and name == graph.output.name


def _groups(names: Iterable[str], steps: Iterable[Step]) -> list[list[str]]:
    """The names in groups that moves connect."""
    group = {name: [name] for name in names}
    for step in steps:
        if isinstance(step, _MOVES) and step.output.name in group:
            for source in step.sources:
                first, second = group[step.output.name], group[source]
                if first is not second:
                    first += second
                    group.update(dict.fromkeys(second, first))
    return list({id(members): members for members in group.values()}.values())


def _adopted(
    graph: IntegerGraph, members: Iterable[str], low: float, high: float
) -> ActivationQuantizer | None:
    """The codes that readers outside want, where the group can be kept in them; else None.

    They must be one quantizer's. What else reads the group, an addition or the caller, must not
    lose more than _CUT of the range by it; and nothing may be averaged inside, because means have a
    narrower range than what they are means of.
    """
    inside = set(members)
    if any(isinstance(step, AveragePool) and step.output.name in inside for step in graph.steps):
        return None
    readers = [
        step
        for step in graph.steps
        if inside.intersection(step.sources) and step.output.name not in inside
    ]
    wanted = {codes_of(step.output) for step in readers if isinstance(step, Requantize)}
    if len(wanted) != 1:
        return None
    quantizer = wanted.pop()
    bottom = -quantizer.scale * quantizer.zero_point
    top = bottom + quantizer.scale * (2**quantizer.bits - 1)
    cut = max(bottom - low, 0.0) + max(high - top, 0.0)
    alone = graph.output.name not in inside and all(isinstance(r, Requantize) for r in readers)
    return quantizer if alone or cut <= _CUT * (high - low) else None

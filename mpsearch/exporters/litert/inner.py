"""8-bit quantizers for what no layer quantizes: sums, means, outputs, which LiteRT keeps in 8 bits.

The integer graph has 32 bits there. What the network stores in 8 bits has the quantizer that it was
assigned. Every other tensor gets the range that it has in the
fake-quantized network on the calibration data (as far as it matters, see `tensor_ranges`), zero
included, in 255 steps. Tensors that an operator moves without rescaling share one quantizer;
outputs that are put together do not. Where layers read a group through one quantizer, the group may
have its codes at once: no rounding and no operator in between.

What quantizers do to tensors that no layer quantizes, on the calibration data.
"""

import re
from collections.abc import Container, Iterable, Mapping, Sequence

import torch
from torch import fx

from mpsearch.data import Data
from mpsearch.exporters.litert.joined import joined_tensors, read_as_codes
from mpsearch.exporters.litert.pointwise import PROBABILITIES
from mpsearch.integer.beside import Beside
from mpsearch.integer.gathering import Gather
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
from mpsearch.integer.ranges import Ranges, tensor_ranges
from mpsearch.integer.resizing import Resize
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantizer import ActivationQuantizer, affine

Candidates = Mapping[str, Sequence[ActivationQuantizer]]


def squared_errors(
    network: QuantizedNetwork, data: Data, batch_size: int, candidates: Candidates, ranges: Ranges
) -> dict[str, list[float]]:
    """Graph node -> Σ (Q(x) - x)² over `data` for each of its candidates, x within `ranges`."""
    recorder = _Recorder(network.graph, candidates, ranges)
    if candidates:
        with torch.no_grad():
            for inputs, _ in data.batches(batch_size):
                recorder.run(*inputs)
    return recorder.sums


class _Recorder(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, candidates: Candidates, ranges: Ranges) -> None:
        super().__init__(graph)
        self.candidates, self.ranges = candidates, ranges
        self.sums = {name: [0.0] * len(tried) for name, tried in candidates.items()}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n.name in self.candidates:
            assert isinstance(value, torch.Tensor)
            kept = value.clamp(*self.ranges[n.name])
            for place, quantizer in enumerate(self.candidates[n.name]):
                error = (quantizer.fake_quantize(kept) - kept).double().square().sum()
                self.sums[n.name][place] += float(error)
        return value


# One scale in and out, in LiteRT's 8-bit kernels.
_MOVES = (
    AveragePool, Beside, Clamp, Concatenate, Gather, MaxPool, Pad, Permute, Reshape, Resize, Slice,
)  # fmt: skip


def quantizers(
    graph: IntegerGraph,
    network: QuantizedNetwork,
    data: Data,
    batch_size: int = 64,
    stored: Mapping[str, ActivationQuantizer] | None = None,
) -> dict[str, ActivationQuantizer]:
    """Tensor name -> the 8-bit quantizer that LiteRT keeps it at; class numbers are left out, and
    what only joins outputs, which is in float.

    A group in a layer's codes spares the layer a second rounding. So it is kept in them where what
    else reads the group, an addition, gets at most twice the squared error of the whole range.
    A group with a tensor that the network has a quantizer for, in `stored`, has that.
    """
    assigned = stored or {}
    tensors = graph.tensors
    of_softmax = {step.output.name for step in graph.steps if isinstance(step, Softmax)}
    found: dict[str, ActivationQuantizer] = dict.fromkeys(of_softmax, PROBABILITIES)
    joined = joined_tensors(graph)
    real = joined - read_as_codes(graph, joined)
    wide = [
        name
        for name, tensor in tensors.items()
        if tensor.signed and name not in real and not _counts(graph, name)
    ]
    moving = [step for step in graph.steps if step.output.name not in joined]
    requantized = {s.output.name: s.sources[0] for s in graph.steps if isinstance(s, Requantize)}
    for name, tensor in tensors.items():
        if not tensor.signed and name not in of_softmax:
            found[name] = codes_of(tensor)
    ranges = tensor_ranges(network, data, batch_size)
    contested: list[tuple[list[str], ActivationQuantizer, ActivationQuantizer]] = []
    for members in _groups(wide, moving):
        if len(members) == 1 and requantized.get(members[0]) in of_softmax:
            found[members[0]] = PROBABILITIES  # no rounding between a softmax and an output
            continue
        nodes = [node_of(name, ranges) for name in members]
        known = next((assigned[node] for node in nodes if node in assigned), None)
        if known is not None:
            found.update(dict.fromkeys(members, known))
            continue
        given = [ranges.get(node_of(name, ranges), (0.0, 0.0)) for name in members]
        low, high = min(0.0, *(low for low, _ in given)), max(0.0, *(high for _, high in given))
        whole = affine(8, low, high)
        codes, alone = _wanted(graph, members)
        found.update(dict.fromkeys(members, whole if codes is None or not alone else codes))
        if codes is not None and not alone:
            contested.append((members, whole, codes))
    tried = {
        node_of(name, ranges): (whole, codes)
        for members, whole, codes in contested
        for name in members
    }
    errors = squared_errors(network, data, batch_size, tried, ranges)
    for members, _, codes in contested:
        sums = [errors[node_of(name, ranges)] for name in members]
        if sum(error[1] for error in sums) <= 2 * sum(error[0] for error in sums):
            found.update(dict.fromkeys(members, codes))
    return found


def codes_of(tensor: IntegerTensor) -> ActivationQuantizer:
    """The quantizer whose codes an unsigned tensor holds."""
    return ActivationQuantizer(tensor.bits, tensor.scale, tensor.zero_point)


def node_of(name: str, nodes: Container[str]) -> str:
    """The graph node of a tensor's name: `NAME_as2` is another form of NAME, `NAME.1`
    lies between its steps, also those of such a step."""
    while name not in nodes and (shorter := re.sub(r"(_as\d+|\.\d+)$", "", name)) != name:
        name = shorter
    return name


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


def _wanted(graph: IntegerGraph, members: Iterable[str]) -> tuple[ActivationQuantizer | None, bool]:
    """(the one quantizer whose codes readers outside want, or None; whether nothing else reads).

    None also where the group averages: means have a narrower range than what they are means of.
    """
    inside = set(members)
    if any(isinstance(step, AveragePool) and step.output.name in inside for step in graph.steps):
        return None, False
    readers = [
        step
        for step in graph.steps
        if inside.intersection(step.sources) and step.output.name not in inside
    ]
    layers = [s.output for s in readers if isinstance(s, Requantize) and not s.output.signed]
    codes = set(map(codes_of, layers))
    others = graph.output.name in inside or len(layers) < len(readers)
    return (codes.pop() if len(codes) == 1 else None), not others

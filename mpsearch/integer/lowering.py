"""QuantizedNetwork -> IntegerGraph: what the fake-quantized network means, in integers."""

import math
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import fx

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.layers import Layer, argument, packet
from mpsearch.graph.partial_forward import PartialForward
from mpsearch.graph.refusals import Refusals
from mpsearch.integer.beside import stored_codes
from mpsearch.integer.clamps import fuse_clamps
from mpsearch.integer.fixed_point import FRACTION_BITS, OUTPUT_BITS, rescale_of
from mpsearch.integer.gathering import Fill
from mpsearch.integer.graph import (
    ArgMax,
    IntegerGraph,
    IntegerInput,
    IntegerTensor,
    Requantize,
    Softmax,
    Step,
    reciprocal,
)
from mpsearch.integer.layers import (
    PROBABILITIES,
    WIDE,
    Form,
    Forms,
    at_own_scale,
    check_integer,
    choose_forms,
    layer_step,
)
from mpsearch.integer.moves import moving_steps
from mpsearch.integer.operators import (
    JOINING,
    LAYERS,
    SOFTMAXES,
    check,
    is_repeated,
    per_sample,
    sample_axis,
    sample_shape,
    sources,
    stored_part,
    unsupported,
)
from mpsearch.integer.own_scales import own_step
from mpsearch.integer.pads import fold_pads
from mpsearch.integer.pointwise import PointFunction, needed, point_functions, sources_of
from mpsearch.integer.ranges import Ranges, tensor_ranges
from mpsearch.integer.samples import of_one_sample
from mpsearch.integer.sums import summing_step
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantizer import affine
from mpsearch.tables.stored_widths import check_no_groups

# The wide form's largest value over the largest magnitude seen in calibration. Each bit of headroom
# doubles how often rounding in the wide form changes a code that sits between two.
HEADROOM = {16: 1.25, 32: 2.0}


def lower(
    quantized: QuantizedNetwork,
    calibration: Data,
    batch_size: int = 64,
    wide_bits: int | None = None,
) -> IntegerGraph:
    """The integer graph of a quantized network; ranges of wide tensors from `calibration`.

    What is added and averaged has the codes of `quantized.stored`, and what leaves the network 16
    bits. `wide_bits` (16 or 32) are those of all of these instead, without regard to stored codes;
    32 where the network has no quantizers for them. Raises InputError naming the layer that is left
    in float, or the operator and the node that has no integer form; also for a network that mixes
    the samples of a batch.
    """
    lowering, result = lowered(Lowering, quantized, calibration, batch_size, wide_bits)
    return lowering.finish(result)


Kind = TypeVar("Kind", bound="Lowering")


def lowered(
    kind: type[Kind],
    quantized: QuantizedNetwork,
    calibration: Data,
    batch_size: int = 64,
    wide_bits: int | None = None,
) -> tuple[Kind, fx.Node]:
    """What has made all steps, one `kind` of `Lowering`, and the node of the output; as `lower`."""
    stored = quantized.stored if wide_bits is None else None
    bits = wide_bits or (32 if stored is None else 16)
    if bits not in HEADROOM:
        raise InputError(f"got {bits} bits for wide tensors; expected 16 or 32")
    network, refusals = quantized.source, Refusals()
    with refusals.of_layer():
        check_no_groups(quantized.assignment)
    for name, layer in quantized.layers.items():
        with refusals.of_layer():
            check_integer(name, layer)
    quantized = of_one_sample(quantized, calibration.inputs)
    network = quantized.source
    mixes = not PartialForward(network.graph, calibration.inputs).batch_first
    graph = network.graph.graph
    layer_of = {node: layer for layer in network.layers for node in layer.nodes}
    (result,) = next(node for node in graph.nodes if node.op == "output").args
    assert isinstance(result, fx.Node)
    computed = per_sample(graph, refusals)
    functions = point_functions(computed)
    order = needed(computed, functions, result)
    for node in order:
        if node.op != "placeholder":
            with refusals.of(node):
                check(node, frozenset(layer_of))
                sources(node)
    if refusals.found:
        _check(refusals, mixes)
    quantizers = {node: quantized.layers[layer.name].activation for node, layer in layer_of.items()}
    ranges = tensor_ranges(quantized, calibration, batch_size)
    sizes = {name: max(map(abs, ends)) for name, ends in ranges.items()}
    lowering = kind(
        quantized,
        choose_forms(result, order, quantizers, functions, sizes, stored),
        ranges,
        bits,
        layer_of,
        functions,
    )
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for node in order:
        if node.op == "placeholder":
            lowering.enter(node, placeholders.index(node))
        else:
            with refusals.of(node, lowering.assume):
                lowering.add(node)
    _check(refusals, mixes)
    return lowering, result


def _check(refusals: Refusals, mixes: bool) -> None:
    if mixes:
        refusals.network("the network mixes samples; integer inference needs one row per sample")
    refusals.check()


@dataclass
class Lowering:
    """The steps made so far, and the tensors by node and form."""

    quantized: QuantizedNetwork
    forms: Forms
    ranges: Ranges
    wide_bits: int
    layer_of: dict[str, Layer]
    functions: dict[str, PointFunction]
    steps: list[Step] = field(default_factory=list)
    inputs: list[IntegerInput] = field(default_factory=list)
    tensors: dict[tuple[str, Form], IntegerTensor] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def enter(self, node: fx.Node, index: int) -> None:
        """The network's input, once for every form that is read; where it is stored, once."""
        codes = self.forms.codes.get(node.name)
        for form in self.forms.wanted[node.name] if codes is None else (codes,):
            self.tensors[node.name, form] = self.tensor(node, form)
            self.inputs.append(IntegerInput(index, self.tensors[node.name, form]))
        if codes is not None:
            self.convert(node, self.tensors[node.name, codes])

    def add(self, node: fx.Node) -> None:
        """The node's own step, then its result in the other forms that are read."""
        if packet(node) == "argmax":
            self.argmax(node)
        elif packet(node) in SOFTMAXES:
            self.softmax(node)
        else:
            kept = self.forms.kept[node.name]
            if is_repeated(node):
                self.tensors[node.name, kept] = self.repeated(node, self.tensor(node, kept))
            elif packet(node) in LAYERS:
                self.tensors[node.name, kept] = self.layer(node, self.tensor(node, kept))
            elif node.name in self.forms.scaled:
                self.tensors[node.name, kept] = self.summed(node, self.tensor(node, kept))
            elif node.name in self.functions or at_own_scale(node):
                self.tensors[node.name, kept] = self.own(node, self.tensor(node, kept))
            else:
                self.tensors[node.name, kept] = self.move(node, kept)
            self.convert(node, self.tensors[node.name, kept])

    def assume(self, node: fx.Node) -> None:
        """Tensors for a node that was refused, so that all that is refused is found."""
        for form in (self.forms.kept[node.name], *self.forms.wanted[node.name]):
            self.tensors.setdefault((node.name, form), self.tensor(node, form))

    def layer(self, node: fx.Node, output: IntegerTensor) -> IntegerTensor:
        layer = self.layer_of[node.name]
        quantized = self.quantized.layers[layer.name]
        shape = self.quantized.source.weight(layer).shape
        read = WIDE if packet(node) == "embedding" else quantized.activation
        source = self.tensors[sources(node)[0].name, read]
        self.steps.append(layer_step(node, layer, quantized, shape, source, output))
        return output

    def repeated(self, node: fx.Node, output: IntegerTensor) -> IntegerTensor:
        """A constant, for as many samples as the first input has."""
        stored = stored_part(node)
        if not self.inputs or stored is None:
            raise unsupported(node, "reads constants alone")
        codes = stored_codes(stored, node, output)
        self.steps.append(Fill((self.inputs[0].tensor.name,), output, codes))
        return output

    def operands(self, node: fx.Node) -> list[IntegerTensor]:
        """What a step at scales of its own reads."""
        read = sources_of(node, self.functions)
        forms = self.forms.operands.get(node.name, (WIDE,) * len(read))
        return [self.tensors[s.name, form] for s, form in zip(read, forms, strict=True)]

    def summed(self, node: fx.Node, output: IntegerTensor) -> IntegerTensor:
        self.steps.append(summing_step(node, self.operands(node), output))
        return output

    def own(self, node: fx.Node, output: IntegerTensor) -> IntegerTensor:
        read, tensors = sources_of(node, self.functions), self.operands(node)
        within = self.ranges.get(read[0].name, (0.0, 0.0))
        function = self.functions.get(node.name)
        self.steps.append(own_step(node, tensors, output, function, within))
        return output

    def move(self, node: fx.Node, kept: Form) -> IntegerTensor:
        given = sources(node)
        read = [self.tensors[source.name, kept] for source in given]
        if packet(node) in JOINING:
            output = self.tensor(node, kept)
            read = [self.at_scale(output, *pair) for pair in zip(given, read, strict=True)]
        else:
            output = replace(read[0], name=self.name(node), shape=sample_shape(node))
        steps = moving_steps(node, read, output)
        self.steps += steps
        return output if steps else read[0]

    def at_scale(
        self, output: IntegerTensor, node: fx.Node, tensor: IntegerTensor
    ) -> IntegerTensor:
        """The tensor of `node`, rescaled where its class is not that of `output`."""
        if tensor.scale == output.scale:
            return tensor
        made = replace(output, name=self.name(node), shape=tensor.shape)
        factor = rescale_of(tensor.scale * reciprocal(made))
        self.steps.append(Requantize((tensor.name,), made, factor, made.low, made.high))
        return made

    def convert(self, node: fx.Node, result: IntegerTensor) -> None:
        """Requantize `result` into the forms that are read and not there yet."""
        for form in self.forms.wanted[node.name]:
            if (node.name, form) in self.tensors:
                continue
            output = self.tensor(node, form)
            factor = rescale_of(result.scale * reciprocal(output))
            ends = output.low, output.high
            step = Requantize((result.name,), output, factor, *ends, result.zero_point)
            self.steps.append(step)
            self.tensors[node.name, form] = output

    def softmax(self, node: fx.Node) -> None:
        """Probabilities in a form of their own; users read them requantized, the caller as is."""
        logits, axis = self.logits(node)
        shape, name = sample_shape(node), self.name(node)
        output = IntegerTensor(name, shape, 16, False, 2.0**-OUTPUT_BITS, 0)
        to_log2 = rescale_of(logits.scale * math.log2(math.e) * 2**FRACTION_BITS)
        self.steps.append(Softmax((logits.name,), output, axis, to_log2))
        self.tensors[node.name, PROBABILITIES] = output
        self.convert(node, output)
        if not self.forms.wanted[node.name]:
            self.tensors[node.name, WIDE] = output

    def argmax(self, node: fx.Node) -> None:
        logits, axis = self.logits(node)
        if any(user.op != "output" for user in node.users):
            raise unsupported(node, "is not the network's output")
        output = IntegerTensor(self.name(node), sample_shape(node), 32, True, 1.0, 0)
        self.steps.append(ArgMax((logits.name,), output, axis))
        self.tensors[node.name, WIDE] = output

    def logits(self, node: fx.Node) -> tuple[IntegerTensor, int]:
        """What a softmax or arg-max reads, and its axis."""
        (source,) = sources(node)
        axis = argument(node, "dim")
        if axis is None:
            raise unsupported(node, "has no dimension")
        return self.tensors[source.name, WIDE], sample_axis(node, axis, len(source.meta["shape"]))

    def tensor(self, node: fx.Node, form: Form) -> IntegerTensor:
        """A new tensor for the node's result in `form`."""
        shape, name = sample_shape(node), self.name(node)
        if node.meta["dtype"] in (torch.int64, torch.int32):  # numbers of rows
            return IntegerTensor(name, shape, 32, True, 1.0, 0)
        if form is not WIDE:
            return IntegerTensor(name, shape, form.bits, False, form.scale, form.zero_point)
        bits = 16 if self.forms.classes[node.name] in self.forms.short else self.wide_bits
        return IntegerTensor(name, shape, bits, True, self.wide_scale(node, bits), 0)

    def name(self, node: fx.Node) -> str:
        """The node's name; `NAME_as2`, … for further forms."""
        name, count = node.name, 1
        while name in self.names:
            count += 1
            name = f"{node.name}_as{count}"
        self.names.add(name)
        return name

    def wide_scale(self, node: fx.Node, bits: int) -> float:
        """HEADROOM times the largest magnitude in the node's class over the largest integer; in
        classes that tables read or write, rounded up to a power of two of their unit.

        Beside stored codes 16 bits are fine enough for the room of 32, where no table wants steps.
        """
        classes = self.forms.classes
        members = [name for name in classes if classes[name] == classes[node.name]]
        largest = max(abs(end) for name in members for end in self.ranges.get(name, (0.0,)))
        unit = self.forms.short.get(classes[node.name])
        has_room = self.forms.is_stored and unit is None
        reach = HEADROOM[32 if has_room else bits] * (largest or 1.0)
        if unit:
            return math.ldexp(unit, math.ceil(math.log2(reach / unit)) - (bits - 1))
        return reach / float((1 << (bits - 1)) - 1)

    def finish(self, result: fx.Node) -> IntegerGraph:
        """The graph; its output step comes from the range of the outputs in calibration."""
        output = self.tensors[result.name, WIDE]
        low, high = self.ranges.get(result.name, (0.0, 0.0))
        step = affine(8, min(low, 0.0), max(high, 0.0)).scale
        steps = fold_pads(self.inputs, self.steps, output)
        return IntegerGraph(tuple(self.inputs), fuse_clamps(steps, output), output, step)

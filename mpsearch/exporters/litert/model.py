"""A quantized network as a LiteRT flatbuffer: bits raised, lowered, written.

Bits that LiteRT has: activations 8, weights 4 or 8, in linear layers also 2. Others are raised.

A raised activation keeps the range that the file's quantizer has and gets 255 steps for it; at 2
and 4 bits the old codes are then exactly every 85th and 17th new one. Weights keep codes and
scales: a 3-bit code in a 4-bit place is the same number. So bits only go up, and what the network
computes changes by the rounding of activations that is no longer there.

A bias counts steps of weight scale × input scale, up to 85 times as many after raising. A channel
where that would not fit gets a larger weight scale and codes for it, as when the network was
quantized: its weights change by at most half of a bias / `_ROOM` for each step of an input.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.exporters.litert.flatbuffer import LiteRtFile
from mpsearch.exporters.litert.inner import node_of, quantizers
from mpsearch.exporters.litert.joined import JoinedOutputs, joined_tensors, read_as_codes
from mpsearch.exporters.litert.layouts import FIRST, Tensors
from mpsearch.exporters.litert.steps import quantize_float, write_step
from mpsearch.exporters.litert.weighted import Layers, StoredLayer
from mpsearch.graph.layers import EMBEDDING, Layer
from mpsearch.graph.refusals import Refusals, Refused
from mpsearch.integer.constant_steps import without_constant_steps
from mpsearch.integer.graph import (
    Convolution,
    Embedding,
    IntegerGraph,
    Linear,
    TransposedConvolution,
)
from mpsearch.integer.lowering import lower
from mpsearch.integer.samples import of_one_sample
from mpsearch.quantization.quantized import (
    QuantizedLayer,
    QuantizedNetwork,
    assemble,
    bias_codes,
    with_room_for_bias,
)
from mpsearch.quantization.quantizer import FLOAT_BITS, ActivationQuantizer
from mpsearch.tables.choice import Choice
from mpsearch.tables.stored_widths import (
    FORMATS,
    LITERT_ACTIVATIONS,
    LITERT_WEIGHTS,
    check_no_groups,
)

# The largest bias code. XNNPACK's linear layers with narrow weights count it in sixteenths of a
# step, in 32 bits: above 2^27 it comes out wrong without a word.
_ROOM, _ROOM_NARROW_LINEAR = 2.0**30, 2.0**26


@dataclass(frozen=True)
class Raised:
    """A layer whose assigned bits LiteRT does not have, and what it gets instead."""

    layer: str
    kind: str
    assigned: Choice
    stored: Choice


def raise_bits(
    quantized: QuantizedNetwork, micro: bool = False
) -> tuple[QuantizedNetwork, tuple[Raised, ...]]:
    """The network at bits that LiteRT has, or TensorFlow Lite Micro (`micro`), and the layers where
    these are not the assigned ones.

    w2a4 becomes w4a8, w5a6 w8a8. Raises InputError naming the layer for 16 bits and for float.
    """
    layers: dict[str, QuantizedLayer] = {}
    raised: list[Raised] = []
    refusals = Refusals()
    with refusals.of_layer():
        check_no_groups(quantized.assignment)
    for layer in quantized.source.layers:
        with refusals.of_layer():
            given = quantized.layers[layer.name]
            stored = _stored_choice(layer, given.choice, micro)
            narrow = layer.kind == "linear" and stored.w_bits < 8
            layers[layer.name] = _at(given, stored, _ROOM_NARROW_LINEAR if narrow else _ROOM)
            if stored != given.choice:
                raised.append(Raised(layer.name, layer.kind, given.choice, stored))
    refusals.check()
    return assemble(quantized.source, layers), tuple(raised)


def finer_activations(quantized: QuantizedNetwork) -> QuantizedNetwork:
    """`quantized` with 255 steps for every activation and nothing else changed: what is meant.

    Biases stay real numbers: a file must agree with this whatever its integers can hold.
    """
    layers = {
        name: replace(
            layer, activation=finer(layer.activation, LITERT_ACTIVATIONS), bias_codes=None
        )
        for name, layer in quantized.layers.items()
    }
    return assemble(quantized.source, layers, {**(quantized.stored or {}), **in_bytes(quantized)})


def in_bytes(quantized: QuantizedNetwork) -> dict[str, ActivationQuantizer]:
    """The quantizers of stored tensors that a file of 8-bit activations can follow: all but those
    of 16 bits, by node name."""
    stored = (quantized.stored or {}).items()
    return {
        name: finer(quantizer, LITERT_ACTIVATIONS)
        for name, quantizer in stored
        if quantizer.bits <= LITERT_ACTIVATIONS
    }


def _stored_choice(layer: Layer, assigned: Choice, micro: bool) -> Choice:
    if FLOAT_BITS in (assigned.w_bits, assigned.a_bits):
        raise InputError(
            f"layer {layer.name!r} is left in float ({assigned}); a LiteRT file of integers needs "
            "integer bits in every layer: choose 2 to 8"
        )
    if max(assigned.w_bits, assigned.a_bits) > LITERT_ACTIVATIONS:
        raise InputError(
            f"layer {layer.name!r} has {assigned}; LiteRT's integers have at most 8 bits for "
            "weights, and 16-bit activations only without a zero point: choose 2 to 8"
        )
    weight_bits = next(bits for bits in _weight_bits(layer.kind, micro) if bits >= assigned.w_bits)
    return Choice(weight_bits, LITERT_ACTIVATIONS)


def _weight_bits(kind: str, micro: bool) -> Sequence[int]:
    """The widths that LiteRT's operator of a layer has; TRANSPOSE_CONV and GATHER
    take bytes alone."""
    if kind == "linear":
        return FORMATS["tflm" if micro else "litert"].weights_linear
    only_bytes = kind == EMBEDDING or "transpose" in kind
    return LITERT_WEIGHTS[-1:] if only_bytes else LITERT_WEIGHTS


def _at(layer: QuantizedLayer, stored: Choice, room: float) -> QuantizedLayer:
    activation, weight = finer(layer.activation, stored.a_bits), layer.weight
    if layer.bias_codes is None:
        return replace(layer, choice=stored, activation=activation)
    assert weight is not None
    bias = layer.bias_codes.double() * weight.bias_steps(layer.activation.scale)
    rows, bits, step = weight.dequantize(), stored.w_bits, activation.scale
    weight = with_room_for_bias(rows, weight, bits, bias, step, room)
    return QuantizedLayer(stored, weight, bias_codes(bias, weight, activation.scale), activation)


def finer(quantizer: ActivationQuantizer, bits: int) -> ActivationQuantizer:
    """The quantizer of the same range with more steps: zero stays exact, the ends to half a step.

    scale' = scale·(2^b - 1)/(2^b' - 1), zero_point' = round(zero_point·(2^b' - 1)/(2^b - 1)):
    4 -> 8 bits multiplies the zero point by 17.
    """
    if quantizer.bits == bits:
        return quantizer
    ratio = (2**bits - 1) / (2**quantizer.bits - 1)
    scale = float(torch.tensor(quantizer.scale / ratio, dtype=torch.float32))
    return ActivationQuantizer(bits, scale, round(quantizer.zero_point * ratio))


@dataclass(frozen=True)
class LiteRtModel:
    """The file's bytes, the network as it was assigned and at the bits that the file has, and what
    was raised and stored."""

    content: bytes
    assigned: QuantizedNetwork
    network: QuantizedNetwork
    graph: IntegerGraph
    quantizers: Mapping[str, ActivationQuantizer]
    raised: tuple[Raised, ...]
    layers: tuple[StoredLayer, ...]


def build(
    quantized: QuantizedNetwork, calibration: Data, batch_size: int = 64, micro: bool = False
) -> LiteRtModel:
    """The LiteRT file of `quantized`; ranges of sums, means and outputs from `calibration`.

    Inputs and outputs are float32 with the network's own shapes and a batch of one. micro: with
    nothing that TensorFlow Lite Micro lacks, where there is another way. Raises InputError naming
    the layer with bits that LiteRT's integers lack, and the operator that has no integer form here
    or there.
    """
    network, raised = raise_bits(quantized, micro)
    network = of_one_sample(network, calibration.inputs)
    refusals = Refusals()
    for name, dtype in zip(network.source.input_names, network.source.input_dtypes, strict=True):
        if dtype not in _INPUTS:
            refusals.network(
                f"input {name!r} is {dtype}; a LiteRT file takes float32 inputs, and int64 ones "
                "as int32"
            )
    try:
        graph = without_constant_steps(lower(network, calibration, batch_size))
    except Refused as error:
        raise Refused([*refusals.found, *error.refusals], error.hint) from None
    refusals.check()
    found = quantizers(graph, network, calibration, batch_size, in_bytes(quantized))
    file = LiteRtFile(micro=micro)
    tensors = Tensors(file, quantizers=dict(found), integers=graph.tensors)
    entries = frozenset(entry.tensor.name for entry in graph.inputs)
    layers = Layers(tensors, network, entries)
    joined = joined_tensors(graph)
    outputs, twice = JoinedOutputs(tensors, graph, joined), read_as_codes(graph, joined)
    inputs = _enter(tensors, graph, network)
    nodes = {node.name: node for node in network.source.graph.graph.nodes}
    for step in graph.steps:
        name = step.output.name
        with refusals.of(nodes[node_of(name, nodes)], partial(tensors.assume, step)):
            if name in joined:
                if name in twice:
                    outputs.codes(name)
            elif isinstance(step, TransposedConvolution):
                layers.transposed(step)
            elif isinstance(step, Convolution):
                layers.convolution(step)
            elif isinstance(step, Embedding):
                layers.embedding(step)
            elif isinstance(step, Linear):
                layers.linear(step)
            else:
                write_step(tensors, step)
    refusals.check()
    content = tensors.file.content(inputs, outputs.signature(network.source.outputs))
    stored = tuple(layers.stored.values())
    return LiteRtModel(content, quantized, network, graph, found, raised, stored)


_INPUTS = {torch.float32: "FLOAT32", torch.int64: "INT32", torch.int32: "INT32"}


def _enter(tensors: Tensors, graph: IntegerGraph, network: QuantizedNetwork) -> dict[str, int]:
    """All of the network's inputs, and the int8 codes of the float ones."""
    source = network.source
    numbers: dict[str, int] = {}
    for name, shape, dtype in zip(
        source.input_names, source.input_shapes, source.input_dtypes, strict=True
    ):
        numbers[name] = tensors.file.tensor(name, (1, *shape), _INPUTS[dtype])
    for entry in graph.inputs:
        tensor = entry.tensor
        number = numbers[source.input_names[entry.index]]
        if source.input_dtypes[entry.index] != torch.float32:  # numbers of an embedding's rows
            tensors.shapes[tensor.name] = tensor.shape
            tensors.numbers[tensor.name] = {FIRST: number}
            continue
        quantize_float(tensors, tensor.name, tensor.shape, number)
    return numbers

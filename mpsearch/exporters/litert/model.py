"""A quantized network as a LiteRT flatbuffer: bits raised, lowered, written."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.exporters.litert.inner import quantizers
from mpsearch.exporters.litert.joined import JoinedOutputs, joined_tensors, read_as_codes
from mpsearch.exporters.litert.layouts import Tensors
from mpsearch.exporters.litert.raising import Raised, raise_bits
from mpsearch.exporters.litert.steps import quantize_float, write_step
from mpsearch.exporters.litert.weighted import Layers, StoredLayer
from mpsearch.integer.graph import Convolution, IntegerGraph, Linear
from mpsearch.integer.lowering import lower
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantizer import ActivationQuantizer


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


def build(quantized: QuantizedNetwork, calibration: Data, batch_size: int = 64) -> LiteRtModel:
    """The LiteRT file of `quantized`; ranges of sums, means and outputs from `calibration`.

    Inputs and outputs are float32 with the network's own shapes and a batch of one. Raises
    InputError naming the layer with bits that LiteRT's integers lack, and the operator that has no
    integer form here or there.
    """
    network, raised = raise_bits(quantized)
    graph = lower(network, calibration, batch_size)
    found = quantizers(graph, network, calibration, batch_size)
    tensors = Tensors(quantizers=dict(found))
    layers = Layers(tensors, network)
    joined = joined_tensors(graph)
    outputs, twice = JoinedOutputs(tensors, graph, joined), read_as_codes(graph, joined)
    inputs = _enter(tensors, graph, network)
    for step in graph.steps:
        if step.output.name in joined:
            if step.output.name in twice:
                outputs.codes(step.output.name)
        elif isinstance(step, Convolution):
            layers.convolution(step)
        elif isinstance(step, Linear):
            layers.linear(step)
        else:
            write_step(tensors, step)
    content = tensors.file.content(inputs, outputs.signature(network.source.outputs))
    stored = tuple(layers.stored.values())
    return LiteRtModel(content, quantized, network, graph, found, raised, stored)


def _enter(tensors: Tensors, graph: IntegerGraph, network: QuantizedNetwork) -> dict[str, int]:
    """The float inputs, all of the network's, and their int8 codes."""
    source = network.source
    numbers: dict[str, int] = {}
    for name, shape, dtype in zip(
        source.input_names, source.input_shapes, source.input_dtypes, strict=True
    ):
        if dtype != torch.float32:
            raise InputError(f"input {name!r} is {dtype}; a LiteRT file takes float32 inputs only")
        numbers[name] = tensors.file.tensor(name, (1, *shape), "FLOAT32")
    for entry in graph.inputs:
        tensor = entry.tensor
        number = numbers[source.input_names[entry.index]]
        quantize_float(tensors, tensor.name, tensor.shape, number)
    return numbers

"""QuantizedNetwork -> ONNX model in QDQ form: the fake-quantized graph, node by node.

Every layer reads QuantizeLinear -> DequantizeLinear where the fake-quantizer sits, its weights are
packed integers behind a DequantizeLinear with one scale per output channel, and its bias is int32
at scale (weight scale × input scale). Everything else is float. What onnxruntime then fuses into
integer kernels is its own decision.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from mpsearch import __version__
from mpsearch.errors import InputError
from mpsearch.exporters.onnx.graph_builder import GraphBuilder, stored_bits, unsupported
from mpsearch.exporters.onnx.layers import LayerWriter
from mpsearch.exporters.onnx.operators import write_operator
from mpsearch.graph.layers import LINEAR_OPERATORS, packet
from mpsearch.graph.outputs import output_nodes
from mpsearch.graph.partial_forward import PartialForward
from mpsearch.graph.tensors import get_tensor
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantizer import FLOAT_BITS
from mpsearch.running.plugins import onnx_package

OPSET = 21  # the first with 4-bit integers
IR_VERSION = 10  # the one that came with opset 21; older runtimes refuse newer ones
BATCH = "batch"


def onnx_model(network: QuantizedNetwork) -> Any:
    """The network as an `onnx.ModelProto` with a free batch dimension; checked by onnx itself.

    Inputs and outputs carry the network's names, shapes ["batch", …] and float32; class numbers are
    int64. An output called as an input is `NAME_out`. Raises InputError naming the operator and the
    node that has no ONNX form here, and for a network that mixes samples; MissingExtraError without
    the package onnx.
    """
    onnx, source = onnx_package(), network.source
    for name, dtype in zip(source.input_names, source.input_dtypes, strict=True):
        if dtype != torch.float32:
            raise InputError(f"the input {name!r} is {dtype}; the ONNX export takes float32 inputs")
    bits = [
        stored_bits(choice.a_bits)
        for choice in network.assignment.values()
        if choice.a_bits != FLOAT_BITS
    ]
    builder = GraphBuilder(clips=4 not in bits)
    results = _write(builder, network)
    examples = [torch.zeros(2, *sizes) for sizes in source.input_shapes]
    if not PartialForward(source.graph, examples).batch_first:
        raise InputError("the network mixes samples; the ONNX export needs one row per sample")
    kind = onnx.TensorProto
    inputs = [
        onnx.helper.make_tensor_value_info(name, kind.FLOAT, [BATCH, *sizes])
        for name, sizes in zip(source.input_names, source.input_shapes, strict=True)
    ]
    named = [
        onnx.helper.make_tensor_value_info(
            builder.leave(
                tensor,
                output.name,
                source.input_names,
                None if node.meta["shape"][1:] == output.shape else (-1, *output.shape),
            ),
            kind.INT64 if packet(node) == "argmax" else kind.FLOAT,
            [BATCH, *output.shape],
        )
        for output, (node, tensor) in zip(source.outputs, results, strict=True)
    ]
    graph = onnx.helper.make_graph(
        builder.nodes, "mpsearch", inputs, named, list(builder.constants.values())
    )
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="mpsearch",
        producer_version=__version__,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _write(builder: GraphBuilder, network: QuantizedNetwork) -> list[tuple[fx.Node, str]]:
    """Add every node that the outputs need; returns the node and the tensor of each output."""
    source = network.source
    layer_of = {node: layer for layer in source.layers for node in layer.nodes}
    quantizers = {name: network.layers[layer.name].activation for name, layer in layer_of.items()}
    layers = LayerWriter(builder, network, quantizers)
    results = output_nodes(source.graph, source.outputs)
    needed = _needed(results)
    tensors: dict[fx.Node, str] = {}
    for node in source.graph.graph.nodes:
        if node not in needed:
            continue
        if node.op == "placeholder":
            tensors[node] = str(node.target)
        if node.op != "call_function" or not _is_tensor(node):
            continue  # sizes of the batch: shapes are written as recorded, the batch as -1
        if packet(node) in LINEAR_OPERATORS:
            if node.name not in layer_of:
                raise unsupported(node, "has a weight that is computed, not stored")
            (given, *_) = node.args
            assert isinstance(given, fx.Node)
            tensors[node] = layers.write(node, layer_of[node.name], tensors[given])
            continue
        operands = _operands(node)
        for constant in (n for n in operands if n.op == "get_attr" and n not in tensors):
            values = get_tensor(source.graph, str(constant.target)).detach().cpu()
            tensors[constant] = builder.array(f"{constant.target}/value", values.float().numpy())
        read = [tensors[n] for n in operands]
        if packet(node) == "cat":
            read = layers.quantized_early(node, read)
        tensors[node] = write_operator(builder, node, read)
    return [(node, tensors[node]) for node in results]


def _needed(results: Iterable[fx.Node]) -> set[fx.Node]:
    """The nodes that the outputs come from: not what puts several of them into one tensor."""
    needed: set[fx.Node] = set()
    pending = list(results)
    while pending:
        node = pending.pop()
        if node not in needed:
            needed.add(node)
            pending += node.all_input_nodes
    return needed


def _operands(node: fx.Node) -> list[fx.Node]:
    """The tensors that the node reads, in order, one that it reads twice twice."""
    found: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), lambda n: found.append(n) if _is_tensor(n) else None)
    return found


def _is_tensor(node: fx.Node) -> bool:
    return "shape" in node.meta

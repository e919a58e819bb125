"""QuantizedNetwork -> ONNX model in QDQ form: the fake-quantized graph, node by node.

Every layer reads QuantizeLinear -> DequantizeLinear where the fake-quantizer sits, as does what is
read of a tensor that is stored between layers. A layer's weights are
packed integers behind a DequantizeLinear with one scale per output channel, and its bias is int32
at scale (weight scale × input scale). Everything else is float. What onnxruntime then fuses into
integer kernels is its own decision.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx

from mpsearch import __version__
from mpsearch.exporters.onnx.arranging import getitem
from mpsearch.exporters.onnx.call import Call, Tensor, Written
from mpsearch.exporters.onnx.decomposing import decomposed
from mpsearch.exporters.onnx.graph_builder import GraphBuilder, element_type, stored_bits
from mpsearch.exporters.onnx.layers import LayerWriter
from mpsearch.exporters.onnx.operators import WRITERS, write_operator
from mpsearch.exporters.onnx.sizes import Form, Found, Size, found_forms
from mpsearch.graph.layers import EMBEDDING, LINEAR_OPERATORS, packet
from mpsearch.graph.outputs import output_nodes
from mpsearch.graph.refusals import Refusals
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantizer import FLOAT_BITS
from mpsearch.running.plugins import onnx_package

OPSET = 21  # the first with 4-bit integers
IR_VERSION = 10  # the one that came with opset 21; older runtimes refuse newer ones
BATCH = "batch"


def onnx_model(network: QuantizedNetwork, writer: type[LayerWriter] = LayerWriter) -> Any:
    """The network as an `onnx.ModelProto` with a free batch dimension; checked by onnx itself.

    `writer` says in which nodes layers quantize. Inputs and outputs carry the network's names,
    types and shapes ["batch", …]; class numbers are int64. An output called as an input is
    `NAME_out`. Raises InputError with every operator and node that has no ONNX form here;
    MissingExtraError without the package onnx.
    """
    onnx, source = onnx_package(), network.source
    bits = [
        stored_bits(choice.a_bits)
        for choice in network.assignment.values()
        if choice.a_bits != FLOAT_BITS
    ]
    builder = GraphBuilder(source.input_names[0], clips=4 not in bits)
    results = _write(builder, network, writer)
    inputs = [
        onnx.helper.make_tensor_value_info(name, element_type(dtype), [BATCH, *sizes])
        for name, dtype, sizes in zip(
            source.input_names, source.input_dtypes, source.input_shapes, strict=True
        )
    ]
    named = [
        onnx.helper.make_tensor_value_info(
            builder.leave(
                tensor.name,
                output.name,
                source.input_names,
                None if _of_sample(tensor) == output.shape else (-1, *output.shape),
            ),
            element_type(tensor.dtype),
            [BATCH, *output.shape],
        )
        for output, tensor in zip(source.outputs, results, strict=True)
    ]
    graph = onnx.helper.make_graph(
        builder.nodes, "mpsearch", inputs, named, list(builder.constants.values())
    )
    model = onnx.helper.make_model(
        graph,
        opset_imports=[
            onnx.helper.make_opsetid("", OPSET),
            *(onnx.helper.make_opsetid(domain, 1) for domain in writer.domains),
        ],
        ir_version=IR_VERSION,
        producer_name="mpsearch",
        producer_version=__version__,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _of_sample(tensor: Tensor) -> tuple[int, ...] | None:
    """The sizes behind the batch; None where they are not those of a sample."""
    first, *others = tensor.sizes or (Size(0),)
    if first != Size(0, 1) or not all(size.is_fixed for size in others):
        return None
    return tuple(size.fixed for size in others)


def _write(
    builder: GraphBuilder, network: QuantizedNetwork, writer: type[LayerWriter]
) -> list[Tensor]:
    """Add every node that the outputs need; returns the tensor of each output."""
    source = network.source
    layer_of = {node: layer for layer in source.layers for node in layer.nodes}
    quantizers = {name: network.layers[layer.name].activation for name, layer in layer_of.items()}
    layers = writer(builder, network, quantizers)
    examples = [
        torch.zeros(1, *sizes, dtype=dtype)
        for sizes, dtype in zip(source.input_shapes, source.input_dtypes, strict=True)
    ]
    module, origins = decomposed(source.graph, examples, {*WRITERS, *LINEAR_OPERATORS, EMBEDDING})
    results = output_nodes(module, source.outputs)
    needed = _needed(results)
    found = found_forms(module, examples)
    last = {origins.get(node.name, node).name: node for node in module.graph.nodes}
    stored = {last[name]: q for name, q in (network.stored or {}).items() if name in last}
    written: dict[fx.Node, Written] = {}
    refusals = Refusals()
    for node in module.graph.nodes:
        form = found.get(node)
        if node.op == "placeholder" and isinstance(form, Form):
            written[node] = layers.stored(node, Tensor(str(node.target), form), stored.get(node))
        if (
            node not in needed
            or node.op != "call_function"
            or form is None
            or isinstance(form, Size)
        ):
            continue  # sizes are written where they are read
        call = Call(builder, node, module, found, written)
        with refusals.of(origins.get(node.name, node)):
            if node.name in layer_of:
                assert isinstance(form, Form)
                written[node] = Tensor(layers.write(call, layer_of[node.name]), form)
            elif packet(node) == "getitem":
                (several, *_) = node.args
                assert isinstance(several, fx.Node)
                written[node] = getitem(written.get(several), call)
            else:
                if packet(node) == "cat":
                    call = Call(builder, node, module, found, _early(layers, node, written))
                written[node] = write_operator(call)
            written[node] = layers.stored(node, written[node], stored.get(node))
        if node not in written:
            written[node] = _stand_in(node, form)
    refusals.check()
    made = [written[node] for node in results]
    return [tensor for tensor in made if isinstance(tensor, Tensor)]


def _early(
    layers: LayerWriter, node: fx.Node, written: Mapping[fx.Node, Written]
) -> Mapping[fx.Node, Written]:
    """What a concatenation reads, quantized where its readers want that."""
    given = [n for n in node.all_input_nodes if isinstance(written.get(n), Tensor)]
    tensors = [tensor for n in given if isinstance(tensor := written[n], Tensor)]
    names = layers.quantized_early(node, [tensor.name for tensor in tensors])
    return {
        **written,
        **{
            n: Tensor(name, tensor.form)
            for n, tensor, name in zip(given, tensors, names, strict=True)
        },
    }


def _stand_in(node: fx.Node, form: Found) -> Written:
    """For the node after it, so that all that is refused is said at once."""
    if isinstance(form, Form):
        return Tensor(node.name, form)
    assert isinstance(form, tuple)
    return tuple(Tensor(node.name, part) if isinstance(part, Form) else None for part in form)


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

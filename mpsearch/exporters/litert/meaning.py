"""What a LiteRT file means, in floating point: fake-quantizers wherever the file has 8 bits.

Only the places that no layer quantizes are added to the quantized network's own graph: sums,
means, softmax, outputs. LiteRT must agree with it up to rounding; the quantized network itself,
without them, is what the bits were chosen for.
"""

from collections.abc import Callable, Mapping

import torch
from torch import fx

from mpsearch.exporters.litert.inner import node_of
from mpsearch.exporters.litert.joined import joined_tensors
from mpsearch.graph.network import copy_graph
from mpsearch.graph.operators import packet
from mpsearch.integer.graph import IntegerGraph
from mpsearch.integer.operators import LAYERS, MOVES
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantizer import ActivationQuantizer


def meaning(
    quantized: QuantizedNetwork,
    graph: IntegerGraph,
    quantizers: Mapping[str, ActivationQuantizer],
) -> Callable[..., torch.Tensor]:
    """The quantized network with the file's further quantizers; inputs [N, …] as the network's."""
    tensors = graph.tensors
    copy = copy_graph(quantized.graph)
    nodes = {node.name for node in copy.graph.nodes}
    joined = {node_of(name, nodes) for name in joined_tensors(graph)}
    added = {
        node_of(name, nodes): quantizer
        for name, quantizer in quantizers.items()
        if tensors[name].signed or tensors[name].bits > 8
    }
    for node in list(copy.graph.nodes):
        if node.name in added:
            _quantize_output(copy, node, added[node.name], joined)
    copy.recompile()

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        result = copy(*inputs)
        assert isinstance(result, torch.Tensor)
        return result

    return run


def _quantize_output(
    graph: fx.GraphModule, node: fx.Node, quantizer: ActivationQuantizer, joined: set[str]
) -> None:
    users = list(node.users)
    if node.name in joined:  # what joins outputs reads floats
        users = [user for user in users if user.op != "output" and user.name not in joined]
    if node.op == "placeholder":  # layers read the float input through their own quantizer
        users = [user for user in users if packet(user) not in LAYERS | MOVES | {_FAKE}]
    with graph.graph.inserting_after(node):
        fake = graph.graph.call_function(
            torch.ops.aten.fake_quantize_per_tensor_affine.default,
            (node, quantizer.scale, quantizer.zero_point, 0, 2**quantizer.bits - 1),
        )
    for user in users:
        user.replace_input_with(node, fake)


_FAKE = "fake_quantize_per_tensor_affine"

"""Where the Hessian block of a layer equals its Gauss-Newton block.

The loss is ℓ(f(W)) with ℓ convex in the outputs f. The Hessian block is JᵀH_outJ + Σ_c ∂ℓ/∂f_c
∇²f_c; the second term vanishes when every output is piecewise linear in the layer's weights, that
is when the weight is used once and only piecewise linear operators lie between it and the output.
"""

from torch import fx

from mpsearch.graph.layers import Layer
from mpsearch.graph.operators import LINEAR_OPERATORS, packet

_ANY_ARGUMENT = frozenset(
    """
    _unsafe_view abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d add amax amin avg_pool1d avg_pool2d avg_pool3d
    cat channel_shuffle chunk clamp clamp_max clamp_min clone constant_pad_nd contiguous
    expand flatten flip getitem hardsigmoid hardtanh index_select leaky_relu max max_pool1d
    max_pool2d max_pool3d maximum mean min minimum movedim narrow neg pad permute
    pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d relu relu6 repeat
    replication_pad1d replication_pad2d reshape roll rsub select slice split
    split_with_sizes squeeze stack sub sum swapaxes sym_size t threshold transpose unbind
    unflatten unsqueeze upsample_bilinear2d upsample_nearest1d upsample_nearest2d view
    """.split()
)
# Linear in their first argument, as long as the others do not depend on the layer.
_FIRST_ARGUMENT = frozenset(LINEAR_OPERATORS) | frozenset(
    """
    _native_batch_norm_legit_no_training batch_norm bmm div masked_fill matmul mm mul prelu
    """.split()
)


def piecewise_linear(graph: fx.GraphModule, layer: Layer) -> bool:
    """True when the outputs of `graph` are piecewise linear in the layer's weights."""
    if len(layer.nodes) != 1:
        return False
    dependent: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node.name == layer.nodes[0]:
            dependent.add(node)
        elif node.op == "output":
            continue
        elif any(source in dependent for source in node.all_input_nodes):
            if not _keeps_linearity(node, dependent):
                return False
            dependent.add(node)
    return True


def _keeps_linearity(node: fx.Node, dependent: set[fx.Node]) -> bool:
    name = packet(node)
    if name in _ANY_ARGUMENT:
        return True
    if name not in _FIRST_ARGUMENT:
        return False
    varying = [source for source in node.all_input_nodes if source in dependent]
    if name in ("mul", "matmul", "mm", "bmm") and len(varying) == 1:
        return node.args[0] is not node.args[1]  # bilinear: linear in either one, but not squared
    return varying == [node.args[0]]

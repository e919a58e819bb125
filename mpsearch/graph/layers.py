"""The layers that the search decides about: convolutions, linear layers and embedding tables."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import fx

from mpsearch.graph.operators import (
    CONVOLUTIONS,
    EMBEDDING,
    LINEAR_OPERATORS,
    groups,
    is_transposed,
    packet,
    weight_position,
)
from mpsearch.graph.tensors import get_tensor

# Operators between a layer and an addition that keep the tensor's meaning channel by channel.
_PASSING = {
    "relu", "relu6", "hardtanh", "clamp", "leaky_relu", "elu", "gelu", "silu", "hardswish", "tanh",
    "sigmoid", "batch_norm", "dropout", "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d",
    "pad", "constant_pad_nd", "slice", "clone", "contiguous", "getitem",
    "_native_batch_norm_legit_no_training",
}  # fmt: skip
# Operators that move numbers and change none.
MOVING = frozenset(
    """
    _unsafe_view alias broadcast_tensors cat channel_shuffle chunk clone constant_pad_nd contiguous
    copy detach expand expand_as flatten flip gather getitem index index_select lift_fresh_copy
    meshgrid movedim narrow pad permute pixel_shuffle pixel_unshuffle repeat repeat_interleave
    reshape roll select slice split split_with_sizes squeeze stack swapaxes t transpose unbind
    unflatten unsqueeze upsample_nearest1d upsample_nearest2d view view_as
    """.split()
)


@dataclass(frozen=True)
class Layer:
    """One weight and the places where it is used.

    `name` is the qualified module name (`image.conv1`), `kind` the operator (`conv2d`,
    `depthwise_conv2d`, `conv_transpose2d`, `linear`, `embedding`; an embedding table that is also
    the weight of a linear layer is `linear`), `weights` the number of weight elements, `channels`
    the output channels (rows of an embedding table), `macs` the multiply-accumulates of one sample
    over all `nodes` (graph nodes by name), `bias_name` is empty for a layer without bias.
    """

    name: str
    kind: str
    weight_name: str
    bias_name: str
    weights: int
    channels: int
    macs: int
    nodes: tuple[str, ...]


def find_layers(graph: fx.GraphModule) -> tuple[Layer, ...]:
    """Every convolution, linear layer and embedding with a weight of its own, by first use.

    Shapes must have been recorded. MACs = elements of one output sample × weights that meet in one
    output element; for a transposed convolution, elements of one input sample × weights per input
    element (Dumoulin & Visin, arXiv 1603.07285); 0 for an embedding, which multiplies nothing.
    """
    uses: dict[str, list[fx.Node]] = {}
    for node in graph.graph.nodes:
        weight = _weight_node(node)
        if weight is not None:
            uses.setdefault(str(weight.target), []).append(node)
    return tuple(_layer(graph, weight_name, nodes) for weight_name, nodes in uses.items())


def _weight_node(node: fx.Node) -> fx.Node | None:
    if packet(node) not in {*LINEAR_OPERATORS, EMBEDDING} or len(node.args) < 2:
        return None
    weight = node.args[weight_position(node)]
    return weight if isinstance(weight, fx.Node) and weight.op == "get_attr" else None


def _layer(graph: fx.GraphModule, weight_name: str, nodes: list[fx.Node]) -> Layer:
    weight = get_tensor(graph, weight_name)
    biases = {
        str(node.args[2].target)
        for node in nodes
        if len(node.args) > 2 and isinstance(node.args[2], fx.Node)
    }
    first = next((node for node in nodes if packet(node) != EMBEDDING), nodes[0])
    channels = weight.shape[1] * groups(first) if is_transposed(first) else weight.shape[0]
    return Layer(
        name=weight_name.removesuffix(".weight"),
        kind=_kind(first, weight.shape),
        weight_name=weight_name,
        bias_name=min(biases, default=""),
        weights=weight.numel(),
        channels=channels,
        macs=sum(layer_macs(node, weight.shape) for node in nodes),
        nodes=tuple(node.name for node in nodes),
    )


def _kind(node: fx.Node, shape: tuple[int, ...]) -> str:
    operator = packet(node)
    if operator == "convolution":
        operator = f"conv{'_transpose' if is_transposed(node) else ''}{len(shape) - 2}d"
    if operator in CONVOLUTIONS and groups(node) > 1 and shape[1] == 1:
        return f"depthwise_{operator}"
    return operator


def layer_macs(node: fx.Node, shape: tuple[int, ...]) -> int:
    """MACs of one sample at `node`, whose weight has `shape`; see `find_layers`."""
    if packet(node) == EMBEDDING:
        return 0
    source = node.args[0]
    assert isinstance(source, fx.Node)
    elements: tuple[int, ...] = (source if is_transposed(node) else node).meta["shape"]
    return math.prod(elements) * math.prod(shape[1:])


def residual_groups(graph: fx.GraphModule, layers: tuple[Layer, ...]) -> Mapping[str, str]:
    """Layer name -> group, for layers whose outputs meet in one addition.

    Additions that share a layer form one group, named after the first of them (`add`, `add_2`).
    HAWQ-V3 ties such layers, so that the branches of an integer addition have one bit width.
    """
    by_node = {node: layer.name for layer in layers for node in layer.nodes}
    order = [node.name for node in graph.graph.nodes]
    group_of: dict[str, str] = {}
    for node in graph.graph.nodes:
        if packet(node) not in ("add", "add_"):
            continue
        meeting = {name for source in _sources(node) for name in _layers_behind(source, by_node)}
        if len(meeting) < 2:
            continue
        old = {group_of[name] for name in meeting if name in group_of}
        target = min(old, key=order.index) if old else node.name
        group_of.update({name: target for name, group in group_of.items() if group in old})
        group_of.update(dict.fromkeys(meeting, target))
    return group_of


def _sources(node: fx.Node) -> Iterator[fx.Node]:
    yield from (arg for arg in node.args[:2] if isinstance(arg, fx.Node))


def _layers_behind(node: fx.Node, by_node: Mapping[str, str]) -> Iterator[str]:
    """The layer whose output arrives here through operators that pass it on, if there is one."""
    while node.name not in by_node and packet(node) in _PASSING:
        source = node.args[0]
        if not isinstance(source, fx.Node):
            return
        node = source
    if node.name in by_node:
        yield by_node[node.name]

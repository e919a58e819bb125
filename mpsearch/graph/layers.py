"""The layers that the search decides about: convolutions, linear layers and embedding tables.

What the rest of mpsearch knows about single aten operators.

Input patches of a convolution of any dimension, stride, padding and dilation (im2col).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx
from torch.nn import functional

from mpsearch.graph.tensors import get_tensor

CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
TRANSPOSED = {"conv_transpose1d": 1, "conv_transpose2d": 2, "conv_transpose3d": 3}
LINEAR_OPERATORS = {*CONVOLUTIONS, *TRANSPOSED, "linear", "convolution"}
EMBEDDING = "embedding"  # reads whole rows of its weight: no arithmetic, no input to quantize


def packet(node: fx.Node) -> str:
    """The operator's name without namespace and overload: `conv2d`; empty for other nodes."""
    if node.op != "call_function":
        return ""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.partition("::")[2]
    return str(getattr(node.target, "__name__", ""))


def argument(node: fx.Node, name: str) -> object:
    """The value of the operator's argument `name` as called, or its default."""
    assert isinstance(node.target, torch._ops.OpOverload)
    for index, parameter in enumerate(node.target._schema.arguments):
        if parameter.name == name:
            if name in node.kwargs:
                return node.kwargs[name]
            return node.args[index] if index < len(node.args) else parameter.default_value
    raise KeyError(name)


def weight_position(layer: fx.Node) -> int:
    """Where the weight stands among the arguments: first in `embedding(weight, indices)`."""
    return 0 if packet(layer) == EMBEDDING else 1


def layer_input(layer: fx.Node) -> fx.Node:
    """The node whose values meet the weight: activations, or the indices of an embedding."""
    source = layer.args[1 - weight_position(layer)]
    assert isinstance(source, fx.Node)
    return source


def is_transposed(layer: fx.Node) -> bool:
    """True when the weight's first dimension is the input channels."""
    if packet(layer) == "convolution":
        return bool(argument(layer, "transposed"))
    return packet(layer) in TRANSPOSED


def groups(layer: fx.Node) -> int:
    """Number of convolution groups; 1 for linear layers and embeddings."""
    if packet(layer) in ("linear", EMBEDDING):
        return 1
    count = argument(layer, "groups")
    assert isinstance(count, int)
    return count


def output_channels_last(layer: fx.Node) -> bool:
    """True for a linear layer over more than one position, whose channels are not dimension 1."""
    shape = layer.meta.get("shape")
    return packet(layer) == "linear" and shape is not None and len(shape) > 2


def output_channels_view(
    layer: fx.Node, weight: torch.Tensor
) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """(weight as [output channels, rest], function that undoes it).

    A transposed convolution stores [in, out/groups, …]; its output channel g·(out/groups) + j takes
    the inputs of group g: weight [6, 4, 3, 3] with 2 groups -> [8, 27].
    """
    if not is_transposed(layer):
        shape = weight.shape
        return weight.reshape(shape[0], -1), lambda rows: rows.reshape(shape)
    count = groups(layer)
    inputs, outputs, *kernel = weight.shape
    split = (count, inputs // count, outputs, *kernel)
    rows = weight.reshape(split).transpose(1, 2).reshape(count * outputs, -1)

    def restore(rows: torch.Tensor) -> torch.Tensor:
        swapped = rows.reshape(count, outputs, inputs // count, *kernel)
        return swapped.transpose(1, 2).reshape(weight.shape)

    return rows, restore


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
    """One weight and the places where it is used."""

    name: str
    """The qualified module name, `image.conv1`."""
    kind: str
    """The operator: `conv2d`, `depthwise_conv2d`, `conv_transpose2d`, `linear`, `embedding`; an
    embedding table that is also the weight of a linear layer is `linear`."""
    weight_name: str
    """The weight's name in the graph."""
    bias_name: str
    """The bias's name in the graph; empty for a layer without bias."""
    weights: int
    """How many elements the weight has."""
    channels: int
    """Output channels; of an embedding table the rows."""
    macs: int
    """Multiply-accumulates of one sample, over all places where it is used."""
    nodes: tuple[str, ...]
    """These places, graph nodes by name."""


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


def unfold(
    node: fx.Node, source: torch.Tensor, weight: torch.Tensor, output_size: Sequence[int]
) -> torch.Tensor:
    """Patches [n, channels, kernel elements, positions] that the convolution `node` multiplies.

    `source` [n, channels, *size] and `output_size` are those of the convolution; for a transposed
    one pass the gradient at its output as source and the size of its input.
    """
    kernel = weight.shape[2:]
    dims = len(kernel)
    stride = _per_dimension(argument(node, "stride"), dims)
    dilation = _per_dimension(argument(node, "dilation"), dims)
    padding = _padding(node, kernel, dilation, dims)
    padded = functional.pad(source, padding) if any(padding) else source
    # A last stride may need elements that the convolution does not have to touch: make room.
    missing = [
        max(0, (out - 1) * s + (k - 1) * d + 1 - size)
        for out, s, k, d, size in zip(
            output_size, stride, kernel, dilation, padded.shape[2:], strict=True
        )
    ]
    if any(missing):
        padded = functional.pad(padded, [end for m in reversed(missing) for end in (0, m)])
    n, channels = padded.shape[:2]
    steps = padded.stride()
    view = padded.as_strided(
        (n, channels, *kernel, *output_size),
        (
            *steps[:2],
            *(step * d for step, d in zip(steps[2:], dilation, strict=True)),
            *(step * s for step, s in zip(steps[2:], stride, strict=True)),
        ),
    )
    return view.reshape(n, channels, math.prod(kernel), math.prod(output_size))


def _per_dimension(value: object, dims: int) -> list[int]:
    values = value if isinstance(value, list | tuple) else [value]
    whole = [int(str(v)) for v in values]
    return whole * dims if len(whole) == 1 else whole


def _padding(node: fx.Node, kernel: Sequence[int], dilation: Sequence[int], dims: int) -> list[int]:
    """Padding in the order of torch's `pad`: last dimension first, (before, after)."""
    padding = argument(node, "padding")
    if padding == "valid":
        return [0] * (2 * dims)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [end for t in reversed(totals) for end in (t // 2, t - t // 2)]
    return [end for p in reversed(_per_dimension(padding, dims)) for end in (p, p)]

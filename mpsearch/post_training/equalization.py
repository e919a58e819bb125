"""Cross-layer equalisation: move scale from a layer's channels into the next layer, exactly.

Nagel, van Baalen, Blankevoort, Welling: "Data-Free Quantization Through Weight Equalization and
Bias Correction", ICCV 2019, section 4.1. ReLU and pooling are positively homogeneous, f(s·x) =
s·f(x) for s > 0, so W1' = W1/s, b1' = b1/s and W2' = W2·s per channel give the same outputs. With
s_i = sqrt(r1_i·r2_i)/r2_i both layers have the range sqrt(r1_i·r2_i) in channel i; a common factor
of all channels changes nothing and is left out.

The ranges of weights say nothing about a bias, which may be all that a channel gives (a batch norm
whose scale training has driven to zero). So no channel is scaled up beyond the largest of them: the
range of what the second layer reads never grows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx

from mpsearch.data import Data
from mpsearch.graph.layers import (
    LINEAR_OPERATORS,
    groups,
    is_transposed,
    output_channels_last,
    output_channels_view,
    packet,
)
from mpsearch.graph.network import Network, copy_graph
from mpsearch.graph.tensors import get_tensor, set_tensor
from mpsearch.quantization.calibration import show_inputs

# f(s·x) = s·f(x) channel by channel, for s > 0. ReLU6 and clamp are not among them.
_ELEMENTWISE = {"relu", "leaky_relu", "clone", "contiguous"}
_POOLS = {"max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool"}
_RESHAPES = {"flatten", "view", "reshape", "_unsafe_view", "mean"}
_SWEEPS, _SETTLED = 40, 1e-3
_LARGEST_SCALE = 100.0
_CONSTANT = 0.01  # a channel that varies less, relative to its largest value, is a bias alone
_TINY = 1e-300


@dataclass(frozen=True)
class Pair:
    """Two layers, by graph node, of which the first feeds only the second.

    `elements` inputs of a linear second layer belong to each channel of the first: 1, or more
    behind a flatten.
    """

    first: fx.Node
    second: fx.Node
    elements: int


def equalize(
    network: Network, data: Data, pairs: Sequence[Pair] | None = None, batch_size: int = 64
) -> Network:
    """The same function with the weight ranges of joined layers made equal, channel by channel.

    `data`: the calibration sample, on which the channels' outputs are seen. `pairs`: which of
    `find_pairs(network)`, all by default. `network` itself is not changed. Layers that are used
    twice, share a tensor, or are joined by anything but ReLU, leaky ReLU, pooling and flattening
    stay as they are.
    """
    pairs = find_pairs(network.graph) if pairs is None else pairs
    seen = _channels_seen(network, pairs, data, batch_size) if pairs else {}
    graph = copy_graph(network.graph)
    scales = {pair: torch.ones(1, dtype=torch.float64, device=network.device) for pair in pairs}
    for _ in range(_SWEEPS):
        before = dict(scales)
        for pair in scales:
            scales[pair] = _equalize_pair(graph, pair, scales[pair], seen[pair])
        if all(bool(((s / before[p]).log().abs() < _SETTLED).all()) for p, s in scales.items()):
            break
    return replace(network, graph=graph)


@dataclass(frozen=True)
class _Channels:
    """What the second layer of a pair reads of each channel of the first: `share` its largest
    value over that of all, `alive` whether it is more than a constant."""

    share: torch.Tensor
    alive: torch.Tensor


def _channels_seen(
    network: Network, pairs: Sequence[Pair], data: Data, batch_size: int
) -> dict[Pair, _Channels]:
    of_layer = {node: layer.name for layer in network.layers for node in layer.nodes}
    pair_of = {of_layer[pair.second.name]: pair for pair in pairs}
    ends: dict[Pair, tuple[torch.Tensor, torch.Tensor]] = {}

    def widen(name: str, value: torch.Tensor) -> None:
        if name in pair_of:
            pair = pair_of[name]
            channels = int(pair.first.meta["shape"][1])
            values = value.double().reshape(len(value), channels, -1)
            low, high = values.amin((0, 2)), values.amax((0, 2))
            before = ends.get(pair, (low, high))
            ends[pair] = torch.minimum(before[0], low), torch.maximum(before[1], high)

    show_inputs(network, data, batch_size, widen)
    seen = {}
    for pair, (low, high) in ends.items():
        peak = torch.maximum(low.abs(), high.abs())
        alive = high - low > _CONSTANT * peak
        seen[pair] = _Channels(peak / peak.max().clamp(min=_TINY), alive)
    return seen


def find_pairs(graph: fx.GraphModule) -> list[Pair]:
    """The pairs that can be equalised, in graph order."""
    uses: dict[str, int] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            uses[str(node.target)] = uses.get(str(node.target), 0) + len(node.users)
    pairs = []
    for node in graph.graph.nodes:
        if not _owns_tensors(node, uses) or output_channels_last(node):
            continue
        second = _next_layer(node)
        if second is None or not _owns_tensors(second, uses):
            continue
        elements = _elements(node, second)
        if elements:
            pairs.append(Pair(node, second, elements))
    return pairs


def _owns_tensors(node: fx.Node, uses: dict[str, int]) -> bool:
    """A layer whose weight and bias nobody else reads."""
    if packet(node) not in LINEAR_OPERATORS:
        return False
    tensors = [arg for arg in node.args[1:3] if isinstance(arg, fx.Node)]
    return len(tensors) > 0 and all(
        tensor.op == "get_attr" and uses[str(tensor.target)] == 1 for tensor in tensors
    )


def _next_layer(node: fx.Node) -> fx.Node | None:
    """The layer that `node` feeds through homogeneous operators alone, nobody else listening."""
    while len(node.users) == 1:
        (user,) = node.users
        if user.args[0] is not node:
            return None
        if packet(user) in LINEAR_OPERATORS:
            return user
        if not (_is_homogeneous(node, user) or _keeps_channels(node, user)):
            return None
        node = user
    return None


def _is_homogeneous(source: fx.Node, node: fx.Node) -> bool:
    name = packet(node)
    if name in _ELEMENTWISE:
        return True
    # Without a batch dimension, pooling would take the channels for one of its own dimensions.
    return name[:-2] in _POOLS and len(source.meta["shape"]) == int(name[-2]) + 2


def _keeps_channels(source: fx.Node, node: fx.Node) -> bool:
    """A reshape of [N, C, …] to [N, C·…], or a mean over the positions."""
    if packet(node) not in _RESHAPES:
        return False
    before, after = source.meta["shape"], node.meta["shape"]
    if packet(node) == "mean":
        return after[:2] == before[:2] and 1 not in _dimensions(node, len(before))
    return len(after) == 2 and after[0] == before[0] and len(before) > 1


def _dimensions(node: fx.Node, rank: int) -> list[int]:
    listed = node.args[1] if len(node.args) > 1 else None
    if isinstance(listed, int):
        listed = [listed]
    return [d % rank for d in listed] if isinstance(listed, list | tuple) else list(range(rank))


def _elements(first: fx.Node, second: fx.Node) -> int:
    """Inputs of `second` per output channel of `first`; 0 where they do not correspond."""
    channels = int(first.meta["shape"][1])
    source = second.args[0]
    assert isinstance(source, fx.Node)
    shape = source.meta["shape"]
    if packet(second) != "linear":
        return 1 if len(shape) > 2 and shape[1] == channels else 0
    if len(shape) != 2 or shape[1] % channels:
        return 0
    return int(shape[1]) // channels


def _equalize_pair(
    graph: fx.GraphModule, pair: Pair, so_far: torch.Tensor, seen: _Channels
) -> torch.Tensor:
    """Rescale both layers; all that channels were divided by up to now, this time included."""
    name1, name2 = (str(_weight(node).target) for node in (pair.first, pair.second))
    weight1, weight2 = get_tensor(graph, name1), get_tensor(graph, name2)
    rows, restore = output_channels_view(pair.first, weight1.double())
    columns, put_back = _input_channels_view(pair, weight2.double())
    range1, range2 = rows.abs().amax(1), columns.abs().amax(1)
    alive = (range1 > 0) & (range2 > 0)
    wanted = torch.where(alive, torch.sqrt(range1 / range2.clamp(min=_TINY)), 1.0)
    total = so_far * wanted
    usual = total[seen.alive] if bool(seen.alive.any()) else total
    total = (total / usual.median()).clamp(1 / _LARGEST_SCALE, _LARGEST_SCALE)
    total = torch.maximum(total, seen.share)
    scale = total / so_far
    _store(graph, name1, restore(rows / scale[:, None]), weight1)
    _store(graph, name2, put_back(columns * scale[:, None]), weight2)
    bias = pair.first.args[2] if len(pair.first.args) > 2 else None
    if isinstance(bias, fx.Node):
        old = get_tensor(graph, str(bias.target))
        set_tensor(graph, str(bias.target), (old.double() / scale).to(old.dtype))
    return total


def _store(graph: fx.GraphModule, name: str, weight: torch.Tensor, old: torch.Tensor) -> None:
    """In plain strides: a file restores no others, and they decide how a kernel adds up."""
    plain = torch.empty(old.shape, dtype=old.dtype, device=old.device)
    set_tensor(graph, name, plain.copy_(weight))


def _input_channels_view(
    pair: Pair, weight: torch.Tensor
) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """(weight of the second layer as [channels of the first, rest], function that undoes it)."""
    shape = weight.shape
    if is_transposed(pair.second):
        return weight.reshape(shape[0], -1), lambda columns: columns.reshape(shape)
    count = groups(pair.second)  # 1 for a linear layer, whose inputs come in runs of `elements`
    split = (count, shape[0] // count, shape[1] // pair.elements, -1)
    parts = weight.reshape(split).transpose(1, 2)
    view = parts.reshape(parts.shape[0] * parts.shape[1], -1)
    return view, lambda columns: columns.reshape(parts.shape).transpose(1, 2).reshape(shape)


def _weight(node: fx.Node) -> fx.Node:
    weight = node.args[1]
    assert isinstance(weight, fx.Node)
    return weight

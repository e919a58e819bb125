"""What a network computes or stores outside its layers: it stays in float, and is listed.

MACs follow the convention of the layers: elements of one output sample × products per element.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import fx

from mpsearch.graph.layers import LINEAR_OPERATORS, MOVING, layer_macs, packet
from mpsearch.graph.network import Network
from mpsearch.graph.tensors import floats_in, tensor_nodes
from mpsearch.quantization.quantizer import FLOAT_BITS

_PRODUCTS = {"matmul", "mm", "bmm", "mv", "dot", "addmm", "baddbmm"}
_ATTENTION = "scaled_dot_product_attention"
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
# Tensors of these belong to the module; of others (a position that is added) they are named alone.
_NORMS = {
    "layer_norm", "native_layer_norm", "group_norm", "native_group_norm", "instance_norm",
    "rms_norm", "batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm", "prelu",
}  # fmt: skip
# What integers do as they are: moving, comparing, ReLU, pooling, adding. Not worth a line.
_PLAIN = MOVING | set(
    """
    relu relu6 hardtanh clamp clamp_min clamp_max threshold add max_pool1d max_pool2d max_pool3d
    adaptive_max_pool1d adaptive_max_pool2d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d mean sum amax amin max min maximum minimum argmax argmin
    arange full full_like ones ones_like zeros zeros_like new_full new_ones new_zeros scalar_tensor
    fill masked_fill where tril triu eq ne lt le gt ge logical_and logical_or logical_not
    bitwise_and bitwise_or bitwise_not to _to_copy type_as sym_size sym_numel any embedding dropout
    """.split()
)
_SCALING = {"mul", "div", "sub", "rsub", "neg"}  # by a number: a change of scale
_W8A8 = 8 * 8


@dataclass(frozen=True)
class FloatOperator:
    """One operator, or one tensor, by qualified name: `enc.norm1`, `layer_norm`, 64 B, 0 MACs.

    `bytes` are those of its tensors, 4 per element.
    """

    name: str
    operator: str
    bytes: int
    macs: int


@dataclass(frozen=True)
class FloatPart:
    """`operators` with bytes or MACs, in graph order; how often the `others` occur, by operator.

    `share_of_bytes` is of the whole network in FP32; `share_of_bops` of the network's BOPS with
    every layer at w8a8 and these operators at 32 x 32 bits.
    """

    operators: tuple[FloatOperator, ...]
    others: Mapping[str, int]
    network_bytes: int
    layer_macs: int

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.operators)

    @property
    def macs(self) -> int:
        return sum(each.macs for each in self.operators)

    def share_of_bytes(self, count: int) -> float:
        """Of `count` bytes."""
        return count / self.network_bytes if self.network_bytes else 0.0

    def share_of_bops(self, macs: int) -> float:
        """Of `macs` multiply-accumulates in float."""
        whole = self.layer_macs * _W8A8 + self.macs * FLOAT_BITS**2
        return macs * FLOAT_BITS**2 / whole if whole else 0.0

    def to_json(self) -> dict[str, Any]:
        """The entry `float_operators` of profile.json."""
        return {
            "bytes": self.bytes,
            "macs": self.macs,
            "share_of_fp32_bytes": self.share_of_bytes(self.bytes),
            "share_of_w8a8_bops": self.share_of_bops(self.macs),
            "operators": [asdict(each) for each in self.operators],
            "others": dict(self.others),
        }


def float_part(network: Network) -> FloatPart:
    """Everything outside the layers that holds numbers or multiplies, and a count of the rest.

    The bytes add up to `float_bytes_outside_layers`, the MACs with the layers' to those of the
    network (normalisation, softmax and other work per element counts no MACs).
    """
    in_layers = {node for layer in network.layers for node in layer.nodes}
    stored = {name for each in network.layers for name in (each.weight_name, each.bias_name)}
    found: dict[str, FloatOperator] = {}
    order = {node: place for place, node in enumerate(network.graph.graph.nodes)}
    places: dict[str, int] = {}
    for node in network.graph.graph.nodes:
        if node.name in in_layers or not isinstance(node.target, torch._ops.OpOverload):
            continue
        macs = operator_macs(node)
        if macs:
            name = str(node.meta.get("module") or node.name)
            found[node.name] = FloatOperator(name, packet(node), 0, macs)
            places[node.name] = order[node]
    listed = set(found)
    for name, tensor, user in _tensors(network, stored):
        listed.add(user.name)
        operator = packet(user) or user.op
        own = user.name in found or operator in _NORMS
        key = user.name if own else name
        if key not in found:
            owner = name.rpartition(".")[0]
            found[key] = FloatOperator(owner if own and owner else name, operator, 0, 0)
            places[key] = order[user]
        old = found[key]
        size = old.bytes + 4 * floats_in(tensor)
        found[key] = FloatOperator(old.name, old.operator, size, old.macs)
    others = Counter(
        packet(node)
        for node in network.graph.graph.nodes
        if node.name not in listed and node.name not in in_layers and _is_float_work(node)
    )
    return FloatPart(
        operators=tuple(found[key] for key in sorted(found, key=places.__getitem__)),
        others=dict(sorted(others.items())),
        network_bytes=network.fp32_bytes,
        layer_macs=sum(layer.macs for layer in network.layers),
    )


def operator_macs(node: fx.Node) -> int:
    """MACs of one sample; 0 for operators that work element by element. Shapes must be recorded.

    Attention counts QKᵀ and the product with V; a recurrent operator all its weights per step.
    """
    name = packet(node)
    if name == _ATTENTION:
        query, key, value = (_shape(node.args[index]) for index in range(3))
        return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    if name in _PRODUCTS:
        first, *_ = _operands(node)[-2:]
        elements: tuple[int, ...] = node.meta["shape"]
        return math.prod(elements) * _shape(first)[-1]
    if name == "einsum":
        return _einsum_macs(str(node.args[0]), [_shape(x) for x in _listed(node.args[1])])
    if name in LINEAR_OPERATORS and len(node.args) > 1:
        return layer_macs(node, _shape(node.args[1]))
    if name in _RECURRENT:
        weights = [_shape(x) for args in node.args for x in _listed(args)]
        steps = math.prod(_shape(node.args[0])[:-1])
        return steps * sum(math.prod(shape) for shape in weights if len(shape) == 2)
    return 0


def _operands(node: fx.Node) -> list[fx.Node]:
    return [argument for argument in node.args if isinstance(argument, fx.Node)]


def _listed(value: object) -> Iterator[fx.Node]:
    if isinstance(value, list | tuple):
        yield from (item for item in value if isinstance(item, fx.Node))


def _shape(value: object) -> tuple[int, ...]:
    assert isinstance(value, fx.Node)
    shape: tuple[int, ...] = tuple(value.meta["shape"])
    return shape


def _einsum_macs(equation: str, shapes: Sequence[tuple[int, ...]]) -> int:
    """The product over all indices; one operand alone multiplies nothing."""
    if len(shapes) < 2:
        return 0
    sizes: dict[str, int] = {}
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    for term, shape in zip(terms, shapes, strict=True):
        before, dots, after = term.partition("...")
        middle = len(shape) - len(before) - len(after) if dots else 0
        labels = [*before, *(f".{middle - i}" for i in range(middle)), *after]
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return math.prod(sizes.values())


def _is_float_work(node: fx.Node) -> bool:
    name = packet(node)
    if name in _PLAIN or not isinstance(node.target, torch._ops.OpOverload):
        return False
    return name not in _SCALING or len(_operands(node)) > 1


def _tensors(network: Network, stored: set[str]) -> Iterator[tuple[str, torch.Tensor, fx.Node]]:
    """(name, tensor, the operator that works with it) for tensors of floats outside the layers."""
    seen: set[str] = set()
    for node, name, tensor in tensor_nodes(network.graph):
        if name in stored or name in seen or not node.users or not floats_in(tensor):
            continue
        seen.add(name)
        user = next(iter(node.users))
        while packet(user) in MOVING and len(user.users) == 1:
            user = next(iter(user.users))
        yield name, tensor, user

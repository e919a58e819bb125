"""Which tensors a device keeps in codes of their own, and in how many bits: from the graph alone.

A tensor with one reader, a layer, is written in that layer's codes. What an addition, a mean or an
average pool reads, or several layers, is *stored*: unsigned codes of 8 bits (or 16) with a scale
and a zero point of its own, which layers of as many bits read as they are. Not stored is the
result of a layer that only an addition reads, where it is computed after the addition's other
operand: the sum is taken before anything is written, from 16 bits. Nor is what functions, products
and norms read or write, which has 16 bits, and what leaves the network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import fx

from mpsearch.errors import InputError
from mpsearch.graph.layers import EMBEDDING, Layer, is_transposed, packet
from mpsearch.integer.operators import (
    AVERAGES,
    CLAMPS,
    IDENTITIES,
    JOINING,
    MOVES,
    adds_at_one_scale,
    per_sample,
    sources,
    unsupported,
)
from mpsearch.integer.pointwise import PointFunction, needed, point_functions, sources_of

BYTE, SHORT = 8, 16
_SUM, _OTHER = "a sum", "another operator"  # what reads a tensor, beside layers by name
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is kept in codes of its own."""

    node: str
    """The name of the node that gives it."""
    least_bits: int
    """The most that layers read it with; at least 8 unless they all have as many."""
    is_open: bool
    """Whether more bits help: False where layers of as many bits are all that reads it."""
    layers: tuple[str, ...]
    """The layers that may read its codes as they are: used once, directly or behind moves."""
    direct: tuple[str, ...]
    """Those of them that read the node itself, and so have seen its range."""

    def bits(self, wanted: int = BYTE) -> int:
        """Its bits where `wanted` are asked for."""
        return max(self.least_bits, wanted) if self.is_open else self.least_bits


def stored_tensors(
    graph: fx.GraphModule, layers: Sequence[Layer], a_bits: Mapping[str, int]
) -> tuple[StoredTensor, ...]:
    """The stored tensors of a network, in order; `a_bits` of its layers by name.

    None where operators have no integer form.
    """
    (result,) = next(node for node in graph.graph.nodes if node.op == "output").args
    assert isinstance(result, fx.Node)
    try:
        computed = per_sample(graph.graph)
        functions = point_functions(computed)
        order = needed(computed, functions, result)
        readers = _readers(order, functions, result)
    except InputError:
        return ()
    found = _Search(order, functions, readers, layers, a_bits).run()
    kept = carried(order, functions, {tensor.node: tensor.node for tensor in found})
    return tuple(tensor for tensor in found if kept[tensor.node] == tensor.node)


def carried(
    order: Sequence[fx.Node], functions: Mapping[str, PointFunction], stored: Mapping[str, Kept]
) -> dict[str, Kept]:
    """By node name: of stored tensors, and of what only moves the elements of one of them, the
    form that it is kept in."""
    forms: dict[str, Kept] = {}
    for node in order:
        source = sources(node)[0].name if _moves_one(node, functions) else None
        if source in forms:
            forms[node.name] = forms[source]
        elif node.name in stored:
            forms[node.name] = stored[node.name]
    return forms


def is_scaled(node: fx.Node, functions: Mapping[str, PointFunction]) -> bool:
    """True for what sums codes at their own scales: an addition of two tensors, a mean, a pool."""
    if node.name in functions:
        return False
    return adds_at_one_scale(node) or packet(node) in AVERAGES


def _moves_one(node: fx.Node, functions: Mapping[str, PointFunction]) -> bool:
    """True for what moves elements of one tensor, or clips them: it works on codes as they are."""
    single = packet(node) in MOVES - JOINING and node.name not in functions
    return single and len(sources(node)) == 1


def _readers(
    order: Sequence[fx.Node], functions: Mapping[str, PointFunction], result: fx.Node
) -> dict[fx.Node, list[fx.Node | None]]:
    """Who reads each node, in order; None: it leaves the network. Raises InputError for a tensor
    that is computed from constants alone."""
    readers: dict[fx.Node, list[fx.Node | None]] = {node: [] for node in order}
    for node in order:
        for source in dict.fromkeys(sources_of(node, functions)):
            if source not in readers:
                raise unsupported(source, "reads constants alone")
            readers[source].append(node)
    readers[result].append(None)
    return readers


@dataclass
class _Search:
    order: Sequence[fx.Node]
    functions: Mapping[str, PointFunction]
    readers: Mapping[fx.Node, Sequence[fx.Node | None]]
    layers: Sequence[Layer]
    a_bits: Mapping[str, int]

    def __post_init__(self) -> None:
        self.layer_of = {node: layer.name for layer in self.layers for node in layer.nodes}
        self.used_once = {layer.name for layer in self.layers if len(layer.nodes) == 1}
        self.place = {node: index for index, node in enumerate(self.order)}
        self.short = self._short()

    def _short(self) -> set[fx.Node]:
        """What functions, products, norms and constants give, also moved."""
        found: set[fx.Node] = set()
        for node in self.order:
            if node.op == "placeholder":
                is_short = not node.meta["dtype"].is_floating_point
            elif packet(node) in MOVES and node.name not in self.functions:
                is_short = any(s in found for s in sources(node)) or not sources(node)
            else:
                is_short = node.name not in self.layer_of and not is_scaled(node, self.functions)
            if is_short:
                found.add(node)
        return found

    def run(self) -> list[StoredTensor]:
        """Also what a stored tensor behind a move carries."""
        read_by: dict[fx.Node, set[str]] = {}
        found: list[StoredTensor] = []
        for node in reversed(self.order):
            read = set[str]().union(*(self._read(reader, read_by) for reader in self.readers[node]))
            read_by[node] = read
            moved_on = len(self.readers[node]) == 1 and self._is_move(self.readers[node][0])
            if moved_on or _OTHER in read or node in self.short:
                continue
            if len(read) > 1 or (read == {_SUM} and not self._is_summed_at_once(node)):
                found.append(self._stored(node, read - {_SUM}, _SUM in read))
        return found[::-1]

    def _is_move(self, reader: fx.Node | None) -> bool:
        return reader is not None and _moves_one(reader, self.functions)

    def _read(self, reader: fx.Node | None, read_by: Mapping[fx.Node, set[str]]) -> set[str]:
        """What reads a tensor through `reader`."""
        if reader is None or reader.name in self.functions:
            return {_OTHER}
        if reader.name in self.layer_of and packet(reader) != EMBEDDING:
            return {self.layer_of[reader.name]}
        if is_scaled(reader, self.functions):
            return {_SUM}
        if self._is_move(reader):
            return read_by[reader]
        if packet(reader) in JOINING and _OTHER not in read_by[reader]:
            return {f"codes of {reader.name}"}  # which other tensors are written in, too
        return {_OTHER}

    def _stored(self, node: fx.Node, read: set[str], is_summed: bool) -> StoredTensor:
        names = tuple(layer.name for layer in self.layers if layer.name in read)
        bits = {self.a_bits[name] for name in names}
        sharing = tuple(name for name in names if name in self.used_once)
        closed = not is_summed and len(sharing) == len(read) and len(bits) == 1
        direct = {self.layer_of.get(reader.name) for reader in self.readers[node] if reader}
        return StoredTensor(
            node.name,
            max(bits if closed else {BYTE, *bits}),
            not closed,
            sharing,
            tuple(name for name in sharing if name in direct),
        )

    def _is_summed_at_once(self, node: fx.Node) -> bool:
        """True where a layer computes `node`, which one addition alone reads, after the other
        operand."""
        if len(self.readers[node]) != 1:
            return False
        (reader,) = self.readers[node]
        if reader is None or packet(reader) in AVERAGES:
            return False
        (other,) = (source for source in sources(reader) if source is not node)
        own, before = self._root(node), self._root(other)
        layer = own.name in self.layer_of and packet(own) != EMBEDDING and not is_transposed(own)
        return layer and self.place[before] < self.place[own]

    def _root(self, node: fx.Node) -> fx.Node:
        """What computes the node before it is clipped."""
        while packet(node) in CLAMPS | IDENTITIES and len(self.readers[sources(node)[0]]) == 1:
            (node,) = sources(node)
        return node

"""Which tensors of a template are kept in codes of their own, and in which: `stored` without a
graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mpsearch.integer.nodes import (
    INPUT,
    JOIN,
    LAYER,
    MOVE,
    OWN,
    SCALED,
    TABLE,
    Codes,
    Node,
)

BYTE = 8
_SUM, _OTHER = "a sum", "another operator"  # what reads a tensor, beside layers by name


@dataclass(frozen=True)
class Storing:
    """`codes`: by node, of stored tensors and of what only moves the elements of one. `layers`: the
    quantizers of layers that read such codes as they are."""

    codes: Mapping[str, Codes]
    layers: Mapping[str, Codes]


def storing(
    nodes: Sequence[Node], a_bits: Mapping[str, int], quantizers: Mapping[str, Codes]
) -> Storing:
    """As `stored.stored_tensors` finds the tensors and `post_training.stored_tensors` chooses their
    quantizers, with 8 bits where more would help; `quantizers` are the layers' own."""
    found = _Search(nodes, a_bits).run()
    names = carried(nodes, {name: name for name in found})
    stored: dict[str, Codes] = {}
    taken: dict[str, Codes] = {}
    for name, tensor in found.items():
        if names[name] != name:  # only moved from another stored one
            continue
        fitting = [layer for layer in tensor.layers if a_bits[layer] == tensor.bits]
        known = next((quantizers[layer] for layer in fitting if layer in tensor.direct), None)
        stored[name] = known or Codes(tensor.bits, f"stored {name}")
        of_width = {tensor.bits: stored[name]}
        for layer in tensor.layers:
            taken[layer] = of_width.setdefault(a_bits[layer], quantizers[layer])
    return Storing(
        {name: stored[root] for name, root in carried(nodes, {n: n for n in stored}).items()}, taken
    )


def carried(nodes: Sequence[Node], stored: Mapping[str, str]) -> dict[str, str]:
    """As `stored.carried`."""
    forms: dict[str, str] = {}
    for node in nodes:
        source = node.sources[0] if _moves_one(node) else None
        if source in forms:
            forms[node.name] = forms[source]
        elif node.name in stored:
            forms[node.name] = stored[node.name]
    return forms


def _moves_one(node: Node | None) -> bool:
    return node is not None and node.role == MOVE and len(node.sources) == 1


@dataclass(frozen=True)
class _Tensor:
    bits: int
    layers: tuple[str, ...]
    direct: frozenset[str]


class _Search:
    def __init__(self, nodes: Sequence[Node], a_bits: Mapping[str, int]) -> None:
        self.nodes, self.a_bits = nodes, a_bits
        self.by_name = {node.name: node for node in nodes}
        self.place = {node.name: index for index, node in enumerate(nodes)}
        uses = [node.layer for node in nodes if node.layer]
        self.layers = list(dict.fromkeys(uses))
        self.used_once = {layer for layer in self.layers if uses.count(layer) == 1}
        self.readers: dict[str, list[Node | None]] = {node.name: [] for node in nodes}
        for node in nodes:
            for source in dict.fromkeys(node.sources):
                self.readers[source].append(node)
        self.readers[nodes[-1].name].append(None)
        self.short = self._short()

    def _short(self) -> set[str]:
        found: set[str] = set()
        for node in self.nodes:
            if node.role == INPUT:
                is_short = node.whole
            elif node.role in (MOVE, JOIN):
                is_short = not node.sources or any(source in found for source in node.sources)
            else:
                is_short = node.role not in (LAYER, TABLE, SCALED)
            if is_short:
                found.add(node.name)
        return found

    def run(self) -> dict[str, _Tensor]:
        read_by: dict[str, set[str]] = {}
        found: dict[str, _Tensor] = {}
        for node in reversed(self.nodes):
            readers = self.readers[node.name]
            read = set[str]().union(*(self._read(reader, read_by) for reader in readers))
            read_by[node.name] = read
            moved_on = len(readers) == 1 and _moves_one(readers[0])
            if moved_on or _OTHER in read or node.name in self.short:
                continue
            if len(read) > 1 or (read == {_SUM} and not self._is_summed_at_once(node)):
                found[node.name] = self._stored(node, read - {_SUM}, _SUM in read)
        return dict(reversed(found.items()))

    def _read(self, reader: Node | None, read_by: Mapping[str, set[str]]) -> set[str]:
        if reader is None or reader.role == OWN:
            return {_OTHER}
        if reader.role == LAYER:
            return {reader.layer}
        if reader.role == SCALED:
            return {_SUM}
        if _moves_one(reader):
            return read_by[reader.name]
        if reader.role == JOIN and _OTHER not in read_by[reader.name]:
            return {f"codes of {reader.name}"}
        return {_OTHER}

    def _stored(self, node: Node, read: set[str], is_summed: bool) -> _Tensor:
        names = [layer for layer in self.layers if layer in read]
        bits = {self.a_bits[name] for name in names}
        sharing = tuple(name for name in names if name in self.used_once)
        closed = not is_summed and len(sharing) == len(read) and len(bits) == 1
        least = max(bits if closed else {BYTE, *bits})
        direct = frozenset(r.layer for r in self.readers[node.name] if r is not None and r.layer)
        return _Tensor(least if closed else max(least, BYTE), sharing, direct)

    def _is_summed_at_once(self, node: Node) -> bool:
        if len(self.readers[node.name]) != 1:
            return False
        (reader,) = self.readers[node.name]
        if reader is None or reader.averages:
            return False
        (other,) = (source for source in reader.sources if source != node.name)
        own, before = self._root(node), self._root(self.by_name[other])
        layer = own.role == LAYER and not own.transposed
        return layer and self.place[before.name] < self.place[own.name]

    def _root(self, node: Node) -> Node:
        while node.clips and len(self.readers[node.sources[0]]) == 1:
            node = self.by_name[node.sources[0]]
        return node

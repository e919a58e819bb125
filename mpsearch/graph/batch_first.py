"""The same network with the samples in dimension 0 of every tensor, and in nothing else of it.

Attention and windows move the samples about: [3, N, heads, T, d], [N·4, 16, 16], [T, N·heads, d].
Whoever computes one sample at a time wants to see that sample: (3, heads, T, d), (4, 16, 16),
(T, heads, d). Where torch's dimension holds one element of a sample, it becomes dimension 0; where
it holds several, these get a dimension of their own: [N·4, 16, 16] becomes [N, 4, 16, 16]. A
network says the same of a sample alone, so its run with one sample shows the order of the elements.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from mpsearch.graph.layers import EMBEDDING, argument, packet
from mpsearch.graph.network import copy_graph, record_shapes
from mpsearch.graph.partial_forward import PartialForward
from mpsearch.graph.tensors import fresh_name, set_tensor

_RESHAPING = {
    "_unsafe_view", "flatten", "reshape", "squeeze", "unflatten", "unsqueeze", "view", "view_as",
    "reshape_as",
}  # fmt: skip
_ORDERING = {"permute", "transpose", "movedim", "swapaxes", "t", "moveaxis"}
# Number by number; operands of fewer dimensions are aligned with the last ones.
_ELEMENTWISE = frozenset(
    """
    _to_copy abs add alias ceil celu clamp clamp_max clamp_min clone contiguous cos detach div elu
    eq erf exp expm1 floor ge gelu gt hardsigmoid hardswish hardtanh le leaky_relu log log1p
    log_sigmoid logical_and logical_not logical_or lt masked_fill maximum minimum mish mul ne neg
    pow reciprocal relu relu6 round rsqrt rsub selu sigmoid sign silu sin softplus softsign sqrt
    square sub tan tanh threshold to where
    """.split()
)
# The arguments that name dimensions of the first tensor.
_ALONG = {
    **dict.fromkeys(
        "_log_softmax _softmax amax amin argmax argmin chunk cumsum flip glu index_select "
        "linalg_vector_norm log_softmax max mean min narrow roll select slice softmax split "
        "split_with_sizes sum unbind".split(),
        ("dim", "dims"),
    ),
}  # fmt: skip
_COMPARED = 3  # samples
_JOINING = {"cat", "stack"}
_LAST = {"linear": 1, "matmul": 2, "layer_norm": 0, "rms_norm": 0, EMBEDDING: 0}


@dataclass(frozen=True)
class _Place:
    """Dimension `dim` of `rank` grows with the batch and holds `size` elements of each sample."""

    dim: int
    rank: int
    size: int

    @property
    def plain(self) -> bool:
        """The samples are where they shall be."""
        return self.dim == 0 and self.size == 1

    def moved(self, dim: int) -> int:
        """Where a dimension goes."""
        dim %= self.rank
        if self.size > 1:
            return dim + 1
        return 0 if dim == self.dim else dim + (dim < self.dim)

    def shape(self, given: Sequence[int]) -> list[int]:
        """The new shape with -1 for the samples, from that of one sample in the old order."""
        rest = list(given) if self.size > 1 else [n for d, n in enumerate(given) if d != self.dim]
        return [-1, *rest]

    def order(self, dims: Sequence[int]) -> list[int]:
        """Old dimensions in any order as the new ones in that order, the samples first."""
        moved = [self.moved(dim) for dim in dims]
        return [0, *(dim for dim in moved if dim != 0)]


class _UnknownError(Exception):
    """Where the samples are cannot be followed."""


def batch_first(graph: fx.GraphModule, inputs: Sequence[torch.Tensor]) -> fx.GraphModule:
    """A graph of the same node names and outputs; `graph` itself where all is in order already, or
    where the samples cannot be followed, as in a network that mixes them."""
    forward = PartialForward(graph, inputs)
    rows = [x[:1] for x in inputs]
    one, two = (forward.run([torch.cat([x] * count) for x in rows]) for count in (1, 2))
    places: dict[fx.Node, _Place | None] = {}
    for node in forward.nodes:
        if node in forward.varying:
            places[node] = _place(_first(one[node]), _first(two[node]))
    in_order = all(place is None or place.plain for place in places.values())
    if in_order and not any(_reads_computed_constants(node, places) for node in places):
        return graph
    try:
        rewritten = _Rewriting(graph, places, one).run()
    except _UnknownError:
        return graph
    record_shapes(rewritten, inputs)
    return rewritten if _same_outputs(graph, rewritten, [x[:_COMPARED] for x in inputs]) else graph


def _same_outputs(
    graph: fx.GraphModule, rewritten: fx.GraphModule, inputs: Sequence[torch.Tensor]
) -> bool:
    """False for a network that mixes its samples: here it does not."""
    with torch.no_grad():
        expected, found = graph(*inputs), rewritten(*inputs)
    tolerance = 1e-4 * float(expected.nan_to_num().abs().amax())
    return torch.allclose(expected, found, rtol=1e-3, atol=tolerance, equal_nan=True)


def _reads_computed_constants(node: fx.Node, places: Mapping[fx.Node, object]) -> bool:
    """True where what depends on the samples is added to, or put beside, what does not and yet is
    computed: a mask from arange, a token that is repeated for every sample."""
    joins = packet(node) in _JOINING
    if not joins and packet(node) not in _ELEMENTWISE:
        return False
    return any(
        source not in places
        and source.op == "call_function"
        and "shape" in source.meta
        and not (joins and _is_repeated(source))
        for source in node.all_input_nodes
    )


def _is_repeated(node: fx.Node) -> bool:
    """A stored tensor of one sample, repeated for all, as it is written here."""
    source = node.args[0]
    return packet(node) == "expand" and isinstance(source, fx.Node) and source.op == "get_attr"


def _first(value: Any) -> Any:
    """The first tensor of a tuple, or the value itself."""
    return value[0] if isinstance(value, list | tuple) and value else value


def _place(one: Any, two: Any) -> _Place | None:
    """None for what is no tensor, or where no one dimension grows."""
    if not isinstance(one, torch.Tensor) or one.dim() != two.dim():
        return None
    grown = [d for d in range(one.dim()) if one.shape[d] != two.shape[d]]
    if len(grown) != 1 or two.shape[grown[0]] != 2 * one.shape[grown[0]]:
        return None
    return _Place(grown[0], one.dim(), one.shape[grown[0]])


class _Rewriting:
    """Builds the new graph node by node, each under its old name."""

    def __init__(
        self,
        graph: fx.GraphModule,
        places: dict[fx.Node, _Place | None],
        one: dict[fx.Node, Any],
    ) -> None:
        self.old, self.places, self.one = graph, places, one
        self.module = copy_graph(graph)
        self.new = fx.Graph()
        self.known: dict[fx.Node, fx.Node] = {}
        self.first: fx.Node | None = None

    def run(self) -> fx.GraphModule:
        for node in self.old.graph.nodes:
            if node.op == "output":
                self.new.output(self.known[node.args[0]])
                continue
            if node in self.places and packet(node):
                target, args, kwargs = self._call(node)
            else:
                target, (args, kwargs) = node.target, self._same(node)
            made = self.new.create_node(node.op, target, args, kwargs, name=node.name)
            made.meta = dict(node.meta)
            self.known[node] = made
            if node.op == "placeholder":
                self.first = made
        self.new.eliminate_dead_code()
        rewritten = fx.GraphModule(self.module, self.new)
        return copy_graph(rewritten)

    def _same(self, node: fx.Node) -> tuple[Any, Any]:
        return (
            fx.map_arg(node.args, self.known.__getitem__),
            fx.map_arg(node.kwargs, self.known.__getitem__),
        )

    def _call(self, node: fx.Node) -> tuple[Any, Any, Any]:
        """(target, args, kwargs) of a node that depends on the inputs."""
        name = packet(node)
        place, sources = self.places[node], [s for s in node.all_input_nodes if s in self.places]
        given = [self.places[source] for source in sources]
        if name == "sym_size" or place is None:
            if any(p is not None and not p.plain for p in given):
                raise _UnknownError
            return (node.target, *self._same(node))
        if name == "getitem":
            return (node.target, *self._same(node))
        if name in _ELEMENTWISE:
            return self._elementwise(node, place)
        if name in _JOINING:
            return self._joined(node, place)
        if place.plain and all(p is None or p.plain for p in given):
            return (node.target, *self._same(node))
        if name in _RESHAPING:
            shape = place.shape(self.one[node].shape)
            return torch.ops.aten.reshape.default, (self.known[sources[0]], shape), {}
        (first, *_) = given
        if first is None:
            raise _UnknownError
        if name in _ORDERING:
            order = first.order(_dims_of(node, self.one[sources[0]]))
            return torch.ops.aten.permute.default, (self.known[sources[0]], order), {}
        if name in _ALONG:
            return self._along(node, first)
        if name in ("expand", "expand_as"):
            shape = place.shape(self.one[node].shape)
            return torch.ops.aten.expand.default, (self.known[sources[0]], shape), {}
        if name == "bmm" and given == [first, first]:
            return torch.ops.aten.matmul.default, *self._same(node)
        if name in _LAST and self._only_last(node, name, given):
            return (node.target, *self._same(node))
        raise _UnknownError

    def _elementwise(self, node: fx.Node, place: _Place) -> tuple[Any, Any, Any]:
        """Operands of the same place; constants are aligned and moved as the result is."""

        def operand(source: fx.Node) -> fx.Node:
            if source in self.places:
                if self.places[source] != place:
                    raise _UnknownError
                return self.known[source]
            value = self.one[source]
            if not isinstance(value, torch.Tensor):
                return self.known[source]
            return self._constant(source, self._aligned(value, place))

        if place.plain and all(
            s in self.places or s.op == "get_attr" for s in node.all_input_nodes
        ):
            return (node.target, *self._same(node))
        return node.target, fx.map_arg(node.args, operand), fx.map_arg(node.kwargs, operand)

    def _aligned(self, value: torch.Tensor, place: _Place) -> torch.Tensor:
        if value.dim() > place.rank:
            raise _UnknownError
        full = value.reshape([1] * (place.rank - value.dim()) + list(value.shape))
        if place.size > 1:
            return full[None]
        if full.shape[place.dim] != 1:
            raise _UnknownError
        return full.movedim(place.dim, 0)

    def _constant(self, source: fx.Node, value: torch.Tensor) -> fx.Node:
        name = fresh_name(self.module, f"{source.name}_of_one_sample".replace(".", "_"))
        set_tensor(self.module, name, value.contiguous())
        return self.new.get_attr(name)

    def _along(self, node: fx.Node, place: _Place) -> tuple[Any, Any, Any]:
        args, kwargs = self._same(node)
        args, kwargs = list(args), dict(kwargs)
        for index, parameter in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
            if parameter.name not in _ALONG[packet(node)]:
                continue
            dims = argument(node, parameter.name)
            if dims is None or dims == []:
                raise _UnknownError  # over all, the samples too
            moved: Any = (
                [place.moved(d) for d in dims]
                if isinstance(dims, list | tuple)
                else place.moved(int(str(dims)))
            )
            if parameter.name in kwargs or index >= len(args):
                kwargs[parameter.name] = moved
            else:
                args[index] = moved
        return node.target, tuple(args), kwargs

    def _joined(self, node: fx.Node, place: _Place) -> tuple[Any, Any, Any]:
        (parts,) = node.args[:1]
        assert isinstance(parts, list | tuple)
        dim = int(str(argument(node, "dim")))
        wanted = (place.dim, place.size)
        if packet(node) == "stack":  # its new dimension may lie ahead of the samples
            wanted = (place.dim - (dim % place.rank < place.dim), place.size)
        made = []
        for part in parts:
            assert isinstance(part, fx.Node)
            own = self.places.get(part)
            if part not in self.places and isinstance(self.one[part], torch.Tensor):
                made.append(self._repeated(part, place))
            elif own is None or (own.dim, own.size) != wanted:
                raise _UnknownError
            else:
                made.append(self.known[part])
        return node.target, (made, place.moved(dim)), {}

    def _repeated(self, part: fx.Node, place: _Place) -> fx.Node:
        """A constant operand, once for every sample."""
        value = self.one[part]
        if value.dim() < place.rank:  # of a stack
            place = _Place(place.dim, value.dim(), place.size)
        stored = self._constant(part, self._aligned(value, place))
        count = self.new.call_function(torch.ops.aten.sym_size.int, (self.first, 0))
        shape = (count, *self._aligned(value, place).shape[1:])
        return self.new.call_function(torch.ops.aten.expand.default, (stored, shape))

    def _only_last(self, node: fx.Node, name: str, given: Sequence[_Place | None]) -> bool:
        """True where the operator works along last dimensions that hold no samples."""
        last = _LAST[name]
        if name in ("layer_norm", "rms_norm"):
            shape = argument(node, "normalized_shape")
            assert isinstance(shape, list | tuple)
            last = len(shape)
        same = all(place == given[0] for place in given)
        operands = [s for s in node.all_input_nodes if s not in self.places]
        if name == "matmul" and operands:
            return False
        return same and all(p is not None and p.dim < p.rank - last for p in given)


def _dims_of(node: fx.Node, source: torch.Tensor) -> list[int]:
    """The order of the source's dimensions in the result, by trying: each has its own length."""
    lengths = torch.empty([d + 1 for d in range(source.dim())], device="meta")
    target: Callable[..., torch.Tensor] = node.target  # type: ignore[assignment]
    return [n - 1 for n in target(lengths, *node.args[1:], **node.kwargs).shape]

"""Where the samples of a batch are in a tensor: attention moves them away from dimension 0.

torch's attention computes with [T, N, C] and even [T·N, C]. What is summed per sample, such as the
norms of per-sample gradients, has to know that.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from mpsearch.graph.operators import packet
from mpsearch.graph.partial_forward import PartialForward

_SAMPLES = 3  # that are run alone, too, where samples and positions share a dimension
_BROADCASTING = {"add", "sub", "mul"}


@dataclass(frozen=True)
class SampleLayout:
    """Dimension `dim` of a tensor holds outer x N x inner: [T·N, C] has dim 0, outer T, inner 1.

    `alone`: the whole tensor belongs to the only sample. `shared` is for a tensor that does not
    depend on the inputs (an embedding of positions) and is added to one that does: the number of
    its first dimensions, 0 or 1, that stand for the samples.
    """

    dim: int = 0
    outer: int = 1
    inner: int = 1
    alone: bool = False
    shared: int | None = None

    def by_sample(self, tensor: torch.Tensor, samples: int) -> torch.Tensor:
        """[N, positions in `dim`, other dimensions in order]: [T·N, C] -> [N, T, C]."""
        if self.alone:
            return tensor[None]
        parts = tensor.movedim(self.dim, 0)
        rest = parts.shape[1:]
        split = parts.reshape(self.outer, samples, self.inner, *rest).transpose(0, 1)
        return split.reshape(samples, self.outer * self.inner, *rest)

    def spread(self, tensor: torch.Tensor, samples: int) -> torch.Tensor:
        """A shared tensor once per sample, [T, C] -> [N, T, C]; other tensors as they are."""
        if self.alone or self.shared is None:
            return tensor
        return tensor.expand(samples, *tensor.shape[self.shared :])


Layouts = Mapping[str, SampleLayout]
ALONE = SampleLayout(alone=True)


def parts(
    graph: fx.GraphModule, nodes: Sequence[str], inputs: tuple[torch.Tensor, ...]
) -> Iterator[tuple[tuple[torch.Tensor, ...], Layouts]]:
    """(inputs, layouts of `nodes`): the whole batch or, where a layout is unknown, each sample."""
    samples = len(inputs[0])
    layouts = {} if samples == 1 else _recorded(graph, nodes, inputs)
    known = {name: layout for name, layout in layouts.items() if layout is not None}
    if samples > 1 and len(known) == len(nodes):
        yield inputs, known
        return
    for index in range(samples):
        yield _one(inputs, index), dict.fromkeys(nodes, ALONE)


def _recorded(
    graph: fx.GraphModule, nodes: Sequence[str], inputs: Sequence[torch.Tensor]
) -> dict[str, SampleLayout | None]:
    """The layouts as `meta["samples"]` has them; found and written there the first time."""
    by_name = {node.name: node for node in graph.graph.nodes}
    wanted = [by_name[name] for name in nodes]
    unknown = [node for node in wanted if "samples" not in node.meta]
    if unknown:
        for node, layout in sample_layouts(graph, unknown, inputs).items():
            node.meta["samples"] = layout
    return {node.name: node.meta["samples"] for node in wanted}


def sample_layouts(
    graph: fx.GraphModule, nodes: Sequence[fx.Node], inputs: Sequence[torch.Tensor]
) -> dict[fx.Node, SampleLayout | None]:
    """The layout of the tensor that each node computes, None where it is unknown.

    Found by running: the dimension is the one that grows from two samples to three. Where it
    holds more than the samples, their order is the one in which a batch of three has the values of
    the three samples run alone. No order, or two of them (equal samples), leaves it unknown.
    """
    forward = PartialForward(graph, inputs)
    rows = [_one(inputs, index % len(inputs[0])) for index in range(_SAMPLES)]
    two, three = (
        forward.run([torch.cat(x) for x in zip(*rows[:count], strict=True)]) for count in (2, 3)
    )
    alone = None
    found: dict[fx.Node, SampleLayout | None] = {}
    for node in nodes:
        if node not in forward.varying:
            found[node] = _shared(node, two)
            continue
        candidates = _candidates(tuple(two[node].shape), tuple(three[node].shape))
        if len(candidates) > 1:
            alone = alone or [forward.run(row) for row in rows]
            single = [values[node] for values in alone]
            candidates = [c for c in candidates if _fits(c, three[node], single)]
        found[node] = candidates[0] if len(candidates) == 1 else None
    return found


def _one(inputs: Sequence[torch.Tensor], index: int) -> tuple[torch.Tensor, ...]:
    return tuple(x[index : index + 1] for x in inputs)


def _candidates(two: tuple[int, ...], three: tuple[int, ...]) -> list[SampleLayout]:
    grown = [d for d in range(len(two)) if two[d] != three[d]]
    if len(grown) != 1:
        return []
    (dim,) = grown
    size = three[dim] // _SAMPLES
    if (two[dim], three[dim]) != (2 * size, 3 * size):
        return []
    return [SampleLayout(dim, n, size // n) for n in range(1, size + 1) if size % n == 0]


def _fits(layout: SampleLayout, batch: torch.Tensor, alone: Sequence[torch.Tensor]) -> bool:
    rows = layout.by_sample(batch, _SAMPLES)
    expected = torch.cat([layout.by_sample(value, 1) for value in alone])
    tolerance = 1e-4 * float(expected.abs().amax())
    return torch.allclose(rows, expected, rtol=1e-3, atol=tolerance)


def _shared(node: fx.Node, two: Mapping[fx.Node, torch.Tensor]) -> SampleLayout | None:
    """For a tensor [T, C] or [1, T, C] that is only added to tensors [N, T, C]."""
    shape = tuple(two[node].shape)
    for first in (0, 1):
        wanted = (2, *shape[first:])
        if shape[:first] in ((), (1,)) and all(
            packet(user) in _BROADCASTING and tuple(two[user].shape) == wanted
            for user in node.users
        ):
            return SampleLayout(shared=first)
    return None

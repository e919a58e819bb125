"""Where the samples of a batch are in a tensor: attention moves them away from dimension 0.

torch's attention computes with [T, N, C] and even [T·N, C]. What is summed per sample, such as the
norms of per-sample gradients, has to know that.

What a network says of a sample must not depend on the other samples of its batch.

Devices run one sample at a time. A network that averages over the batch has another accuracy at
every batch size, so none of its numbers would mean anything. The test is a comparison: three
samples together and each of them alone. Float sums differ a little between the two, and a rounding
or an arg-max inside the network may turn that into a whole step; so where float32 finds a
difference, float64 decides.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from mpsearch.errors import InputError, first_line
from mpsearch.graph import memory_budget
from mpsearch.graph.layers import packet
from mpsearch.graph.partial_forward import PartialForward
from mpsearch.graph.tensors import device_of, set_float_width

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


Outputs = torch.Tensor | Mapping[str, torch.Tensor]
_ROWS = 3
# Of the largest output: far above the noise of sums over thousands of products (1e-6 and 1e-15)
_TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9}


def check_samples_apart(graph: fx.GraphModule, samples: Sequence[torch.Tensor]) -> None:
    """Raise InputError when an output of `graph` depends on the companions of its sample.

    `samples`: inputs [N, …] of which three are taken; where all are alike (an example of zeros, a
    single sample), random ones of the same shapes and types stand in for them.
    """
    own, device = _drawn(samples), device_of(graph)
    rows = [x.to(device) for x in (random_samples(samples) if own is None else own)]
    with torch.no_grad():
        try:
            mixed = samples_mix(graph, rows)
        except (RuntimeError, IndexError):  # random numbers need not be rows of a table
            rows = [x[:1].expand(_ROWS, *x.shape[1:]).to(device).contiguous() for x in samples]
            mixed = _on_copies(graph, rows)
        if not mixed:
            return
        if not _same(graph(*rows), graph(*rows), 0):
            raise InputError(
                "the network gives other outputs each time that it runs on the same samples; "
                "expected none of dropout or noise that is left on"
            )
        if not _mixes_in_double(graph, rows):
            return
    raise InputError(
        "the network mixes the samples of a batch: what it says of one changes with the others, so "
        "every result would depend on the batch size.",
        "Likely: mean(0) or softmax(0), a reshape over the batch, batch norm without running "
        "statistics (or in training mode), or samples along another dimension (--batch-dim NAME=1)",
    )


def samples_mix(
    run: Callable[..., Outputs], rows: Sequence[torch.Tensor], width: torch.dtype = torch.float32
) -> bool:
    """True when `rows` together give other outputs than each of them alone."""
    with memory_budget.watched():  # each alone needs less
        together = _parts(run(*rows))
    count = len(rows[0])
    for index in range(count):
        alone = _parts(run(*(x[index : index + 1] for x in rows)))
        for whole, one in zip(together, alone, strict=True):
            if whole.shape[:1] != (count,) or whole.shape[1:] != one.shape[1:]:
                return True
            if not _same(whole[index : index + 1], one, _TOLERANCES[width]):
                return True
    return False


def _on_copies(graph: fx.GraphModule, rows: Sequence[torch.Tensor]) -> bool:
    try:
        return samples_mix(graph, rows)
    except (RuntimeError, IndexError) as error:
        raise InputError(
            f"the network runs on one sample and not on {_ROWS}; expected a free batch dimension: "
            f"{first_line(error)}"
        ) from error


def _mixes_in_double(graph: fx.GraphModule, rows: Sequence[torch.Tensor]) -> bool:
    double = copy.deepcopy(graph)
    try:
        set_float_width(double, torch.float64)
        wide = [x.double() if x.is_floating_point() else x for x in rows]
        return samples_mix(double, wide, torch.float64)
    except (RuntimeError, InputError):  # an operator that has float32 only
        return True


def _same(first: Outputs, second: Outputs, tolerance: float) -> bool:
    for one, other in zip(_parts(first), _parts(second), strict=True):
        a, b = one.double(), other.double()
        largest = a.nan_to_num(0, 0, 0).abs().amax().item() if a.numel() else 0.0
        if not torch.allclose(a, b, rtol=0, atol=tolerance * largest, equal_nan=True):
            return False
    return True


def _parts(outputs: Outputs) -> list[torch.Tensor]:
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs.values())


def _drawn(samples: Sequence[torch.Tensor]) -> list[torch.Tensor] | None:
    """First, middle and last sample; None where these are alike."""
    count = len(samples[0])
    if count < _ROWS:
        return None
    rows = [x[[0, count // 2, count - 1]] for x in samples]
    return rows if any(bool((x[1:] != x[:1]).any()) for x in rows) else None


def random_samples(samples: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Three samples that differ, the same at every call: normal numbers, or zeros and ones."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for x in samples:
        shape = (_ROWS, *x.shape[1:])
        if x.is_floating_point():
            rows.append(torch.randn(shape, generator=generator))
        else:
            rows.append(torch.randint(0, 2, shape, generator=generator).to(x.dtype))
    return rows

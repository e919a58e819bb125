"""How large every tensor of a graph is for a batch of N: fixed numbers, and multiples of N.

Found by running the graph with two and with three samples, so that attention, which moves the batch
to another dimension and folds it into others ([T·N, C]), needs no rule of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import fx

from mpsearch.graph import memory_budget
from mpsearch.graph.partial_forward import PartialForward


class Size(NamedTuple):
    """`fixed` + `per_sample`·N."""

    fixed: int
    per_sample: int = 0

    @property
    def is_fixed(self) -> bool:
        """True where it does not depend on the batch."""
        return self.per_sample == 0


Sizes = tuple[Size, ...]


@dataclass(frozen=True)
class Form:
    """Sizes and type of a tensor."""

    sizes: Sizes
    dtype: torch.dtype

    @property
    def rank(self) -> int:
        """How many dimensions it has."""
        return len(self.sizes)


# Of a tensor; of several; of a whole number; None: of anything else
Found = Form | tuple["Form | None", ...] | Size | None


def found_forms(graph: fx.GraphModule, examples: Sequence[torch.Tensor]) -> Mapping[fx.Node, Found]:
    """What every node gives; `examples` are inputs of one or more samples."""
    forward = PartialForward(graph, examples)
    rows = [x[:1] for x in examples]
    with memory_budget.watched():
        two, three = (forward.run([torch.cat([x] * count) for x in rows]) for count in (2, 3))
    return {node: _found(two[node], three[node]) for node in forward.nodes}


def _found(two: object, three: object) -> Found:
    if isinstance(two, torch.Tensor) and isinstance(three, torch.Tensor):
        pairs = zip(two.shape, three.shape, strict=True)
        return Form(tuple(_size(a, b) for a, b in pairs), two.dtype)
    if isinstance(two, list | tuple) and isinstance(three, list | tuple):
        forms = [_found(a, b) for a, b in zip(two, three, strict=True)]
        return tuple(form if isinstance(form, Form) else None for form in forms)
    if type(two) is int and type(three) is int:
        return _size(two, three)
    return None


def _size(two: int, three: int) -> Size:
    return Size(3 * two - 2 * three, three - two)

"""Whole numbers compared with a constant: which tokens are padding."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpsearch.integer.fixed_point import Integers
from mpsearch.integer.graph import ComputedStep, IntegerTensor

if TYPE_CHECKING:
    from torch import fx

    from mpsearch.integer.pointwise import PointFunction

_ENDS = (-(2**31) + 1, 2**31 - 1)


@dataclass(frozen=True)
class Interval(ComputedStep):
    """`inside` where first <= q <= last, else `outside`: the codes of 1 and 0 in some order."""

    first: int
    last: int
    inside: int
    outside: int

    def compute(self, *sources: Integers) -> Integers:
        """Integers only."""
        (q,) = sources
        found: Integers = np.empty_like(q, dtype=np.int64)
        found[...] = self.outside
        found[(q >= self.first) & (q <= self.last)] = self.inside
        return found


def interval(
    node: "fx.Node", source: IntegerTensor, output: IntegerTensor, function: "PointFunction"
) -> Interval:
    """The step of eq, ne, lt, le, gt or ge with a number. Raises InputError for what else is
    computed from whole numbers."""
    from mpsearch.graph.layers import packet
    from mpsearch.integer.operators import unsupported

    kind, number = packet(node), node.args[1] if len(node.args) > 1 else None
    if len(function.nodes) > 1 or kind not in _INSIDE or not isinstance(number, int | float):
        raise unsupported(node, "computes with whole numbers")
    below, above = math.ceil(number), math.floor(number)
    first, last = {
        "eq": (below, above), "ne": (below, above), "lt": (_ENDS[0], below - 1),
        "le": (_ENDS[0], above), "gt": (above + 1, _ENDS[1]), "ge": (below, _ENDS[1]),
    }[kind]  # fmt: skip
    codes = [0, 1] if kind == "ne" else [1, 0]
    stored = [min(round(value / output.scale) + output.zero_point, output.high) for value in codes]
    ends = [min(max(end, _ENDS[0]), _ENDS[1]) for end in (first, last)]
    return Interval((source.name,), output, *ends, *stored)


_INSIDE = {"eq", "ne", "lt", "le", "gt", "ge"}

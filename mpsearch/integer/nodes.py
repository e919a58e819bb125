"""Nodes of a template: how each meets the forms of its neighbours, and its steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpsearch.integer.graph import Shape

PROBABILITY_BITS = 16

# How a node meets the forms of its neighbours.
INPUT = "input"  # enters once for every form that is read
LAYER = "layer"  # reads its quantizer's codes, writes whatever is read
TABLE = "table"  # an embedding: reads numbers of rows
MOVE = "move"  # same form in and out
JOIN = "join"  # the same for several tensors, which are brought to one scale
OWN = "own"  # reads wide tensors at scales of their own, writes whatever is read
SUM = "sum"  # wide tensors of one scale, in and out
SCALED = "scaled"  # sums codes at their own scales, writes whatever is read
SOFTMAX, ARGMAX = "softmax", "argmax"
ROLES = (INPUT, LAYER, TABLE, MOVE, JOIN, OWN, SUM, SCALED, SOFTMAX, ARGMAX)
WRITES_ANY = (LAYER, TABLE, MOVE, JOIN, OWN, SCALED)


@dataclass(frozen=True)
class Codes:
    """A form: the codes of a quantizer of `bits`; equal where the quantizers are the same."""

    bits: int
    quantizer: str


Form = Codes | None  # None: wide, signed
PROBABILITIES = Codes(PROBABILITY_BITS, "probabilities")


@dataclass(frozen=True)
class Node:
    """One node of the graph that integers are made of."""

    name: str
    role: str
    sources: tuple[str, ...] = ()
    shape: Shape = ()
    layer: str = ""
    """Whose weights it has."""
    index: int = 0
    """Of an input: which one it is."""
    whole: bool = False
    """Numbers of rows, which have 32 bits."""
    probabilities: tuple[bool, ...] = ()
    """Which sources are read as a softmax writes them."""
    apart: tuple[bool, ...] = ()
    """Of a join: which sources are so small that they keep a scale of 16 bits of their own."""
    averages: bool = False
    """A mean or an average pool."""
    clips: bool = False
    """Nothing but clips, or gives its source again."""
    transposed: bool = False
    """Of a layer: a transposed convolution."""
    steps: tuple[Mapping[str, Any], ...] = ()
    """`step_to_json` of each. "from": sources by number, "entry" for the first input, or what
    follows the node's name in a part of it; "to": likewise, "" for the node's own tensor; "shape".
    Without any, the first source is the result."""

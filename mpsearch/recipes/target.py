"""What a recipe needs of a target: which formats it has, what they take there, and its file.

A target is a tool that quantizes by a file of its own: torchao, llama.cpp, ai8x. Third parties add
one under the entry-point group `mpsearch.recipes`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from mpsearch.running import plugins
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import TableLayer

GROUP = "mpsearch.recipes"  # of entry points
FLOATS = (16, 32)  # bits of the floats that layers are left in
NO_SHAPE = (
    "the shape of its weight is not known: profile again, add a column `shape`, or --shapes FILE"
)


@dataclass(frozen=True)
class Recipe:
    """What a target's file is made of."""

    layers: Mapping[str, tuple[TableLayer, Choice]]
    """Name -> the layer, with its shape where that is known, and what it gets; network order."""
    model: str | None = None
    """The model's file, where `--model` names one; what a target cannot do without it is an
    InputError of its `write`."""


class Target(Protocol):
    """A tool that assignments are written for."""

    name: str
    """As `--for` takes it: `torchao`."""
    description: str
    """One line: what its file is, and who reads it."""
    formats: str
    """The choices that it has, in words for `mpsearch recipes`: `w4g32a16, w8a16, w8a8`."""
    limits: Mapping[str, int] = MappingProxyType({})
    """Column of `costs` -> the most that the target holds of it, whatever is asked; mostly none."""

    def refused(self, layer: TableLayer, choice: Choice) -> str:
        """Why the target does not take the layer at this choice, in a few words; "" if it does."""
        ...

    def costs(self, layer: TableLayer, choice: Choice) -> Mapping[str, int]:
        """Column -> what it takes there, for a layer and choice that are not refused.

        One column is `bytes_column(name)`: the bytes of the target's own file or memory, with
        scales, groups, padding and alignment, never less than the tool itself takes. Others may
        stand beside it, such as words of one memory bank.
        """
        ...

    def overhead(self, layers: Mapping[str, TableLayer]) -> int:
        """Bytes of its file that no choice changes and that belong to the budget: mostly 0."""
        return 0

    def write(self, recipe: Recipe) -> bytes:
        """Its file. Raises InputError where something is missing."""
        ...


def bytes_column(name: str) -> str:
    """The resource column of a target's own bytes: `llama.cpp` -> `llama_cpp_bytes`."""
    return "".join(c if c.isalnum() else "_" for c in name) + "_bytes"


def left_alone(choice: Choice) -> bool:
    """`w16a16`, `w32a32`: the layer stays in the network's floats, of 16 bits or of 32."""
    return not choice.label and choice.w_bits in FLOATS and choice.a_bits in FLOATS


def find_target(name: str) -> Target:
    """The installed target of this name. Raises InputError, which lists those there are."""
    target: Target = plugins.load(GROUP, name, "target of recipes")
    return target

"""What reads the table of another tool: its protocol, what it is given, and what it gives.

Third parties add one under the entry-point group `mpsearch.tables`. A reader gets text or parsed
JSON and never a file, so that size, depth and encoding are bounded in one place (`reading`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from mpsearch.errors import InputError, did_you_mean
from mpsearch.files.json_file import Form, check_form
from mpsearch.tables.choice import Choice
from mpsearch.tables.csv_columns import LARGEST_SHAPE
from mpsearch.tables.table import LayerTable, Row, TableLayer

GROUP = "mpsearch.tables"
SIZE = "size_bytes"
FLOAT_BITS = 16  # of a network that these tools start from


@dataclass(frozen=True)
class Source:
    """A file, as readers get it."""

    name: str
    """What it is called in messages."""
    text: str
    """All of it."""
    document: Any = None
    """What its JSON means; None: it is no JSON."""


@dataclass(frozen=True)
class Asked:
    """What is said beside a file."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Column of ours -> what the file calls it; after a minus sign, larger is better."""
    choices: tuple[Choice, ...] = ()
    """The choices that the file is of, where it does not say."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Layer -> the shape of its weight, output channels first."""

    def shape_of(self, layer: str, source: Source) -> tuple[int, ...]:
        """The shape that --shapes has for the layer. Raises InputError where there is none."""
        found = self.shapes.get(layer)
        if found is None:
            if not self.shapes:
                raise InputError(
                    f"{source.name} does not say how many weights layers have; give the network's "
                    "weights, of which the shapes alone are read: --shapes model.safetensors"
                )
            close = did_you_mean(layer, self.shapes)
            raise InputError(f"{source.name}: --shapes has no layer {layer[:60]!r}{close}")
        return found


class Reader(Protocol):
    """Reads one form of file."""

    takes: tuple[str, ...]
    """Which of `columns` and `choices` it heeds; what is given in vain is an error."""
    name: str
    """The tool: `exllamav3`."""
    description: str
    """One line: which file of it, and what Ω and size become."""

    def recognises(self, source: Source) -> bool:
        """Whether the file has this form, by its content."""
        ...

    def read(self, sources: Sequence[Source], asked: Asked) -> LayerTable:
        """The table of one file or several. Raises InputError."""
        ...


def alone(sources: Sequence[Source]) -> Source:
    """The only file; InputError for several of a tool that has all in one."""
    if len(sources) > 1:
        raise InputError(f"{sources[0].name} is a whole table; expected no further file")
    return sources[0]


def check(source: Source, form: Form) -> None:
    """Raise InputError, naming the file and the place in it, where it has another form."""
    check_at(source, form, source.document, "")


def check_at(source: Source, form: Form, value: Any, where: str) -> None:
    """The same of what stands at a place in it."""
    try:
        check_form(value, form, where)
    except ValueError as error:
        raise InputError(f"{source.name}, {error}") from None


def members_of(names: Sequence[str], asked: Asked, group: str) -> list[TableLayer]:
    """Layers of these names that share a choice, with the shapes that --shapes has."""
    shapes = [asked.shapes.get(name, ()) for name in names]
    return [
        TableLayer(
            name, group=group if len(names) > 1 else "",
            weights=math.prod(shape) if shape else 0,
            shape=shape if len(shape) <= LARGEST_SHAPE and all(shape) else (),
        )
        for name, shape in zip(names, shapes, strict=True)
    ]  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One layer at one choice."""

    place: str
    """Where it stands: `measurement.json, groups[3].candidates[0]`."""
    layer: TableLayer
    choice: Choice
    omega: float
    """Of either sign; the tools that give it count from another choice."""
    size_bytes: int
    more: Mapping[str, int | float] = field(default_factory=dict)
    """Other resources by column."""


def table_of(cells: Iterable[Cell], name: str) -> LayerTable:
    """The table of cells of the file `name`, in their order.

    Ω is counted from each layer's best choice: what differs by a constant in all choices of a layer
    has the same optimum.

    Raises InputError, naming the place, for cells that cannot be.
    """
    cells = list(cells)
    if not cells:
        raise InputError(f"{name} holds no layer")
    least: dict[str, float] = {}
    layers: dict[str, TableLayer] = {}
    for cell in cells:
        layer = cell.layer.name
        if not layer:
            raise InputError(f"{cell.place}: the layer has no name")
        if not math.isfinite(cell.omega):
            raise InputError(
                f"{cell.place}: Ω of layer {layer[:60]!r} is {cell.omega}; expected a finite number"
            )
        least[layer] = min(cell.omega, least.get(layer, math.inf))
        if layers.setdefault(layer, cell.layer) != cell.layer:
            raise InputError(f"{cell.place}: layer {layer[:60]!r} is not as in an entry before")
    rows = [
        Row(
            cell.layer.name,
            cell.choice,
            cell.omega - least[cell.layer.name],
            resources={SIZE: cell.size_bytes, **cell.more},
        )
        for cell in cells
    ]
    return LayerTable.from_rows(list(layers.values()), rows, [cell.place for cell in cells], name)


def bits_name(bits: float) -> Choice:
    """The choice of a tool that says bits of weights alone: `w4a16`, and `w4.5` of a fraction."""
    if float(bits).is_integer() and 1 <= bits <= FLOAT_BITS:
        return Choice(int(bits), FLOAT_BITS)
    return Choice.called(f"w{bits:g}", bits, FLOAT_BITS)


def called(name: str, w_bits: float, a_bits: float, place: str) -> Choice:
    """`Choice.called` of what stands at a place, which an InputError names."""
    try:
        return _known(name, w_bits, a_bits)
    except ValueError as error:
        raise InputError(f"{place} {error}") from None


_known = lru_cache(1000)(Choice.called)  # a table of 120,000 rows has a dozen

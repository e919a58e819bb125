"""The options of commands that read a layer table, of whatever tool: `reading: TableOptions`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mpsearch.commands.options import add, gathered

if TYPE_CHECKING:
    from mpsearch.tables.table import LayerTable

Function = TypeVar("Function", bound=Callable[..., Any])
NAMES = ("columns", "group", "shapes", "table-choices")  # as `--help` groups them


@dataclass(frozen=True)
class TableOptions:
    """How a table is read, as it was typed."""

    columns: str | None = None
    groups: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    choices: str | None = None

    def read(
        self, path: str | Sequence[str], search: Mapping[str, tuple[str, ...]] | None = None
    ) -> "LayerTable":
        """The table. search: what an assignment records, which counts where nothing was typed.

        Raises InputError.
        """
        from mpsearch.foreign_tables.reading import read_again

        return read_again(path, search or {}, self.columns, self.groups, self.shapes, self.choices)

    @property
    def recorded(self) -> Mapping[str, tuple[str, ...]]:
        """What files keep of it, so that a search can be repeated."""
        given = {"columns": self.columns, "table-choices": self.choices}
        found = {option: (text,) for option, text in given.items() if text is not None}
        return found | ({"group": self.groups} if self.groups else {})


_OPTIONS = (
    click.option(
        "--columns", metavar="OURS=THEIRS,…",
        help="What a CSV or TSV of any tool calls its columns: layer=name,choice=type,omega=kld, "
        "size_bytes=bytes; omega=-accuracy where larger is better.",
    ),
    click.option(
        "--group", "groups", multiple=True, metavar="PATTERN",
        help="Layers that share a choice: 'blocks.*.attn.{q,k,v}' joins what differs in braces "
        "alone. Repeatable.",
    ),
    click.option(
        "--shapes", multiple=True, metavar="FILE",
        help="Where a table has no sizes: a safetensors or GGUF file, or a folder, of which the "
        "shapes are read. Repeatable.",
    ),
    click.option(
        "--table-choices", "choices", metavar="CHOICE,…",
        help="What a table is of that does not say it (docs/foreign-tables.md).",
    ),
)  # fmt: skip


def table_options(function: Function) -> Function:
    """Add `--columns`, `--group`, `--shapes` and `--table-choices`: `reading: TableOptions`."""
    gathering: Function = gathered(function, "reading", TableOptions)
    return add(gathering, _OPTIONS)

"""The layer table: for every layer and choice its Ω and what it costs."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError, did_you_mean
from mpsearch.files.whole import digest
from mpsearch.running.notebook import html_table
from mpsearch.tables.choice import Choice
from mpsearch.tables.csv_columns import (
    Columns,
    as_column,
    indexed,
    parse_columns,
    table_text,
    write_columns,
)
from mpsearch.tables.exact import exact_sum
from mpsearch.tables.possible import check
from mpsearch.tables.tool import ForTool
from mpsearch.tables.units import format_amount

if TYPE_CHECKING:
    import pandas as pd

    import mpsearch


@dataclass(frozen=True)
class TableLayer:
    """A layer of a table."""

    name: str
    """Its qualified name, `image.conv1`."""
    kind: str = ""
    """The operator, `conv2d`; empty: not known."""
    group: str = ""
    """Layers of one non-empty group share a choice."""
    weights: int = 0
    """How many weights it has; 0: not known."""
    macs: int = 0
    """Multiply-accumulates of one sample; 0: not known."""
    shape: tuple[int, ...] = ()
    """Of its weight, output channels first: (64, 3, 3, 3); empty: not known. No part of digests."""


Layer = TableLayer  # where no network is near


@dataclass(frozen=True)
class Row:
    """One measured (layer, choice)."""

    layer: str
    """The layer's name."""
    choice: Choice
    """At which bits."""
    omega: float
    """Its Ω."""
    omega_stderr: float = 0.0
    """The standard error of Ω; 0 when it is not estimated."""
    resources: Mapping[str, int | float] = field(default_factory=dict)
    """Column -> what it costs: `size_bytes`, `bops`."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Column -> what another metric says: `omega_kl`."""


@dataclass(frozen=True, eq=False)
class LayerTable:
    """Rows by column, in file order: arrays of shape [N], e.g. N = 54 layers x 4 choices = 216."""

    layers: tuple[TableLayer, ...]
    """In file order."""
    layer_index: NDArray[np.int64]
    """Which layer each row is of, [N]."""
    choices: tuple[Choice, ...]
    """Those that some layer has, ascending."""
    choice_index: NDArray[np.int64]
    """Which choice each row is of, [N]."""
    omega: NDArray[np.float64]
    """[N], not negative."""
    omega_stderr: NDArray[np.float64]
    """The standard errors of Ω, [N]; 0 when not estimated."""
    resources: Mapping[str, NDArray[Any]]
    """Column -> int64 [N] (exact) where every value is an integer, else float64."""
    metrics: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Columns named omega_*, what other metrics say of the same cells, -> float64 [N] of either
    sign: they can be minimised, not limited, and are no part of the digest."""
    source: str = "table"
    """The file that it came from, for messages."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where its numbers come from, as profile.json has it; empty where nobody says."""
    origin: Any = None
    """In memory, what it was profiled from: (network, samples); None otherwise."""
    tool: ForTool | None = None
    """That it was fitted to; None: to none."""
    partial: bool = False
    """Whether layers may lack choices that others have; else that is an error of the search."""
    grouped_by: tuple[str, ...] = ()
    """Patterns of names that made further groups: asked as pins are, and no part of the digest."""
    base_digest: str | None = None
    """The digest without these and before it was fitted to a tool, which files name."""

    if TYPE_CHECKING:  # bound by the package
        front = mpsearch.front
        ranges = mpsearch.ranges
        solve = mpsearch.solve

    @staticmethod
    def from_rows(
        layers: Sequence[TableLayer],
        rows: Iterable[Row],
        places: Sequence[str] | None = None,
        source: str = "table",
    ) -> "LayerTable":
        """Build a table in memory; raises InputError for what `read_csv` would refuse.

        places: where row n stands, for messages; source: what the table is called there.
        """
        rows = list(rows)
        index = {layer.name: position for position, layer in enumerate(layers)}
        columns = list(dict.fromkeys(column for row in rows for column in row.resources))
        metrics = list(dict.fromkeys(column for row in rows for column in row.metrics))
        for row in rows:
            if row.layer not in index:
                raise InputError(f"{source}: a row names the unknown layer {row.layer!r}")
            for column in (*columns, *metrics):
                if column not in row.resources and column not in row.metrics:
                    raise InputError(
                        f"{source}: layer {row.layer!r} at {row.choice} lacks {column}"
                    )
        choices, choice_index = indexed([row.choice for row in rows])
        table = LayerTable(
            layers=tuple(layers),
            layer_index=np.array([index[row.layer] for row in rows], dtype=np.int64),
            choices=choices,
            choice_index=choice_index,
            omega=np.array([row.omega for row in rows], dtype=np.float64),
            omega_stderr=np.array([row.omega_stderr for row in rows], dtype=np.float64),
            resources={
                column: as_column([row.resources[column] for row in rows]) for column in columns
            },
            metrics={
                column: np.array([row.metrics[column] for row in rows], dtype=np.float64)
                for column in metrics
            },
            source=source,
        )
        check(table, places or [f"{source}: row {n + 1}" for n in range(len(rows))])
        return table

    @staticmethod
    def read_csv(path: str | os.PathLike[str]) -> "LayerTable":
        """Read `profile.csv`, and `profile.json` beside it; InputError: names file and line."""
        return LayerTable.of_csv(table_text(path), path)

    @staticmethod
    def of_csv(text: str, path: str | os.PathLike[str]) -> "LayerTable":
        """What `read_csv` makes of the file with this text."""
        from mpsearch.tables.provenance import sound_provenance

        return LayerTable.of_columns(parse_columns(text, os.fspath(path)), sound_provenance(path))

    @staticmethod
    def from_pandas(frame: "pd.DataFrame") -> "LayerTable":
        """A table of a DataFrame with the columns of the CSV file, as `to_pandas` gives it.

        Raises InputError for what `read_csv` would refuse, naming the line of the CSV file.
        """
        return LayerTable.of_columns(parse_columns(frame.to_csv(index=False), "the DataFrame"), {})

    @staticmethod
    def of_columns(read: Columns, provenance: Mapping[str, Any]) -> "LayerTable":
        """A table of what its file says. Raises InputError for numbers that cannot be."""
        table = LayerTable(
            layers=tuple(TableLayer(*cells) for cells in read.layers),
            layer_index=read.layer_index,
            choices=read.choices,
            choice_index=read.choice_index,
            omega=read.omega,
            omega_stderr=read.omega_stderr,
            resources=read.resources,
            metrics=read.metrics,
            source=read.source,
            provenance=provenance,
            partial=read.named,
        )
        check(table, read.places)
        return table

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table in one step; reading it back gives identical numbers."""
        write_columns(self._columns(), path)

    def _columns(self) -> dict[str, list[Any]]:
        """Column name -> cells, as the CSV file has them, in the documented order."""
        layers = [self.layers[position] for position in self.layer_index]
        gaps = self.partial and bool((self.row_index < 0).any())
        plain = not gaps and not any(one.group_size or one.label for one in self.choices)
        shapes = ["x".join(map(str, layer.shape)) for layer in layers]
        bits = {"w_bits": self.w_bits.tolist(), "a_bits": self.a_bits.tolist()}
        return {
            "layer": [layer.name for layer in layers],
            "kind": [layer.kind for layer in layers],
            "group": [layer.group for layer in layers],
            "weights": [layer.weights for layer in layers],
            "macs": [layer.macs for layer in layers],
            **({"shape": shapes} if any(shapes) else {}),
            **({} if plain else {"choice": [str(self.choices[n]) for n in self.choice_index]}),
            **(bits if plain else {key: [n or "" for n in one] for key, one in bits.items()}),
            "omega": self.omega.tolist(),
            "omega_stderr": self.omega_stderr.tolist(),
            **{name: values.tolist() for name, values in self.metrics.items()},
            **{name: values.tolist() for name, values in self.resources.items()},
        }

    def to_pandas(self) -> "pd.DataFrame":
        """The table as a DataFrame with the columns of the CSV file."""
        import pandas as pd

        return pd.DataFrame(self._columns())

    def __len__(self) -> int:
        return len(self.omega)

    def __repr__(self) -> str:
        return f"LayerTable({'; '.join(self._lines())})"

    def _lines(self) -> list[str]:
        """What it is of, between which sizes assignments are, and where its numbers come from."""
        lines = [f"{len(self.layers)} layers at {', '.join(map(str, self.choices))}"]
        if self.size_column in self.resources:
            values = self.resources[self.size_column].astype(np.float64)
            least, most = np.full(len(self.layers), np.inf), np.zeros(len(self.layers))
            np.minimum.at(least, self.layer_index, values)
            np.maximum.at(most, self.layer_index, values)
            ends = (format_amount(self.size_column, each.sum()) for each in (least, most))
            lines.append(f"size {' to '.join(ends)}")
        if {"metric", "samples", "data"} <= self.provenance.keys():
            lines.append("{metric} on {samples} samples of {data}".format_map(self.provenance))
        return lines

    def _repr_html_(self) -> str:
        """For notebooks: Ω of every layer at every choice."""
        rows = []
        for layer, found in zip(self.layers, self.row_index.tolist(), strict=True):
            omegas = ["" if row < 0 else f"{self.omega[row]:.3g}" for row in found]
            rows.append([layer.name, layer.kind, f"{layer.weights:,}", *omegas])
        columns = ["layer", "kind", "weights", *(f"Ω {choice}" for choice in self.choices)]
        return html_table(self._lines(), columns, rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """The resource columns, in file order."""
        return tuple(self.resources)

    @property
    def size_column(self) -> str:
        """What `--size` limits: size_bytes, or the tool's own bytes."""
        return "size_bytes" if self.tool is None else self.tool.column

    @property
    def recorded(self) -> dict[str, tuple[str, ...]]:
        """What files keep of it beside pins and excludes: `{"for": ("torchao",)}`."""
        return {} if self.tool is None else {"for": (self.tool.name,)}

    @cached_property
    def layer_names(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers)

    @cached_property
    def layer_weights(self) -> dict[str, int]:
        """Layer -> how many weights it has, where that is known."""
        return {layer.name: layer.weights for layer in self.layers if layer.weights}

    @cached_property
    def w_bits(self) -> NDArray[Any]:
        """[N] bits of the weights, int64 where all are whole; 0: not said."""
        return as_column([choice.w_bits for choice in self.choices])[self.choice_index]

    @cached_property
    def a_bits(self) -> NDArray[Any]:
        """[N] bits of the input activations, as those of the weights."""
        return as_column([choice.a_bits for choice in self.choices])[self.choice_index]

    @cached_property
    def row_index(self) -> NDArray[np.int64]:
        """[L, C] -> row number, -1 where the layer lacks the choice."""
        index = np.full((len(self.layers), len(self.choices)), -1, dtype=np.int64)
        index[self.layer_index, self.choice_index] = np.arange(len(self))
        return index

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content; the order of the rows does not matter, that of layers does."""
        if self.base_digest is not None:
            return self.base_digest
        order = np.lexsort((self.choice_index, self.layer_index))
        arrays = {
            "layer": self.layer_index,
            "w_bits": self.w_bits,
            "a_bits": self.a_bits,
            "omega": self.omega,
            "omega_stderr": self.omega_stderr,
            **self.resources,
        }
        parts: list[bytes | str] = [_digested(layer) for layer in self.layers]
        if any(choice.group_size or choice.label for choice in self.choices):
            parts += map(str, self.choices)
            arrays["choice"] = self.choice_index
        for name, values in arrays.items():
            parts += [name, np.ascontiguousarray(values[order]).tobytes()]
        return digest(*parts)

    def rows(self) -> Iterator[Row]:
        """The rows in file order."""
        columns = {name: values.tolist() for name, values in self.resources.items()}
        metrics = {name: values.tolist() for name, values in self.metrics.items()}
        for n in range(len(self)):
            yield Row(
                layer=self.layers[self.layer_index[n]].name,
                choice=self.choices[self.choice_index[n]],
                omega=float(self.omega[n]),
                omega_stderr=float(self.omega_stderr[n]),
                resources={name: values[n] for name, values in columns.items()},
                metrics={name: values[n] for name, values in metrics.items()},
            )

    def column(self, name: str) -> NDArray[Any]:
        """`omega`, a metric or a resource; an unknown one is an InputError listing the known."""
        if name == "omega":
            return self.omega
        if name in self.metrics:
            return self.metrics[name]
        return self.resource(name)

    def resource(self, name: str) -> NDArray[Any]:
        """A column that has totals and can be limited; InputError for a metric and an unknown."""
        if name in self.resources:
            return self.resources[name]
        if name in self.metrics:
            raise InputError(
                f"{name} is a metric, which is minimised (--minimize {name}) and not limited; "
                f"expected a resource: {', '.join(self.resources)}"
            )
        known = ", ".join((*self.resources, *self.metrics)) or "none"
        raise InputError(
            f"{self.source} has no resource column {name!r}{did_you_mean(name, self.resources)}; "
            f"its columns: {known}"
        )

    def choices_of(self, layer: str) -> tuple[Choice, ...]:
        """What the table has for a layer, ascending; InputError for an unknown layer."""
        if layer not in self._layer_position:
            close = did_you_mean(layer, self.layer_names)
            raise InputError(f"{self.source} has no layer {layer!r}{close}")
        rows = self.row_index[self._layer_position[layer]].tolist()
        return tuple(choice for choice, row in zip(self.choices, rows, strict=True) if row >= 0)

    def row_of(self, layer: str, choice: Choice) -> int:
        """The row number of a layer at a choice; InputError where there is none."""
        there = self.choices_of(layer)
        if choice not in there:
            has = ", ".join(map(str, there))
            no = f"has no choice {choice}{f' for {self.tool.name}' if self.tool else ''}"
            raise InputError(f"{self.source}: layer {layer!r} {no}; it has {has}")
        column = self.choices.index(choice)
        return int(self.row_index[self._layer_position[layer], column])

    def total(self, assignment: Mapping[str, Choice], column: str) -> int | float:
        """The exact total of a column; a float column's exact decimal sum, rounded once.

        Every layer of the table must be assigned; layers that the table lacks are an InputError.
        """
        missing = [name for name in self.layer_names if name not in assignment]
        if missing:
            raise InputError(f"the assignment has no choice for layer {missing[0]!r}")
        values = self.column(column)
        chosen = [self.row_of(layer, choice) for layer, choice in assignment.items()]
        return exact_sum(values[np.array(chosen, dtype=np.int64)].tolist())

    def uniform_total(self, column: str, choice: Choice) -> int | float:
        """What the whole network takes with one choice everywhere."""
        return self.total(dict.fromkeys(self.layer_names, choice), column)

    @cached_property
    def _layer_position(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.layer_names)}


def _digested(layer: TableLayer) -> str:
    """A layer as digests have had it from the first release on, whatever its class is called."""
    fields = (f"{name}={value!r}" for name, value in vars(layer).items() if name != "shape")
    return f"Layer({', '.join(fields)})"

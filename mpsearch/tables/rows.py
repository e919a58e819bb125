"""What a layer table is made of: layers, measured rows, and which tool it was fitted to."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mpsearch.tables.choice import Choice


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


@dataclass(frozen=True)
class ForTool:
    """Which tool a table was fitted to: `--for torchao`."""

    name: str
    """The tool."""
    column: str
    """Its own bytes, which `--size` limits: `torchao_bytes`."""
    limits: Mapping[str, int]
    """Resource column -> the most that it holds, whatever is asked."""
    refused: Mapping[str, frozenset[Choice]]
    """Layer -> the choices that the tool does not take there: no rows are missed."""
    digest: str
    """Of the table as it was, with all choices and without the tool's columns."""

"""An assignment written as the file of another tool."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from mpsearch.errors import InputError
from mpsearch.files.whole import write_atomic
from mpsearch.recipes.fitted import with_shapes
from mpsearch.recipes.target import Recipe, Target, bytes_column, find_target
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import is_of_another, not_its_table
from mpsearch.tables.table import LayerTable, TableLayer

SHOWN = 3  # layers that a message names


@dataclass(frozen=True)
class RecipeFile:
    """What was written for a tool."""

    tool: str
    """Its name: `torchao`."""
    content: bytes
    """The file."""
    layers: Mapping[str, Choice]
    """What each layer gets there."""
    totals: Mapping[str, int]
    """Column of the tool -> what all layers take, `{"torchao_bytes": 41280}`."""
    path: str = ""
    """Where it was written; empty: nowhere."""


def write_recipe(
    assignment: Assignment,
    tool: str | None = None,
    table: LayerTable | None = None,
    model: str | None = None,
    output: str | os.PathLike[str] | None = None,
) -> RecipeFile:
    """The assignment as the file of a tool, written to `output` where that is given.

    tool: by default the one that it was searched for. table: the one that it was chosen from, which
    knows shapes. Raises InputError for an unknown tool, another table, and for layers that the tool
    does not take at their choice.
    """
    name = tool or next(iter(assignment.search.get("for", ())), None)
    if name is None:
        raise InputError(
            "the assignment was searched for no tool in particular; name one with --for "
            '(recipe(…, "torchao")): `mpsearch recipes` lists them'
        )
    target = find_target(name)
    layers = _layers_of(assignment, table)
    _check(
        layers,
        target,
        "no table beside the assignment is the one that it was searched in; name it: --profile FILE"
        if table is None
        else f"search what it takes with `mpsearch solve --for {name}`",
    )
    totals: dict[str, int] = {}
    for layer, choice in layers.values():
        for column, value in target.costs(layer, choice).items():
            totals[column] = totals.get(column, 0) + value
    rest = target.overhead({key: layer for key, (layer, _) in layers.items()})
    totals[bytes_column(name)] += rest
    content = target.write(Recipe(layers, model))
    if output is not None:
        write_atomic(output, content)
    path = "" if output is None else os.fspath(output)
    return RecipeFile(name, content, dict(assignment.layers), totals, path)


def _layers_of(
    assignment: Assignment, table: LayerTable | None
) -> dict[str, tuple[TableLayer, Choice]]:
    """In network order, as the table has them."""
    if table is None:
        return {
            name: (TableLayer(name, weights=assignment.weights.get(name, 0)), choice)
            for name, choice in assignment.layers.items()
        }
    if is_of_another(assignment, table):
        raise InputError(not_its_table(assignment, table))
    known = {layer.name: layer for layer in with_shapes(table)}
    if known.keys() != assignment.layers.keys():
        odd = sorted(known.keys() ^ assignment.layers.keys())
        raise InputError(f"{table.source} and the assignment differ in layer {odd[0]!r}")
    return {name: (layer, assignment.layers[name]) for name, layer in known.items()}


def _check(layers: Mapping[str, tuple[TableLayer, Choice]], target: Target, advice: str) -> None:
    """Raise InputError for what the target does not take, each reason once."""
    wrong: dict[str, list[str]] = {}
    for name, (layer, choice) in layers.items():
        if why := target.refused(layer, choice):
            wrong.setdefault(why, []).append(f"{name!r} at {choice}")
    if not wrong:
        return
    said = "; ".join(f"layer {_few(those)}: {why}" for why, those in [*wrong.items()][:SHOWN])
    more = f"; and {len(wrong) - SHOWN} more reasons" if len(wrong) > SHOWN else ""
    raise InputError(f"{target.name} does not take {said}{more}", advice)


def _few(those: list[str]) -> str:
    """`'up' at w2a2, 'down' at w2a2 and 4 more`."""
    more = f" and {len(those) - SHOWN} more" if len(those) > SHOWN else ""
    return ", ".join(those[:SHOWN]) + more

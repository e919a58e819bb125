"""A table fitted to a tool: the choices that it takes, in its own bytes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mpsearch.errors import InputError
from mpsearch.recipes.target import Target, bytes_column, find_target
from mpsearch.tables.choice import Choice
from mpsearch.tables.csv_columns import indexed
from mpsearch.tables.table import LayerTable, TableLayer
from mpsearch.tables.tool import ForTool

SHOWN = 3  # reasons that a message names


def for_tool(table: LayerTable, name: str | None) -> LayerTable:
    """The table fitted to the tool that `--for` names; as it is for None.

    Raises InputError for an unknown name, and as `for_target`.
    """
    return table if name is None else for_target(table, find_target(name))


def as_searched(table: LayerTable, search: Mapping[str, Sequence[str]]) -> LayerTable:
    """The table as it was searched in, by what an assignment or a front records of the search."""
    return for_tool(table, next(iter(search.get("for", ())), None))


def for_target(table: LayerTable, target: Target) -> LayerTable:
    """The rows that the target takes, with its columns; `--size` limits its bytes from then on.

    Bytes of its file that no choice changes stand in every row of the first layer, so that totals
    are those of the file. Raises InputError for a layer or a group of which it takes no choice.
    """
    layers = {layer.name: layer for layer in with_shapes(table)}
    whys = {
        (name, choice): why
        for name, layer in layers.items() for choice in table.choices_of(name)
        if (why := target.refused(layer, choice))
    }  # fmt: skip
    _check(table, target.name, whys)
    kept, costs = [], []
    rest = target.overhead(layers)
    pairs = zip(table.layer_index.tolist(), table.choice_index.tolist(), strict=True)
    for row, (position, number) in enumerate(pairs):
        layer, choice = layers[table.layers[position].name], table.choices[number]
        if (layer.name, choice) in whys:
            continue
        kept.append(row)
        found = dict(target.costs(layer, choice))
        if position == 0:
            found[bytes_column(target.name)] += rest
        costs.append(found)
    choices, choice_index = indexed([table.choices[n] for n in table.choice_index[kept].tolist()])
    own = (
        {column: np.array([one[column] for one in costs], np.int64) for column in costs[0]}
        if costs
        else {}
    )
    return replace(
        table,
        layers=tuple(layers.values()),
        layer_index=table.layer_index[kept],
        choices=choices,
        choice_index=choice_index,
        omega=table.omega[kept],
        omega_stderr=table.omega_stderr[kept],
        resources={name: values[kept] for name, values in table.resources.items()} | own,
        metrics={name: values[kept] for name, values in table.metrics.items()},
        partial=True,
        tool=ForTool(
            target.name,
            bytes_column(target.name),
            dict(target.limits),
            _left_out(table, target, whys),
        ),
        base_digest=table.digest,
    )


def with_shapes(table: LayerTable) -> tuple[TableLayer, ...]:
    """The layers, with the shapes of the profile's provenance where the table has none.

    Raises InputError for a shape of another number of weights.
    """
    shapes = table.provenance.get("shapes") or {}
    layers = []
    for layer in table.layers:
        shape = layer.shape or tuple(shapes.get(layer.name, ()))
        if shape and layer.weights and math.prod(shape) != layer.weights:
            raise InputError(
                f"{table.source}: the weight of layer {layer.name!r} has the shape "
                f"{'x'.join(map(str, shape))} and {layer.weights} weights; expected as many"
            )
        layers.append(replace(layer, shape=shape))
    return tuple(layers)


def reasons(whys: Iterable[tuple[Choice, str]]) -> str:
    """`w2a8, w3a8: no such bits; w4a8: …`, few of them."""
    by_reason: dict[str, list[str]] = {}
    for choice, why in whys:
        by_reason.setdefault(why, []).append(str(choice))
    words = [f"{', '.join(names)}: {why}" for why, names in by_reason.items()]
    more = f"; and {len(words) - SHOWN} more reasons" if len(words) > SHOWN else ""
    return "; ".join(words[:SHOWN]) + more


def _left_out(
    table: LayerTable, target: Target, whys: Mapping[tuple[str, Choice], str]
) -> tuple[str, ...]:
    """`llama.cpp does not take Q2_K, Q4_K in 2 layers (a, b): rows of 2112 are …`, for a few
    reasons; of what it takes nowhere nothing is said."""
    taken = {
        table.choices[number]
        for position, number in zip(table.layer_index, table.choice_index, strict=True)
        if (table.layers[position].name, table.choices[number]) not in whys
    }
    by_reason: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for (layer, choice), why in whys.items():
        if choice in taken:
            choices, layers = by_reason.setdefault(why, ({}, {}))
            choices[str(choice)] = layers[layer] = None
    notes = []
    for why, (choices, layers) in [*by_reason.items()][:SHOWN]:
        named = ", ".join([*[*layers][:SHOWN], *(["…"] if len(layers) > SHOWN else [])])
        where = f"{len(layers)} {'layer' if len(layers) == 1 else 'layers'} ({named})"
        notes.append(f"{target.name} does not take {', '.join(choices)} in {where}: {why}")
    return tuple(notes)


def _check(table: LayerTable, name: str, refused: Mapping[tuple[str, Choice], str]) -> None:
    """Raise InputError for layers and groups that have no choice left: why of the first, names of
    the others."""
    decisions: dict[tuple[str, str], list[str]] = {}
    for layer in table.layers:
        key = ("group", layer.group) if layer.group else ("layer", layer.name)
        decisions.setdefault(key, []).append(layer.name)
    stuck: list[tuple[str, str]] = []
    for (noun, called), members in decisions.items():
        common = set.intersection(*(set(table.choices_of(layer)) for layer in members))
        whys = {
            choice: refused[layer, choice]
            for choice in sorted(common) for layer in members if (layer, choice) in refused
        }  # fmt: skip
        if common and len(whys) == len(common):
            stuck.append((f"{noun} {called!r}", reasons(whys.items())))
    if not stuck:
        return
    (first, why), *others = stuck
    advice = "`mpsearch recipes` lists what each tool takes; leave the layer out of the table, or "
    if others:
        names = ", ".join(
            [*(what for what, _ in others[:SHOWN]), *(["…"] if len(others) > SHOWN else [])]
        )
        advice = f"nor of {len(others)} more: {names}; leave these out of the table, or "
    raise InputError(
        f"{table.source}: {name} takes no choice of {first}: {why}", f"{advice}add a choice"
    )

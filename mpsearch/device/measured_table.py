"""A layer table with what every layer takes at every choice on a device."""

from collections.abc import Iterable, Mapping, Sequence

from mpsearch.errors import InputError
from mpsearch.tables.choice import Choice
from mpsearch.tables.stored_widths import in_integers
from mpsearch.tables.table import LayerTable, Row

LATENCY, ENERGY, INSTRUCTIONS = "latency_s", "energy_j", "instructions"


def uniform_assignments(table: LayerTable) -> dict[Choice, dict[str, Choice]]:
    """One assignment for every choice of the table: a layer that lacks it has its largest one.

    Measuring these gives every row of the table once or more. Raises InputError for a choice that
    has no integer form.
    """
    has: dict[str, list[Choice]] = {name: [] for name in table.layer_names}
    for row in table.rows():
        has[row.layer].append(row.choice)
    for choice in table.choices:
        if choice.label:
            raise InputError(
                f"{table.source} has {choice}, a format of another tool, which is not exported; "
                "give the table that `mpsearch profile` wrote"
            )
        if not in_integers(choice):
            raise InputError(
                f"{table.source} has the choice {choice}, which is not exported as integers; "
                "profile again with --bits of at most 16 and without groups"
            )
    return {
        choice: {
            name: choice if choice in choices else max(choices) for name, choices in has.items()
        }
        for choice in table.choices
    }


def check_layers(table: LayerTable, known: set[str]) -> None:
    """Raise InputError for layers that a table and a network with the layers `known` do not
    share."""
    unknown = [name for name in table.layer_names if name not in known]
    missing = sorted(known - set(table.layer_names))
    if unknown or missing:
        raise InputError(
            f"{table.source} and the model differ in layer {(unknown or missing)[0]!r}; give the "
            "table that `mpsearch profile` wrote for this model"
        )


def by_layer(steps: Sequence[str], values: Iterable[float]) -> dict[str, float]:
    """The sum over the steps that count for each layer (`steps`: a layer for each). Their sum over
    all layers is what the whole network takes."""
    totals: dict[str, float] = {}
    for layer, value in zip(steps, values, strict=True):
        totals[layer] = totals.get(layer, 0) + value
    return totals


def column_of(
    table: LayerTable, values: Mapping[str, Mapping[str, float]]
) -> dict[tuple[str, Choice], float]:
    """Uniform network's choice -> layer -> value, as a column of the table."""
    return {
        (row.layer, row.choice): values[str(row.choice)].get(row.layer, 0) for row in table.rows()
    }


def by_time(joules: float, seconds: Mapping[str, float]) -> dict[str, float]:
    """What one inference of a whole network takes, shared out to its layers by their seconds:
    6 J and {a: 1, b: 2} -> {a: 2, b: 4}. A processor's power hardly depends on the layer."""
    total = sum(seconds.values())
    return {layer: joules * its / total for layer, its in seconds.items()}


def with_columns(
    table: LayerTable, measured: Mapping[str, Mapping[tuple[str, Choice], float]]
) -> LayerTable:
    """The table with the columns of `measured` (column -> (layer, choice) -> value) at its end, in
    place of older ones of these names."""
    rows = [
        Row(
            row.layer,
            row.choice,
            row.omega,
            row.omega_stderr,
            {name: value for name, value in row.resources.items() if name not in measured}
            | {column: values[row.layer, row.choice] for column, values in measured.items()},
            row.metrics,
        )
        for row in table.rows()
    ]
    return LayerTable.from_rows(table.layers, rows)

"""`mpsearch table`."""

import json
from typing import TYPE_CHECKING, Any

import click

from mpsearch.commands.console import echo, echo_next, json_option, print_json, print_table
from mpsearch.commands.table_options import TableOptions, table_options

if TYPE_CHECKING:
    from mpsearch.tables.table import LayerTable

SHOWN = 40  # layers, of a table that may have ten thousand


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@table_options
@click.option("-o", "--output", metavar="FILE.csv", help="Write it as a layer table.")
@json_option
def table(files: tuple[str, ...], output: str | None, as_json: bool, reading: TableOptions) -> None:
    """Read a table of another tool, show it, and write it as a layer table.

    What the file is tells its content (`mpsearch tables` lists what is read). Several files are
    those of a tool that writes one for each format. Ω is counted from each layer's best choice
    where the tool counts from another one; no answer changes by it. The groups of --group are
    written as the file's own.

    \b
    Examples:
      mpsearch table profile.csv
      mpsearch table profile.csv --group '{fc,fc1}' -o grouped.csv
    """
    found = reading.read(files)
    if output is not None:
        _write(found, output)
    if as_json:
        print_json(_document(found))
        return
    _print(found)
    if output is not None:
        echo(f"wrote {output}")
        echo_next(f"mpsearch solve {output} --limit-ranges")


def _write(found: "LayerTable", output: str) -> None:
    """The table, and beside it where its numbers come from."""
    from mpsearch.files.whole import write_atomic
    from mpsearch.tables.provenance import FORMAT, VERSION, provenance_path

    found.write_csv(output)
    known: dict[str, Any] = {"format": FORMAT, "version": VERSION, "source": found.source}
    write_atomic(
        provenance_path(output), json.dumps({**known, **found.provenance}, indent=2) + "\n"
    )


def _document(found: "LayerTable") -> dict[str, Any]:
    return {
        "read_as": found.provenance.get("read_as", "layer table"),
        "layers": [
            {
                "layer": layer.name, "group": layer.group, "weights": layer.weights,
                "shape": list(layer.shape),
            }
            for layer in found.layers
        ],
        "rows": [
            {"layer": row.layer, "choice": str(row.choice), "omega": row.omega, **row.resources}
            for row in found.rows()
        ],
    }  # fmt: skip


def _print(found: "LayerTable") -> None:
    """Ω of each layer at each choice, and what the whole network takes."""
    from mpsearch.tables.units import format_amount

    rows = []
    for layer, places in zip(found.layers[:SHOWN], found.row_index.tolist(), strict=False):
        omegas = ["" if row < 0 else f"{found.omega[row]:.4g}" for row in places]
        rows.append(
            [layer.name, layer.group, f"{layer.weights:,}" if layer.weights else "", *omegas]
        )
    print_table(
        ["layer", "group", "weights", *(f"Ω {choice}" for choice in found.choices)], rows,
        least=["weights", "group"],
    )  # fmt: skip
    named = found.provenance.get("read_as", "layer table")
    count = len(found.layers)
    more = f", {SHOWN} of them shown" if count > SHOWN else ""
    echo(f"{found.source}: {named}, {count} layers{more}, {len(found.choices)} choices")
    groups = {layer.group for layer in found.layers if layer.group}
    if groups:
        echo(f"groups that share a choice: {len(groups)}")
    for column in found.columns:
        least, most = _range(found, column)
        echo(f"{column}: {format_amount(column, least)} to {format_amount(column, most)}")


def _range(found: "LayerTable", column: str) -> tuple[float, float]:
    """The least and the most that the layers can take, each for itself."""
    import numpy as np

    values = found.resources[column].astype(np.float64)
    least, most = np.full(len(found.layers), np.inf), np.zeros(len(found.layers))
    np.minimum.at(least, found.layer_index, values)
    np.maximum.at(most, found.layer_index, values)
    return float(least.sum()), float(most.sum())

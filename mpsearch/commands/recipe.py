"""`mpsearch recipe`."""

import os
from pathlib import Path

import click

from mpsearch.commands.console import echo, json_option, print_json
from mpsearch.commands.table_options import TableOptions, table_options
from mpsearch.recipes.writing import RecipeFile, write_recipe
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import counted
from mpsearch.tables.provenance import table_of
from mpsearch.tables.units import format_amount


@click.command()
@click.argument("assignment_path", metavar="[ASSIGNMENT.JSON]", default="assignment.json")
@click.option(
    "--for", "tool", metavar="NAME",
    help="The tool [default: what `solve --for` searched for].",
)  # fmt: skip
@click.option(
    "--profile", metavar="FILE",
    help="The table that it was searched in, which knows shapes [default: the one beside it].",
)  # fmt: skip
@click.option("--model", metavar="FILE", help="The model's file, for tools that write from it.")
@table_options
@click.option("-o", "--output", metavar="FILE", required=True, help="What to write.")
@json_option
def recipe(
    assignment_path: str,
    tool: str | None,
    profile: str | None,
    model: str | None,
    output: str,
    as_json: bool,
    reading: TableOptions,
) -> int:
    """Write ASSIGNMENT.JSON as the configuration file of another tool.

    What the tool lacks is refused, by layer: search for the tool with `mpsearch solve --for NAME`,
    which leaves it out and limits the tool's own bytes.

    \b
    Examples:
      mpsearch recipe modelopt.json -o modelopt.yaml
      mpsearch recipe modelopt.json --for modelopt -o modelopt.yaml --json
    """
    assignment = Assignment.load(assignment_path)
    usual = os.path.join(os.path.dirname(assignment_path), "profile.csv")
    path = Path(profile) if profile is not None else table_of(assignment, usual)
    table = None if path is None else reading.read(str(path), assignment.search)
    written = write_recipe(assignment, tool, table, model, output)
    if as_json:
        print_json(_document(written))
        return 0
    echo(f"{written.tool}: {len(written.layers)} layers: {counted(written.layers.values())}")
    for column, total in written.totals.items():
        echo(f"{column} {format_amount(column, total)}")
    echo(f"wrote {written.path}")
    return 0


def _document(written: RecipeFile) -> dict[str, object]:
    return {
        "for": written.tool,
        "output": written.path,
        "totals": dict(written.totals),
        "layers": {name: str(choice) for name, choice in written.layers.items()},
    }

"""`mpsearch diff`."""

import click

from mpsearch.commands.console import echo, json_option, print_json, print_table
from mpsearch.comparing.diffing import diff as diff_of
from mpsearch.comparing.words import (
    LISTED,
    TOTAL_COLUMNS,
    conclusion,
    layer_table,
    markdown,
    total_rows,
)
from mpsearch.errors import InputError


@click.command()
@click.argument("before", metavar="FILE|FOLDER")
@click.argument("after", metavar="FILE|FOLDER")
@click.option("--all", "everything", is_flag=True, help="All layers, not the 20 that change most.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print a comment for a pull request.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 where anything differs.")
@json_option
def diff(
    before: str, after: str, everything: bool, as_markdown: bool, exit_code: bool, as_json: bool
) -> int:
    """What changed from one network to another: layers, bits, size, BOPS, Ω and accuracy.

    Each side is a profile.csv, an assignment.json, a baseline of `mpsearch gate`, a model file
    (quantized or float) or a run's folder. Beside an assignment its profile.csv and evaluation.json
    count too; accuracies are compared where both were measured on the same samples. Exit code 0,
    whatever differs.

    \b
    Example:
      mpsearch diff main.json half.json
      mpsearch diff model-run half-run --markdown
      mpsearch diff plain.pt quantized.pt --json
    """
    if as_json and as_markdown:
        raise InputError("got --json and --markdown; expected one of them")
    found = diff_of(before, after)
    code = int(exit_code and not found.same)
    if as_json:
        print_json(found.to_document())
        return code
    if as_markdown:
        echo(*markdown(found).splitlines(), whole=True)
        return code
    columns, rows, left = layer_table(found, None if everything else LISTED)
    if rows:
        print_table(columns, rows)
    if left:
        echo(f"and {left:,} more layers (--all)")
    totals = total_rows(found)
    if totals:
        print_table(TOTAL_COLUMNS, totals)
    for note in found.notes:
        echo(f"note: {note}")
    echo(conclusion(found))
    return code

"""`mpsearch allocate`."""

from dataclasses import replace

import click

from mpsearch.commands.console import echo, json_option, print_json, print_table
from mpsearch.commands.grouping import Grouped
from mpsearch.commands.options import SearchOptions, search_options, tool_option
from mpsearch.commands.solution_text import (
    idle_lines,
    print_failure,
    print_totals,
    title_of,
    to_document,
    verdict,
)
from mpsearch.commands.table_options import NAMES, TableOptions, table_options
from mpsearch.errors import InputError
from mpsearch.recipes.fitted import for_tool
from mpsearch.search.solving import solve
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import model_digest_of, unpriced_activations
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable
from mpsearch.tables.tool import tool_notes
from mpsearch.tables.units import format_amount

GROUPS = {
    "Limits": ("max-size", "max-bops", "limit", "at-least"),
    "Layers": ("pin", "exclude", "allow"),
    "Reading the table": NAMES,
    "Output": ("for", "model", "output", "time-limit", "json", "help"),
}


@click.command(cls=Grouped, groups=GROUPS)
@click.argument("table_path", metavar="TABLE")
@search_options
@table_options
@tool_option
@click.option("--model", metavar="FILE", help="The model's file, for tools that write from it.")
@click.option("--time-limit", type=float, metavar="SECONDS", help="Then the best found, with gap.")
@click.option("-o", "--output", metavar="FILE", help="[default: assignment.json without --for]")
@json_option
def allocate(
    table_path: str,
    within: SearchOptions,
    reading: TableOptions,
    tool: str | None,
    model: str | None,
    time_limit: float | None,
    output: str | None,
    as_json: bool,
) -> int:
    """Foreign table -> proven bits -> another tool's own configuration file.

    TABLE is what a tool measured of each layer at each of its formats, recognised by its content
    (`mpsearch tables`). With --for the choices are those that this tool takes, --size limits its
    own bytes, and its file is written (`mpsearch recipes`); without it assignment.json. Exit code 1
    if nothing is within the limits; what would help is printed then.

    \b
    Examples:
      mpsearch allocate profile.csv --size 50% -o half.json
      mpsearch allocate profile.csv --for modelopt -o modelopt.yaml
      mpsearch allocate kld.csv --size 19MB --for llama.cpp -o types.txt
    """
    if output is None and tool is not None:
        raise InputError(f"got --for {tool} without a file for it; name one with -o FILE")
    table = for_tool(reading.read(table_path), tool)
    budget = within.budget(table)
    pins, exclude = within.pinned(table), within.excluded(table)
    solution = solve(table, budget, pins=pins, exclude=exclude, time_limit=time_limit)
    paid = (*budget.limits, *budget.at_least)
    unpriced = unpriced_activations(table, table.provenance, paid)
    notes = (*solution.notes, *tool_notes(table.tool), *unpriced)
    solution = replace(solution, table=table, notes=notes)
    if solution.status == "infeasible":
        from mpsearch.search.remedies import Question, remedies

        found = remedies(Question(table, budget, within.typed), solution.smallest)
        solution = replace(solution, remedies=found.found, no_bits_fit=found.nothing)
    path = ""
    if solution.choices:
        from mpsearch.python.allocating import written

        recorded = {**table.recorded, **within.recorded, **reading.recorded}
        assignment = Assignment.from_solution(
            solution, table.digest, recorded, model_digest_of(table.provenance)
        )
        path = written(assignment, solution, tool, model, output or "assignment.json").path
    if as_json:
        print_json(to_document(solution, table) | {"for": tool, "output": path or None})
        return 0 if path else 1
    for note in solution.notes:
        echo(f"note: {note}", err=True)
    if not path:
        print_failure(solution)
        return 1
    _print_counts(table, solution)
    print_totals(solution)
    echo(f"Ω total {solution.objective:.6g}: {verdict(solution)}", *idle_lines(table, solution))
    echo(f"wrote {path}")
    return 0


def _print_counts(table: LayerTable, solution: Solution) -> None:
    """How many layers have each choice, and what these take."""
    column = table.size_column
    known = column in table.resources
    layers: dict[Choice, int] = {}
    omega: dict[Choice, float] = {}
    taken: dict[Choice, float] = {}
    for name, choice in solution.choices.items():
        row = table.row_of(name, choice)
        layers[choice] = layers.get(choice, 0) + 1
        omega[choice] = omega.get(choice, 0.0) + float(table.omega[row])
        if known:
            taken[choice] = taken.get(choice, 0) + table.resources[column][row].item()
    whole = sum(taken.values())
    rows = []
    for choice in sorted(layers):
        cells = [str(choice), str(layers[choice]), f"{omega[choice]:.4g}"]
        if known:
            share = f"{100 * taken[choice] / whole:.1f} %" if whole else ""
            cells += [format_amount(column, taken[choice]), share]
        rows.append(cells)
    size = [title_of(column), f"of {title_of(column)}"] if known else []
    print_table(["choice", "layers", "Ω", *size], rows)

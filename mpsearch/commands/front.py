"""`mpsearch front`."""

from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from mpsearch.commands.console import echo, json_option, print_json, print_table
from mpsearch.commands.options import SearchOptions, search_options, tool_option
from mpsearch.commands.renamed import Renamed
from mpsearch.commands.solution_text import front_lines
from mpsearch.commands.table_options import TableOptions, table_options
from mpsearch.errors import InputError
from mpsearch.pareto.files import keep_measured, to_document, write_csv, write_json
from mpsearch.pareto.front import Front
from mpsearch.pareto.front import front as front_of
from mpsearch.recipes.fitted import for_tool
from mpsearch.tables.provenance import model_digest_of
from mpsearch.tables.units import format_amount, parse_bytes


@click.command()
@click.argument("table_path", metavar="[PROFILE.CSV]", default="profile.csv")
@click.option("--resource", metavar="COLUMN", help="Against Ω [default: size_bytes, or --for's].")
@search_options
@tool_option
@click.option("--points", default=20, show_default=True, help="Print at most this many points.")
@click.option(
    "--memory", cls=Renamed, old=["--max-memory"], metavar="SIZE",
    help="Keep as many states as fit; default 1GB, with further limits 60,000 states at most.",
)  # fmt: skip
@click.option(
    "--epsilon", type=float, metavar="X",
    help="Only points for a factor 1+X of the best Ω at every size; from 1,000 layers on 0.01.",
)  # fmt: skip
@click.option("-o", "--output", metavar="FILE.csv", help="Save all points, and FILE.json beside.")
@click.option("--plot", metavar="FILE", help="Draw the front: FILE.png, FILE.svg or FILE.pdf.")
@table_options
@json_option
def front(
    table_path: str,
    resource: str | None,
    within: SearchOptions,
    tool: str | None,
    points: int,
    memory: str | None,
    epsilon: float | None,
    output: str | None,
    plot: str | None,
    as_json: bool,
    reading: TableOptions,
) -> int:
    """The whole exact Pareto front of Ω against size, or against any column.

    Every non-dominated point is kept and saved, not only the convex hull; --points thins what is
    printed. What `mpsearch evaluate --front` added to FILE.csv stays, for the same assignments, and
    is drawn. All points are within the limits. Exit code 1 if they are infeasible. Where the states
    do not fit --memory, some points are missing; the proven factor that this costs is printed. From
    1,000 layers on as many points are kept as --epsilon asks for, unless --memory is given.

    \b
    Examples:
      mpsearch front -o front.csv --plot front.png
      mpsearch front profile.csv --resource bops --points 40
      mpsearch front --bops-limit 50% --json
    """
    if points < 2:
        raise InputError(f"got --points {points}; expected at least 2")
    if output is not None and Path(output).suffix == ".json":
        raise InputError(f"got -o {output}; name the CSV file, the JSON is written beside it")
    if plot is not None:
        from mpsearch.reports.writing import check_picture

        check_picture(plot)
    allowed = None if memory is None else parse_bytes(memory)
    table = for_tool(reading.read(table_path), tool)
    resource = resource or table.size_column
    budget = within.budget(table)
    pins, exclude = within.pinned(table), within.excluded(table)
    found = front_of(
        table,
        resource,
        budget.limits,
        pins,
        exclude,
        max_memory=allowed,
        at_least=budget.at_least,
        epsilon=epsilon,
    )
    found = replace(found, search={**table.recorded, **within.recorded, **reading.recorded})
    if not len(found):
        echo(
            "mpsearch: infeasible: no assignment is within the limits; `mpsearch solve` with the "
            "same limits gives the smallest feasible value of each",
            err=True,
        )
        return 1
    if output is not None:
        model = model_digest_of(table.provenance)
        found, lost = keep_measured(found, Path(output).with_suffix(".json"), model)
        if lost:
            echo(f"note: {lost}", err=True)
        write_csv(found, output)
        write_json(found, Path(output).with_suffix(".json"))
    if plot is not None:
        from mpsearch.reports.gather import fp32_facts, uniform_points
        from mpsearch.reports.run_folder import Run
        from mpsearch.reports.writing import plot_front

        known = Run(provenance=table.provenance)
        plot_front(found, plot, uniform_points(table), fp32_facts(known, found))
    if as_json:
        print_json(to_document(found))
    else:
        _print_front(found, points)
        echo(*front_lines(table, resource, budget, pins, exclude))
        for path in (output, output and Path(output).with_suffix(".json"), plot):
            if path:
                echo(f"wrote {path}")
    return 0


def _print_front(found: Front, points: int) -> None:
    shown = found.thin(points)
    rows = []
    for point in shown.tolist():
        cells = [f"{found.omega[point]:.6g}"]
        cells += [format_amount(name, values[point]) for name, values in found.totals.items()]
        cells += [str(count) for count in found.counts[point].tolist()]
        rows.append(cells)
    others = [name for name in found.totals if name != found.resource]
    print_table(["Ω", *found.totals, *map(str, found.choices)], rows, least=others)
    if found.exact:
        kind = "exact"
    elif np.isfinite(found.epsilon):
        kind = f"within a factor {1 + found.epsilon:.8g} of the best Ω at every {found.resource}"
    else:
        kind = "not exact, and no factor is proven (--memory allows more states)"
    thinned = f", {len(shown)} of them shown" if len(shown) < len(found) else ""
    echo(f"{len(found)} non-dominated points{thinned}; {kind}")

"""`mpsearch solve`."""

from typing import Any

import click

from mpsearch.assignment import Assignment
from mpsearch.budget import Budget
from mpsearch.console import json_option, print_json, print_table
from mpsearch.search_options import (
    budget_options,
    parse_excludes,
    parse_pins,
    parse_solver_options,
)
from mpsearch.solution import Solution
from mpsearch.solving import solve as solve_table
from mpsearch.table import LayerTable
from mpsearch.units import format_amount, format_count, format_size


@click.command()
@click.argument("table_path", metavar="[PROFILE.CSV]", default="profile.csv")
@budget_options
@click.option("--solver", default="auto", show_default=True, help="See `mpsearch solvers`.")
@click.option("--time-limit", type=float, metavar="SECONDS", help="Then the best found, with gap.")
@click.option(
    "--solver-option",
    "solver_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the solver's own. Repeatable.",
)
@click.option("-o", "--output", metavar="FILE", default="assignment.json", show_default=True)
@json_option
def solve(
    table_path: str,
    size: str | None,
    bops_limit: str | None,
    limits: tuple[str, ...],
    pins: tuple[str, ...],
    excludes: tuple[str, ...],
    solver: str,
    time_limit: float | None,
    solver_options: tuple[str, ...],
    output: str,
    as_json: bool,
) -> int:
    """Choose every layer's bits: least total Ω within the limits.

    1 KB is 1024 B. Limits may be relative to the table: 50% of the all-largest choice, w8 or w8a8
    of that choice everywhere. Exit code 1 if no assignment is within the limits; the smallest
    feasible value of every limit is printed then.

    \b
    Examples:
      mpsearch solve --size 145KB --bops-limit 1.2G
      mpsearch solve profile.csv --size 50% --pin conv1=w8a8 -o half.json
      mpsearch solve --limit latency_s=0.02 --exclude w2a2 --solver ortools
    """
    table = LayerTable.read_csv(table_path)
    budget = Budget.parse(table, size, bops_limit, limits)
    solution = solve_table(
        table,
        budget,
        solver=solver,
        pins=parse_pins(pins),
        exclude=parse_excludes(excludes),
        time_limit=time_limit,
        options=parse_solver_options(solver_options),
    )
    if solution.choices:
        Assignment.from_solution(solution, table.digest).save(output)
    if as_json:
        print_json(_document(solution, table))
    else:
        for note in solution.notes:
            click.echo(f"note: {note}", err=True)
        if solution.choices:
            _print_solution(table, solution)
            click.echo(f"wrote {output}")
        else:
            _print_failure(solution)
    return 0 if solution.choices else 1


def _print_solution(table: LayerTable, solution: Solution) -> None:
    """Layers with what they take, totals against limits, status and gap."""
    columns = [column for column in ("size_bytes", "bops") if column in table.resources]
    share = columns[:1]
    titles = {"size_bytes": "size", "bops": "BOPS"}
    whole = float(solution.totals[share[0]]) if share else 0.0
    rows = []
    for name, choice in solution.choices.items():
        row = table.row_of(name, choice)
        cells = [name, str(choice), f"{table.omega[row]:.4g}"]
        cells += [format_amount(column, table.resources[column][row]) for column in columns]
        if share:
            part = float(table.resources[share[0]][row])
            cells.append(f"{100 * part / whole:.1f} %" if whole else "")
        rows.append(cells)
    shown = [titles[column] for column in columns]
    header = ["layer", "bits", "Ω", *shown, *(f"share of {titles[column]}" for column in share)]
    print_table(header, rows)

    rows = []
    for column, total in solution.totals.items():
        cells = [column, format_amount(column, total), "", ""]
        if column in solution.limits:
            limit = solution.limits[column]
            cells[2:] = [format_amount(column, limit), format_amount(column, limit - total)]
        rows.append(cells)
    print_table(["total", "used", "limit", "slack"], rows)
    click.echo(f"Ω total {solution.objective:.6g}: {_verdict(solution)}")


def _verdict(solution: Solution) -> str:
    by = f"{solution.solver}, {solution.seconds:.3f} s"
    if solution.status == "optimal":
        return f"optimal, proven ({by})"
    return f"feasible; gap {100 * (solution.gap or 0):.3g} %, bound {solution.bound:.6g} ({by})"


def _print_failure(solution: Solution) -> None:
    """Why there is no assignment, and what the least limits are."""
    if solution.status == "no-solution":
        click.echo(
            "mpsearch: no assignment found in time, and none is ruled out; give more --time-limit",
            err=True,
        )
        return
    click.echo("mpsearch: infeasible: no assignment is within the limits", err=True)
    for column, least in solution.smallest.items():
        limit = solution.limits[column]
        alone = _both(column, least.alone)
        text = f"  {column}: limit {_both(column, limit)}; smallest feasible {alone}"
        if len(solution.limits) > 1:
            if least.with_others is None:
                text += " alone; the other limits are infeasible without it"
            else:
                text += f" alone, {_both(column, least.with_others)} with the other limits"
        click.echo(text, err=True)


def _both(column: str, value: float) -> str:
    """Rounded for reading and exact for copying: `18.3 KB (18717 B)`."""
    if not column.endswith("_bytes"):
        return f"{format_count(value)} ({value!r})" if value >= 1000 else repr(value)
    return f"{format_size(value)} ({value} B)" if value >= 1024 else f"{value} B"


def _document(solution: Solution, table: LayerTable) -> dict[str, Any]:
    return {
        "status": solution.status,
        "layers": {
            name: {"w_bits": choice.w_bits, "a_bits": choice.a_bits}
            for name, choice in solution.choices.items()
        },
        "objective": solution.objective,
        "bound": solution.bound,
        "gap": solution.gap,
        "solver": solution.solver,
        "seconds": solution.seconds,
        "totals": dict(solution.totals),
        "limits": dict(solution.limits),
        "smallest_feasible": {
            column: {"alone": least.alone, "with_other_limits": least.with_others}
            for column, least in solution.smallest.items()
        },
        "notes": list(solution.notes),
        "table_digest": table.digest,
    }

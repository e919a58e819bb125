"""`mpsearch explain`."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import click

from mpsearch.commands.console import echo, json_option, print_json, print_table
from mpsearch.commands.renamed import Renamed
from mpsearch.commands.solution_text import print_failure, title_of
from mpsearch.commands.table_options import TableOptions, table_options
from mpsearch.errors import InputError
from mpsearch.explaining.explaining import Alternative, Decision, Explanation, WhatIf, what_if
from mpsearch.explaining.explaining import explain as explain_assignment
from mpsearch.recipes.fitted import as_searched
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.layer_choices import excludes_of, layers_of, pins_of
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import format_amount


@click.command()
@click.argument("assignment_path", metavar="[ASSIGNMENT.JSON]", default="assignment.json")
@click.option("--profile", "table_path", cls=Renamed, old=["--table"], metavar="FILE",
              help="The table that the assignment was searched in [default: profile.csv beside "
              "it].")  # fmt: skip
@click.option("--what-if", "changes", multiple=True, metavar="LAYER=CHOICE",
              help="The new optimum if this layer (and its group) had this choice. Repeatable: "
              "all of them together.")  # fmt: skip
@click.option("--layer", "asked_for", multiple=True, metavar="LAYER",
              help="Show this layer alone, or those like 'blocks.*.dw', kind:depthwise. "
              "Repeatable.")  # fmt: skip
@click.option("--pin", "pins", multiple=True, metavar="LAYER=CHOICE",
              help="Beside those that the assignment records. Repeatable.")  # fmt: skip
@click.option("--exclude", "excludes", multiple=True, metavar="[LAYER=]CHOICE",
              help="Beside those that the assignment records. Repeatable.")  # fmt: skip
@click.option("--time-limit", type=float, metavar="SECONDS", default=10.0, show_default=True,
              help="For each of the searches: one, and two for every limit.")  # fmt: skip
@table_options
@json_option
def explain(
    assignment_path: str,
    table_path: str | None,
    changes: tuple[str, ...],
    asked_for: tuple[str, ...],
    pins: tuple[str, ...],
    excludes: tuple[str, ...],
    time_limit: float,
    as_json: bool,
    reading: TableOptions,
) -> int:
    """Why every layer of ASSIGNMENT.JSON has its bits.

    For each layer the next better and the next cheaper choice, and whether it fits the limits that
    the assignment was searched with. For each limit its price: what one more KB or GBOP is worth
    in Ω. `margin` is how far a layer is from another choice at these prices; `any other ≥` is what
    another choice there costs at least, whatever else changes. Exit code 1 if nothing is within
    the limits, or within them and --what-if.

    \b
    Examples:
      mpsearch explain
      mpsearch explain half.json --json
      mpsearch explain half.json --layer fc
      mpsearch explain --what-if conv1=w8a8 --what-if fc=w4a8
    """
    assignment = Assignment.load(assignment_path)
    beside = os.path.join(os.path.dirname(assignment_path), "profile.csv")
    asked = assignment.search
    table = reading.read(beside if table_path is None else table_path, asked)
    table = as_searched(table, asked)
    pinned = pins_of(table, (*asked.get("pin", ()), *pins), "--pin")
    excluded = excludes_of(
        table, (*asked.get("exclude", ()), *excludes), asked.get("allow", ()), "--"
    )
    if changes and asked_for:
        raise InputError("got --layer and --what-if, which shows what changes; leave one out")
    if changes:
        wanted = pins_of(table, changes, "--what-if")
        answer = what_if(table, assignment, wanted, pinned, excluded, time_limit)
        if as_json:
            print_json(_what_if_document(answer))
        else:
            _print_what_if(answer)
        return 0 if answer.solution.choices else 1
    shown = {layer for text in asked_for for layer in layers_of(table, text)}
    found = explain_assignment(table, assignment, pinned, excluded, time_limit)
    if shown:
        kept = tuple(one for one in found.decisions if shown & set(one.layers))
        found = dataclasses.replace(found, decisions=kept)
    if as_json:
        print_json(_document(found))
    else:
        _print_decisions(table, found.decisions, found.limits)
        _print_limits(found)
        echo(*_verdict(found))
        if not found.solution.choices:
            print_failure(found.solution)
    return 0 if found.solution.choices else 1


def _print_decisions(
    table: LayerTable, decisions: Sequence[Decision], limits: Mapping[str, int | float]
) -> None:
    """Three lines a layer: what it has, the next better and the next cheaper choice."""
    shown = {*limits, table.size_column, "size_bytes", "bops"}
    columns = [column for column in table.columns if column in shown]
    rows = []
    for one in decisions:
        cells = [", ".join(one.layers), "now", str(one.choice), f"{one.omega:.4g}"]
        cells += [format_amount(column, one.resources[column]) for column in columns]
        margin = "" if one.margin is None else f"{one.margin:+.3g} to {one.rival}"
        rows.append([*cells, "", margin, _number(one.at_least)])
        for word, other in (("better", one.better), ("cheaper", one.cheaper)):
            if other is None:
                rows.append(["", f"next {word}", "none", *[""] * (len(columns) + 4)])
                continue
            cells = ["", f"next {word}", str(other.choice), f"{other.omega:+.3g}"]
            cells += [_signed(column, other.changes[column]) for column in columns]
            rows.append([*cells, _fits(other), "", ""])
    titles = ["layer", "", "bits", "Ω", *map(title_of, columns), "fits", "margin", "any other ≥"]
    free = [title_of(column) for column in columns if column not in limits]
    print_table(titles, rows, least=["any other ≥", *free, "margin"])


def _fits(other: Alternative) -> str:
    over = ", ".join(f"{title_of(name)} {_signed(name, by)}" for name, by in other.over.items())
    return f"no: {over}" if over else "yes"


def _print_limits(found: Explanation) -> None:
    """Prices beside the true changes of the optimum."""
    if not found.limits:
        echo("the assignment has no limits: every layer can have its least Ω")
        return
    if not found.marginals:
        return
    rows = []
    for one in found.marginals:
        by_price = one.price * one.step
        rows.append(
            [
                one.column,
                format_amount(one.column, one.limit),
                _signed(one.column, found.slack[one.column]),
                f"{one.per_unit:.4g} per {one.unit_name}" if one.price else "0",
                _signed(one.column, one.step),
                "not found" if one.more is None else f"{one.more:+.4g}",
                f"{-by_price:+.4g}" if by_price else "0",
                "not found" if one.less is None else f"{one.less:+.4g}",
            ]
        )
    titles = ["limit", "value", "slack", "Ω price", "step", "Ω with more", "by price", "with less"]
    print_table(titles, rows)


def _verdict(found: Explanation) -> tuple[str, ...]:
    """Is this the optimum, and if not how far from it, and why that may be; in one line or two."""
    start = f"Ω total {found.omega:.6g}"
    if found.status == "optimal":
        bound = "" if found.lp_bound is None else f" (LP bound {found.lp_bound:.6g})"
        return (f"{start}: optimal within the limits, proven{bound}",)
    if found.status == "unproven":
        return (f"{start}: nothing better found in time; bound {found.bound:.6g}",)
    if found.status == "outside":
        broken = [
            f"{column} by {format_amount(column, -left)}"
            for column, left in found.slack.items()
            if left < 0
        ]
        why = f"{', '.join(broken)} too much" if broken else "a choice is not allowed"
        best = "" if found.optimum is None else f"; the optimum has {found.optimum:.6g}"
        return (f"{start}: outside the limits: {why}{best}",)
    return (
        f"{start}: not optimal: {found.solution.objective:.6g} is within the limits "
        f"(gap {100 * (found.gap or 0):.3g} %)",
        "if it was chosen under pins or excludes that it does not record, give them: "
        "--pin or --exclude",
    )


def _print_what_if(answer: WhatIf) -> None:
    pins = ", ".join(f"{layer}={choice}" for layer, choice in answer.pins.items())
    solution = answer.solution
    if not solution.choices:
        print_failure(solution, f"with {pins} no assignment is within the limits")
        return
    if answer.changed:
        rows = [[name, str(a), str(b)] for name, (a, b) in answer.changed.items()]
        print_table(["layer", "now", "then"], rows)
    else:
        echo("no layer changes")
    rows = []
    for column, total in solution.totals.items():
        change = answer.changes.get(column)  # none of peaks and counts
        moved = "" if change is None else _signed(column, change)
        cells = [column, format_amount(column, total), moved]
        limit = solution.limits.get(column)
        rows.append([*cells, "" if limit is None else format_amount(column, limit)])
    print_table(["total", "then", "change", "limit"], rows)
    proven = "optimal, proven" if solution.status == "optimal" else "the best found in time"
    echo(f"with {pins}: Ω total {solution.objective:.6g} ({answer.omega:+.4g}), {proven}")


def _signed(column: str, value: float) -> str:
    return f"{'+' if value >= 0 else '-'}{format_amount(column, abs(value))}"


def _number(value: float | None) -> str:
    return f"{value:+.3g}" if value else ""


def _document(found: Explanation) -> dict[str, Any]:
    return {
        "status": found.status,
        "omega": found.omega,
        "optimum": found.optimum,
        "bound": found.bound,
        "gap": found.gap,
        "lp_bound": found.lp_bound,
        "totals": dict(found.totals),
        "limits": dict(found.limits),
        "slack": dict(found.slack),
        "decisions": [
            {
                **dataclasses.asdict(one),
                "choice": str(one.choice),
                "better": _alternative(one.better),
                "cheaper": _alternative(one.cheaper),
                "rival": one.rival and str(one.rival),
            }
            for one in found.decisions
        ],
        "prices": [
            {**dataclasses.asdict(one), "per_unit": one.per_unit} for one in found.marginals
        ],
        "best": _solution(found.solution),
    }


def _alternative(other: Alternative | None) -> dict[str, Any] | None:
    if other is None:
        return None
    return {**dataclasses.asdict(other), "choice": str(other.choice)}


def _what_if_document(answer: WhatIf) -> dict[str, Any]:
    return {
        "pins": {layer: str(choice) for layer, choice in answer.pins.items()},
        **_solution(answer.solution),
        "omega_change": answer.omega,
        "changed": {name: [str(a), str(b)] for name, (a, b) in answer.changed.items()},
        "changes": dict(answer.changes),
    }


def _solution(solution: Solution) -> dict[str, Any]:
    return {
        "status": solution.status,
        "objective": solution.objective,
        "bound": solution.bound,
        "layers": {layer: str(choice) for layer, choice in solution.choices.items()},
        "totals": dict(solution.totals),
        "limits": dict(solution.limits),
        "smallest_feasible": {
            column: {"alone": least.alone, "with_other_limits": least.with_others}
            for column, least in solution.smallest.items()
        },
    }

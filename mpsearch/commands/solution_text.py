"""A solution, and what limits can be: text for the terminal, and JSON."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mpsearch.commands.console import echo, print_table
from mpsearch.profiling.float_text import outside_sentence
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import format_amount, format_exactly

if TYPE_CHECKING:
    from mpsearch.search.proof import Range


def print_solution(table: LayerTable, solution: Solution) -> None:
    """Layers with what they take, totals against limits, status and gap."""
    print_tables(table, solution)
    if solution.minimize == "omega":
        echo(f"Ω total {solution.objective:.6g}: {_verdict(solution)}")
    else:
        whole = solution.minimize in solution.totals
        value = solution.objective or 0.0
        least = format_amount(solution.minimize, value) if whole else f"{value:.6g}"
        allowed = solution.limits.get("omega")
        within = "" if allowed is None else f" (limit {allowed:g})"
        echo(f"least {solution.minimize} {least}, Ω total {solution.omega:.6g}{within}: "
                   f"{_verdict(solution)}")  # fmt: skip


def print_tables(table: LayerTable, solution: Solution) -> None:
    """Layers with what they take, totals against limits."""
    columns = [column for column in ("size_bytes", "bops") if column in table.resources]
    share = columns[:1]
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
    part_of = [f"of {title_of(column)}" for column in share]
    header = ["layer", "bits", "Ω", *map(title_of, columns), *part_of]
    limited = {*solution.limits, *solution.at_least, solution.minimize}
    print_table(header, rows, least=[*part_of, *([] if "bops" in limited else ["BOPS"])])

    rows = []
    for column, total in solution.totals.items():
        cells = [column, format_amount(column, total), "", ""]
        if column in solution.limits:
            limit = solution.limits[column]
            cells[2:] = [format_amount(column, limit), format_amount(column, limit - total)]
        elif column in solution.at_least:
            limit = solution.at_least[column]
            cells[2:] = [f">= {format_amount(column, limit)}", format_amount(column, total - limit)]
        rows.append(cells)
    print_table(["total", "used", "limit", "slack"], rows)


def title_of(column: str) -> str:
    """What heads the figures of a column: `size`, `BOPS`, others as they are called."""
    return {"size_bytes": "size", "bops": "BOPS"}.get(column, column)


def _verdict(solution: Solution) -> str:
    by = f"{solution.solver}, {solution.seconds:.3f} s"
    if solution.status == "optimal":
        return f"optimal, proven ({by})"
    return f"feasible; gap {100 * (solution.gap or 0):.3g} %, bound {solution.bound:.6g} ({by})"


def print_failure(solution: Solution, what: str = "no assignment is within the limits") -> None:
    """Why there is no assignment, and what the least limits are."""
    if solution.status == "no-solution":
        echo(
            "mpsearch: no assignment found in time, and none is ruled out; give more --time-limit",
            err=True,
        )
        return
    echo(f"mpsearch: infeasible: {what}", err=True)
    limits = dict(solution.limits) | {f">={k}": v for k, v in solution.at_least.items()}
    for key, least in solution.smallest.items():
        column = key.removeprefix(">=")
        limit = f"{'at least ' if key != column else ''}{format_exactly(column, limits[key])}"
        which = "smallest" if key == column else "largest"
        text = f"  {column}: limit {limit}; {which} feasible {format_exactly(column, least.alone)}"
        if len(limits) > 1:
            if least.with_others is None:
                text += " alone; the other limits are infeasible without it"
            else:
                text += f" alone, {format_exactly(column, least.with_others)} with the other limits"
        echo(text, err=True)


def print_ranges(found: Mapping[str, "Range"], limits: Mapping[str, int | float]) -> None:
    """One line a column, beside its limit; bytes also as they are, for copying."""
    titles = ["column", "least", "least within other limits", "useful up to", "all largest"]
    rows = []
    for column, one in found.items():
        cells = [column]
        for value in (one.least, one.with_others, one.useful, one.most, limits.get(column)):
            cells.append("" if value is None else format_exactly(column, value))
        if one.with_others is None:
            cells[2] = "none found"
        rows.append(cells if limits else cells[:-1])
    print_table([*titles, "limit"] if limits else titles, rows)


def print_outside(provenance: Mapping[str, Any]) -> None:
    """One line where profile.json beside the table knows of bytes that no layer has."""
    outside = provenance.get("float_bytes_outside_layers")
    if isinstance(outside, int) and outside:
        echo(outside_sentence(outside))


def to_document(solution: Solution, table: LayerTable) -> dict[str, Any]:
    """What `mpsearch solve --json` prints of a solution: docs/formats.md names its keys."""
    return solution.to_dict() | {"table_digest": table.digest}

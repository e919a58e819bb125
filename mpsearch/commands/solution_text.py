"""A solution, and what limits can be: text for the terminal, and JSON."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from mpsearch.commands.console import echo, print_table
from mpsearch.profiling.float_text import outside_sentence
from mpsearch.tables.budget import Budget, column_of
from mpsearch.tables.choice import Choice
from mpsearch.tables.solution import Solution, Useful
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import format_amount, format_exactly, format_feasible, format_rounded

if TYPE_CHECKING:
    from mpsearch.search.feasible_limits import Range


def print_solution(table: LayerTable, solution: Solution) -> None:
    """Layers with what they take, totals against limits, status and gap."""
    print_tables(table, solution)
    if solution.minimize == "omega":
        echo(f"Ω total {solution.objective:.6g}: {verdict(solution)}")
    else:
        whole = solution.minimize in solution.totals
        value = solution.objective or 0.0
        least = format_amount(solution.minimize, value) if whole else f"{value:.6g}"
        allowed = solution.limits.get("omega")
        within = "" if allowed is None else f" (limit {allowed:g})"
        echo(f"least {solution.minimize} {least}, Ω total {solution.omega:.6g}{within}: "
                   f"{verdict(solution)}")  # fmt: skip
    echo(*idle_lines(table, solution))


def idle_lines(table: LayerTable, solution: Solution) -> list[str]:
    """Which limits do not bind and where they would, such as: no limit binds: every layer has its
    largest choice; limits are useful from 41.4 KB to 74.7 KB. Nothing of where they would, if that
    was not found in time."""
    idle = solution.not_binding
    limits = [*solution.limits, *(f">={key}" for key in solution.at_least)]
    if set(idle) < set(limits):
        return [f"limit {key} does not bind: {text}" for key, text in _known(idle).items()]
    if not idle:
        return []
    least = "Ω" if solution.minimize == "omega" else solution.minimize
    if solution.status != "optimal":  # refined: the limits were of the least Ω
        why = f"the least {least} that there is keeps to it"
    elif all(
        choice == table.choices_of(name)[-1] and not choice.label
        for name, choice in solution.choices.items()
    ):
        why = "every layer has its largest choice"
    else:
        why = f"nothing has less {least}"
    start = f"no limit {'binds' if limits else 'is given'}: {why}"
    texts = _known(idle)
    if len(texts) == len(idle) == 1 and limits:
        return [f"{start}; {text}" for text in texts.values()]
    return [start, *(f"  {key}: {text}" for key, text in texts.items())]


def _known(idle: Mapping[str, Useful]) -> dict[str, str]:
    return {
        key: _useful(key, one)
        for key, one in idle.items()
        if one.tightest is not None and one.free is not None
    }


def _useful(key: str, one: Useful) -> str:
    """`limits are useful from 41.4 KB to 74.7 KB`: what is promised of the limits that are printed
    is true of these very texts."""
    column, up = column_of(key.removeprefix(">=")), not key.startswith(">=")
    assert one.tightest is not None
    assert one.free is not None
    if one.tightest == one.free:
        return f"it makes no difference from {format_rounded(column, one.free, up)} on"
    ends = [one.tightest, one.free] if up else [one.free, one.tightest]
    first, last = (format_rounded(column, end, up) for end in ends)
    return f"limits are useful from {first} to {last}"


def print_tables(table: LayerTable, solution: Solution) -> None:
    """Layers with what they take, totals against limits."""
    known = dict.fromkeys((table.size_column, "size_bytes", "bops"))
    columns = [column for column in known if column in table.resources]
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
    print_totals(solution)


def print_totals(solution: Solution) -> None:
    """Totals against limits."""
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


def verdict(solution: Solution) -> str:
    """How much is proven, by which solver, in what time."""
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
        up = key == column
        alone = format_feasible(column, least.alone, up)
        text = f"  {column}: limit {limit}; {which} feasible {alone}"
        if len(limits) > 1:
            if least.with_others is None:
                text += " alone; the other limits are infeasible without it"
            else:
                others = format_feasible(column, least.with_others, up)
                text += f" alone, {others} with the other limits"
        echo(text, err=True)
    if solution.no_bits_fit:
        echo(f"  {solution.no_bits_fit}", err=True)
    if solution.remedies:
        each = "this makes" if len(solution.remedies) == 1 else "any one of these makes"
        lines = [f"{each} it feasible:", *(f"  {one}" for one in solution.remedies)]
        echo(*lines, err=True)


def front_lines(
    table: LayerTable,
    resource: str,
    budget: Budget,
    pins: Mapping[str, Choice],
    exclude: Mapping[str, Collection[Choice]],
) -> list[str]:
    """Upper limits that leave no point of a front out."""
    from mpsearch.search.feasible_limits import ranges

    found, lines = ranges(table, pins, exclude, {}), []
    for key, limit in budget.limits.items():
        column = column_of(key)
        only = len(budget.limits) == 1 and not budget.at_least
        if key == resource and only and limit >= found[key].useful:
            useful = _useful(key, Useful(found[key].least, found[key].useful))
            lines.append(f"limit {key} leaves no point out: {useful}")
        elif key in found and limit >= found[key].most:
            most = format_rounded(column, found[key].most, up=True)
            lines.append(f"limit {key} leaves no point out: nothing takes more than {most}")
    return lines


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

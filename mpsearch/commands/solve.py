"""`mpsearch solve`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import click

from mpsearch.commands.console import echo, json_option, print_json
from mpsearch.commands.grouping import READING, Grouped
from mpsearch.commands.measured_options import MeasuredRequest, RefineRequest, measured_options
from mpsearch.commands.options import SearchOptions, search_options, tool_option
from mpsearch.commands.remedy_text import Searched, with_remedies
from mpsearch.commands.renamed import Renamed
from mpsearch.commands.solution_text import (
    print_failure,
    print_outside,
    print_ranges,
    print_solution,
    to_document,
)
from mpsearch.commands.table_options import NAMES, TableOptions, table_options
from mpsearch.errors import InputError
from mpsearch.recipes.fitted import for_tool
from mpsearch.refining.candidates import Asked
from mpsearch.running.workers import is_first
from mpsearch.search.solving import solve as solve_table
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Minimand
from mpsearch.tables.provenance import model_digest_of, unpriced_activations
from mpsearch.tables.solution import Solution
from mpsearch.tables.stored_widths import FORMATS, excludes_for, note_of
from mpsearch.tables.table import LayerTable
from mpsearch.tables.tool import tool_notes


@dataclass(frozen=True)
class SolveRequest:
    """The options of `mpsearch solve`, as they were typed; its help says what each is."""

    table_path: str
    within: SearchOptions
    """With what --format adds to its excludes."""
    minimize: str
    omega_limit: str | None
    max_distinct: int | None
    solver: str
    time_limit: float | None
    solver_options: tuple[str, ...]
    from_front: str | None
    rerank: int | None
    format: str | None
    measured: MeasuredRequest | RefineRequest | None
    ram: str | None
    flash: str | None
    target: str | None
    tool: str | None
    only_ranges: bool
    output: str
    as_json: bool
    reading: TableOptions
    typed: SearchOptions | None = None
    """As it was typed."""
    known: LayerTable | None = None
    """The table, where it was read already."""

    @cached_property
    def table(self) -> LayerTable:
        """The table, fitted to the tool of --for. Raises InputError."""
        if self.known is not None:
            return self.known
        return for_tool(self.reading.read(self.table_path), self.tool)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Of the table; empty where nobody says."""
        return self.table.provenance

    @property
    def table_model(self) -> str | None:
        """The digest of the model that the table is of, where it is known."""
        return model_digest_of(self.provenance)

    def check(self) -> None:
        """Raise InputError for options that do not go together."""
        searched = self.solver != "auto" or self.time_limit is not None or self.solver_options
        other = self.max_distinct is not None or self.minimize != "omega"
        if isinstance(self.measured, RefineRequest):
            if self.rerank or self.from_front or self.minimize != "omega":
                raise InputError(
                    "--refine starts from the least Ω and tries the table's other metrics itself; "
                    "leave out --minimize, --from-front and --rerank"
                )
        elif self.measured is not None:
            if self.rerank or searched or self.max_distinct is not None:
                raise InputError(
                    "--min-accuracy, --max-drop and --min-agreement take the exact front; leave "
                    "out --solver, --time-limit, --max-distinct and --rerank"
                )
        elif (self.rerank or self.from_front) and other:
            raise InputError(
                "--max-distinct and --minimize do not go with --from-front or --rerank"
            )
        fitted = self.ram is not None or self.flash is not None
        if self.target is not None and not fitted:
            raise InputError(
                "--target says which processor --ram and --flash are of; give one of them, or "
                "leave it out"
            )
        if self.flash is not None and self.target is None:
            raise InputError(
                "--flash counts code, which differs from processor to processor; name one with "
                "--target, such as cortex-m4, or limit the constants alone with --size"
            )
        if fitted and self.format not in (None, "c"):
            raise InputError(f"--ram is about the C export; leave out --format {self.format}")
        if fitted and (self.rerank or self.from_front or self.measured is not None):
            raise InputError(
                "--ram is searched with the table alone; leave out --from-front, --rerank, "
                "--refine and the options of measured accuracy"
            )
        if self.from_front is not None and self.within.recorded:
            raise InputError("a front has its pins and excludes already; leave them out")


GROUPS = {
    "Limits": ("max-size", "max-bops", "ram", "flash", "limit", "at-least", "omega-limit"),
    "Layers": ("pin", "exclude", "allow", "max-distinct", "format", "for"),
    "What is minimised, and how": (
        "minimize", "solver", "time-limit", "solver-option", "from-front", "rerank", "target",
    ),
    "Measured accuracy": (
        "min-accuracy", "max-drop", "min-agreement", "refine", "data", "fp32", "calibration",
        "measure", "tolerance", "confirm-data", "device", "rounding", "bias-correction",
    ),
    "Output": ("output", "limit-ranges", "json", "help"),
    "Reading the table": NAMES,
    "Reading the float model": READING,
}  # fmt: skip


@click.command(cls=Grouped, groups=GROUPS)
@click.argument("table_path", metavar="[PROFILE.CSV]", default="profile.csv")
@search_options
@click.option(
    "--minimize",
    metavar="COLUMN",
    default="omega",
    show_default=True,
    help="Another column, or a weighted sum such as omega+0.5*omega_kl.",
)
@click.option("--omega-limit", metavar="X", help="Limit on total Ω, when it is not minimised.")
@click.option(
    "--max-distinct", type=int, metavar="K", help="At most K different choices in the network."
)
@click.option("--solver", default="auto", show_default=True, help="See `mpsearch solvers`.")
@click.option("--time-limit", type=float, metavar="SECONDS", help="Then the best found, with gap.")
@click.option(
    "--solver-option",
    "solver_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the solver's own. Repeatable.",
)
@click.option(
    "--from-front",
    metavar="FRONT.JSON",
    help="Look the answer up in an exact front that `mpsearch front -o` stored.",
)
@click.option(
    "--rerank",
    type=click.IntRange(min=1),
    metavar="K",
    help="Re-score the K best by superposed outputs, from PROFILE.interactions.npz.",
)
@click.option(
    "--format", type=click.Choice(sorted(FORMATS)),
    help="Leave out choices that this file format would store at other bits.",
)  # fmt: skip
@click.option(
    "--ram", metavar="SIZE",
    help="Limit on the memory of all tensors, as the C export places it: 64KB (docs/ram.md).",
)  # fmt: skip
@click.option(
    "--flash", metavar="SIZE",
    help="Limit on constants and code of the firmware, with --target: 145KB (docs/ram.md).",
)  # fmt: skip
@click.option(
    "--target", metavar="PROCESSOR",
    help="Of --ram and --flash: cortex-m0 … cortex-m55, cortex-a72, … [default: any].",
)  # fmt: skip
@tool_option
@measured_options
@table_options
@click.option(
    "--limit-ranges", "only_ranges", cls=Renamed, old=["--ranges"], is_flag=True,
    help="What limits can be; no search.",
)  # fmt: skip
@click.option("-o", "--output", metavar="FILE", default="assignment.json", show_default=True)
@json_option
def solve(**options: Any) -> int:
    """Choose every layer's bits: least total Ω within the limits, or least size within Ω.

    With --min-accuracy, --max-drop or --min-agreement: the smallest assignment on the front that
    meets this target, measured on --data. What was measured is said, and that not every smaller one
    was; exit code 1 if none meets it. With --refine N assignments at these limits are measured, and
    the best is taken.

    Activations keep their bits where fewer buy nothing: a choice is left out where another one has
    more bits for activations, as many for weights, and takes no more of what is limited.

    1 KB is 1024 B. Limits may be relative to the table: 50% of the all-largest choice, w8 or w8a8
    of that choice everywhere. Exit code 1 if no assignment is within the limits; the smallest
    feasible value of every limit is printed then.

    \b
    Examples:
      mpsearch solve --size 145KB --bops-limit 1.2G
      mpsearch solve profile.csv --size 50% --pin conv1=w8a8 -o half.json
      mpsearch solve --size w4a8 --exclude w2a8 --solver ortools -o other.json
      mpsearch solve --limit-ranges
      mpsearch solve --minimize size_bytes --omega-limit 0.5 -o least.json
      mpsearch solve --size 145KB --ram 64KB --target cortex-m4 -o fits.json
      mpsearch solve --size 50% --limit max:bops=20M --limit count:w8=5 -o a.json
      mpsearch solve --max-drop 2 --data test.npz --fp32 model.pt -o small.json
      mpsearch solve --size 50% --refine 24 --fp32 model.pt -o refined.json
      mpsearch solve --for modelopt -o modelopt.json
    """
    request = SolveRequest(**options)
    table = request.table
    minimand = Minimand.parse(table, request.minimize)
    within = request.within
    if request.omega_limit is not None:
        within = replace(within, limits=(*within.limits, f"omega={request.omega_limit}"))
    if isinstance(request.measured, MeasuredRequest) and request.minimize == "omega":
        minimand = Minimand.parse(table, table.size_column)
    budget = within.budget(table, minimand)
    unfit = [] if request.format is None else excludes_for(request.format, table)
    within = replace(within, excludes=(*within.excludes, *unfit))
    asked = Asked(table, budget, within.pinned(table), within.excluded(table), request.max_distinct)
    if request.only_ranges:
        return _tell_ranges(asked, request.as_json)
    request = replace(request, within=within, typed=request.within, known=table)
    request.check()
    if isinstance(request.measured, MeasuredRequest):
        from mpsearch.commands.solve_measured import solve_measured

        return solve_measured(request, request.measured, asked, str(minimand))
    left_out = [] if request.format is None else note_of(request.format, unfit)
    return _solve_by_omega(request, asked, minimand, [*tool_notes(asked.table.tool), *left_out])


def _tell_ranges(asked: Asked, as_json: bool) -> int:
    from mpsearch.search.feasible_limits import ranges

    budget = asked.budget
    found = ranges(asked.table, asked.pins, asked.exclude, budget.limits, at_least=budget.at_least)
    if as_json:
        print_json({column: asdict(one) for column, one in found.items()})
    else:
        print_ranges(found, budget.limits)
    return 0


def _solve_by_omega(
    request: SolveRequest, asked: Asked, minimand: Minimand, left_out: Sequence[str]
) -> int:
    """The least within the limits, by Ω or `minimand`; the best near it with --rerank or --refine.

    left_out: what --for and --format have to say. Exit code 1 where nothing is within the limits.
    """
    table, budget = asked.table, asked.budget
    more: dict[str, Any] = {}
    lines: list[str] = []
    fitted_by: Searched | None = None
    if request.from_front is not None:
        from mpsearch.search.other_sources import look_up

        solution = look_up(table, request.from_front, budget)
    elif request.ram is not None or request.flash is not None:
        from mpsearch.commands import solve_fitted

        options = _parse_solver_options(request.solver_options)

        def fitted_by(request: SolveRequest, asked: Asked) -> Solution:
            return solve_fitted.solve_fitted(request, asked, minimand, options).solution

        fitted = solve_fitted.solve_fitted(request, asked, minimand, options)
        solution, more["memory"] = fitted.solution, solve_fitted.to_document(fitted)
        lines = solve_fitted.lines_of(fitted)
    else:
        solution = solve_table(
            table,
            budget,
            solver=request.solver,
            pins=asked.pins,
            exclude=asked.exclude,
            time_limit=request.time_limit,
            options=_parse_solver_options(request.solver_options),
            minimize=minimand,
            max_distinct=asked.max_distinct,
        )
    paid = (*budget.limits, *budget.at_least, *minimand.columns)
    unpriced = unpriced_activations(table, request.provenance, paid)
    solution = replace(solution, notes=(*solution.notes, *left_out, *unpriced))
    refined = None
    if request.rerank and solution.choices:
        solution, more["interactions"], lines = _reranked(request, request.rerank, asked, solution)
    if isinstance(request.measured, RefineRequest) and solution.choices:
        from mpsearch.commands import solve_refined
        from mpsearch.refining import chosen

        refined = solve_refined.measure(
            request.measured, asked, solution, request.output, request.time_limit,
            request.table_model,
        )  # fmt: skip
        if not is_first():
            return 0
        solution = chosen.solution_of(refined, asked, solution)
        more["refined"] = chosen.to_document(refined)
    if solution.choices:
        _save(request, table, solution, more.get("refined", {}))
    if solution.status == "infeasible":
        solution = with_remedies(request, asked, solution, fitted_by)
    if request.as_json:
        print_json(to_document(solution, table) | more)
        return 0 if solution.choices else 1
    for note in solution.notes:
        echo(f"note: {note}", err=True)
    if not solution.choices:
        print_failure(solution)
        echo(*lines, err=True)
        return 1
    print_solution(table, solution)
    print_outside(request.provenance)
    if refined is not None:
        solve_refined.print_refined(refined, table)
    echo(*lines, f"wrote {request.output}")
    return 0


def _reranked(
    request: SolveRequest, count: int, asked: Asked, solution: Solution
) -> tuple[Solution, dict[str, Any], list[str]]:
    """The best of the `count` best by superposed outputs, as JSON and in words."""
    from mpsearch.interactions import k_best
    from mpsearch.interactions.interactions import interactions_path
    from mpsearch.search.other_sources import reranked

    path = interactions_path(request.table_path)
    solution, ranking = reranked(
        solution, asked.table, asked.instance("omega"), path, count, request.time_limit,
        request.provenance,
    )  # fmt: skip
    return solution, k_best.to_document(ranking), k_best.describe(ranking)


def _save(
    request: SolveRequest, table: LayerTable, solution: Solution, refined: Mapping[str, Any]
) -> None:
    recorded = {**table.recorded, **request.within.recorded, **request.reading.recorded}
    if request.max_distinct is not None:
        recorded["max-distinct"] = (str(request.max_distinct),)
    model = refined.get("model_digest", request.table_model)
    memory: dict[str, Any] = {}
    if request.ram is not None or request.flash is not None:
        from mpsearch.fitting.fitting import without_memory

        solution, memory = without_memory(solution, request.target)
    assignment = Assignment.from_solution(solution, table.digest, recorded, model)
    weights = table.layer_weights
    replace(assignment, refined=refined, memory=memory, weights=weights).save(request.output)


def _parse_solver_options(texts: Sequence[str]) -> dict[str, str]:
    """`["num_workers=8"]` -> {"num_workers": "8"}; the solver knows what is right."""
    options: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"got --solver-option {text!r}; expected KEY=VALUE")
        options[key] = value
    return options

"""`mpsearch solve`."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import click

from mpsearch.commands.console import echo, json_option, print_json
from mpsearch.commands.measured_options import (
    MeasuredRequest,
    RefineRequest,
    measured_options,
    parse_measured,
)
from mpsearch.commands.search_options import budget_options, parse_solver_options
from mpsearch.commands.solution_text import print_failure, print_solution, print_tables
from mpsearch.errors import InputError
from mpsearch.profiling.float_text import outside_sentence
from mpsearch.running.workers import is_first
from mpsearch.search.solving import solve as solve_table
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget, Minimand, parse_excludes, parse_pins
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import model_digest_of, sound_provenance, unpriced_activations
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable
from mpsearch.tables.targets import TARGETS, excludes_for, note_of


@click.command()
@click.argument("table_path", metavar="[PROFILE.CSV]", default="profile.csv")
@budget_options
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
    "--target", type=click.Choice(sorted(TARGETS)),
    help="Leave out choices that this runtime would store at other bits.",
)  # fmt: skip
@measured_options
@click.option("--ranges", "only_ranges", is_flag=True, help="What limits can be; no search.")
@click.option("-o", "--output", metavar="FILE", default="assignment.json", show_default=True)
@json_option
def solve(
    table_path: str,
    size: str | None,
    bops_limit: str | None,
    limits: tuple[str, ...],
    lower_limits: tuple[str, ...],
    pins: tuple[str, ...],
    excludes: tuple[str, ...],
    allows: tuple[str, ...],
    minimize: str,
    omega_limit: str | None,
    max_distinct: int | None,
    solver: str,
    time_limit: float | None,
    solver_options: tuple[str, ...],
    from_front: str | None,
    rerank: int | None,
    target: str | None,
    only_ranges: bool,
    output: str,
    as_json: bool,
    **measured: Any,
) -> int:
    """Choose every layer's bits: least total Ω within the limits, or least size within Ω.

    With --min-accuracy or --max-drop: the smallest assignment on the front whose accuracy, measured
    on --data, holds. What was measured is said, and that not every smaller one was; exit code 1 if
    none holds. With --refine N assignments at these limits are measured, and the best is taken.

    Activations keep their bits where fewer buy nothing: a choice is left out where another one has
    more bits for activations, as many for weights, and takes no more of what is limited.

    1 KB is 1024 B. Limits may be relative to the table: 50% of the all-largest choice, w8 or w8a8
    of that choice everywhere. Exit code 1 if no assignment is within the limits; the smallest
    feasible value of every limit is printed then.

    \b
    Examples:
      mpsearch solve --size 145KB --bops-limit 1.2G
      mpsearch solve profile.csv --size 50% --pin conv1=w8a8 -o half.json
      mpsearch solve --limit latency_s=0.02 --exclude w2a2 --solver ortools
      mpsearch solve --ranges
      mpsearch solve --minimize size_bytes --omega-limit 0.5
      mpsearch solve --size 50% --limit max:activation_bytes=64KB --limit count:w8=5
      mpsearch solve --min-accuracy 88% --data test.npz --network model.pt
      mpsearch solve --size 50% --refine 24 --data train.npz --network model.pt
    """
    request = parse_measured(**measured)
    table = LayerTable.read_csv(table_path)
    minimand = Minimand.parse(table, minimize)
    if omega_limit is not None:
        limits = (*limits, f"omega={omega_limit}")
    if isinstance(request, MeasuredRequest) and minimize == "omega":
        minimand = Minimand.parse(table, "size_bytes")
    budget = Budget.parse(table, size, bops_limit, limits, lower_limits, minimand.columns)
    unfit = [] if target is None else excludes_for(target, table)
    excludes = (*excludes, *unfit)
    pinned, excluded = parse_pins(pins), parse_excludes(excludes, allows, table)
    if only_ranges:
        from mpsearch.commands.solution_text import print_ranges
        from mpsearch.search.proof import ranges

        found = ranges(table, pinned, excluded, budget.limits, at_least=budget.at_least)
        if as_json:
            print_json({column: asdict(one) for column, one in found.items()})
        else:
            print_ranges(found, budget.limits)
        return 0
    searched = solver != "auto" or time_limit is not None or solver_options
    if isinstance(request, RefineRequest):
        if rerank or from_front or minimize != "omega":
            raise InputError(
                "--refine starts from the least Ω and tries the table's other metrics itself; "
                "leave out --minimize, --from-front and --rerank"
            )
    elif request is not None:
        if rerank or searched or max_distinct is not None:
            raise InputError(
                "--min-accuracy and --max-drop take the exact front; leave out --solver, "
                "--time-limit, --max-distinct and --rerank"
            )
    elif (rerank or from_front) and (max_distinct is not None or minimize != "omega"):
        raise InputError("--max-distinct and --minimize do not go with --from-front or --rerank")
    if from_front is not None and (pinned or excluded):
        raise InputError("a front has its pins and excludes already; leave them out")
    search = {"pin": pins, "exclude": excludes, "allow": allows}
    if isinstance(request, MeasuredRequest):
        return _solve_measured(
            request, table, minimand, budget, (pinned, excluded), from_front, search,
            output, as_json, table_path,
        )  # fmt: skip
    if from_front is not None:
        from mpsearch.search.other_sources import look_up

        solution = look_up(table, from_front, budget)
    else:
        solution = solve_table(
            table,
            budget,
            solver=solver,
            pins=pinned,
            exclude=excluded,
            time_limit=time_limit,
            options=parse_solver_options(solver_options),
            minimize=minimand,
            max_distinct=max_distinct,
        )
    paid = (*budget.limits, *budget.at_least, *minimand.columns)
    unpriced = unpriced_activations(table, sound_provenance(table_path), paid)
    left_out = note_of(target, unfit) if target is not None else []
    solution = replace(solution, notes=(*solution.notes, *left_out, *unpriced))
    document, lines = _document(solution, table), []
    if rerank and solution.choices:
        from mpsearch.interactions.interactions import interactions_path
        from mpsearch.interactions.k_best import describe, to_document
        from mpsearch.knapsack.instance import Instance
        from mpsearch.search.other_sources import reranked

        instance = Instance.build(table, budget.limits, pinned, excluded, (), budget.at_least)
        path = interactions_path(table_path)
        solution, ranking = reranked(
            solution, table, instance, path, rerank, time_limit, sound_provenance(table_path)
        )
        document = _document(solution, table) | {"interactions": to_document(ranking)}
        lines = describe(ranking)
    refined: dict[str, Any] = {}
    if request is not None and solution.choices:
        from mpsearch.commands import refined_solving, refined_text
        from mpsearch.refining.candidates import Asked

        wanted = Asked(table, budget, pinned, excluded, max_distinct)
        model = model_digest_of(sound_provenance(table_path))
        answer = refined_solving.measure(request, wanted, solution, output, time_limit, model)
        if not is_first():
            return 0
        solution = refined_solving.solution_of(answer, wanted, solution)
        refined = refined_text.to_document(answer)
        document = _document(solution, table) | {"refined": refined}
        lines = refined_text.describe(answer)
    if solution.choices:
        search |= {} if max_distinct is None else {"max-distinct": (str(max_distinct),)}
        asked = {option: values for option, values in search.items() if values}
        model = model_digest_of(sound_provenance(table_path))
        model = refined.get("model_digest", model)
        assignment = Assignment.from_solution(solution, table.digest, asked, model)
        replace(assignment, refined=refined).save(output)
    if as_json:
        print_json(document)
    else:
        for note in solution.notes:
            echo(f"note: {note}", err=True)
        if solution.choices:
            print_solution(table, solution)
            _say_what_is_outside(table_path)
            if refined:
                refined_text.print_candidates(answer, table)
            for line in lines:
                echo(line)
            echo(f"wrote {output}")
        else:
            print_failure(solution)
    return 0 if solution.choices else 1


def _solve_measured(
    request: MeasuredRequest,
    table: LayerTable,
    minimand: Minimand,
    budget: Budget,
    choices: tuple[dict[str, Choice], dict[str, set[Choice]]],
    from_front: str | None,
    search: Mapping[str, tuple[str, ...]],
    output: str,
    as_json: bool,
    table_path: str,
) -> int:
    """The smallest assignment whose measured accuracy holds; exit code 1 where none does."""
    from mpsearch.commands.measured_solving import front_within, measure, solution_of
    from mpsearch.measured.answer import to_document
    from mpsearch.measured.words import describe

    resource = str(minimand)
    if resource not in table.columns:
        raise InputError(
            f"got --minimize {resource}; expected one resource column, as accuracy is measured "
            f"along the front of Ω against it: {', '.join(table.columns)}"
        )
    front = front_within(table, resource, budget, *choices, stored=from_front)
    if not len(front):
        infeasible = solve_table(table, budget, pins=choices[0], exclude=choices[1])
        print_failure(infeasible)
        if as_json:
            print_json(_document(infeasible, table))
        return 1
    answer = measure(request, front, output, model_digest_of(sound_provenance(table_path)))
    solution = solution_of(answer, table, budget, resource)
    holds = answer.point is not None
    if holds:
        asked = {option: values for option, values in search.items() if values}
        model = answer.provenance["model_digest"]
        assignment = Assignment.from_solution(solution, table.digest, asked, model)
        replace(assignment, measured=to_document(answer)).save(output)
    if as_json:
        print_json(_document(solution, table) | {"measured": to_document(answer)})
    else:
        print_tables(table, solution)
        _say_what_is_outside(table_path)
        for line in describe(answer, front):
            echo(line)
        echo(f"wrote {output}" if holds else "wrote nothing")
    if not holds:
        echo(f"mpsearch: no measured assignment has {answer.target}", err=True)
    return 0 if holds else 1


def _say_what_is_outside(table_path: str) -> None:
    """One line where profile.json beside the table knows of bytes that no layer has."""
    outside = sound_provenance(table_path).get("float_bytes_outside_layers")
    if isinstance(outside, int) and outside:
        echo(outside_sentence(outside))


def _document(solution: Solution, table: LayerTable) -> dict[str, Any]:
    return {
        "status": solution.status,
        "layers": {
            name: {"w_bits": choice.w_bits, "a_bits": choice.a_bits}
            for name, choice in solution.choices.items()
        },
        "minimize": solution.minimize,
        "objective": solution.objective,
        "omega": solution.omega,
        "bound": solution.bound,
        "gap": solution.gap,
        "solver": solution.solver,
        "seconds": solution.seconds,
        "totals": dict(solution.totals),
        "limits": dict(solution.limits),
        "at_least": dict(solution.at_least),
        "smallest_feasible": {
            column: {"alone": least.alone, "with_other_limits": least.with_others}
            for column, least in solution.smallest.items()
        },
        "notes": list(solution.notes),
        "table_digest": table.digest,
    }

"""`solve`, `front` and `explain` as Python calls them: limits and choices as text, tables as they
come. None of it needs torch, unless accuracy is measured."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

from mpsearch.errors import InputError, did_you_mean
from mpsearch.explaining.explaining import Explanation, WhatIf
from mpsearch.explaining.explaining import explain as explain_assignment
from mpsearch.explaining.explaining import what_if as what_if_of
from mpsearch.knapsack.instance import Instance
from mpsearch.pareto.front import Front
from mpsearch.pareto.front import front as front_of
from mpsearch.python.limits import (
    Amount,
    Columns,
    Groups,
    amount_text,
    as_assignment,
    as_table,
    budget_of,
    searched,
)
from mpsearch.recipes.fitted import as_searched, for_tool
from mpsearch.refining.candidates import Asked
from mpsearch.search.feasible_limits import Range
from mpsearch.search.feasible_limits import ranges as ranges_of
from mpsearch.search.solving import solve as solve_table
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget, Minimand
from mpsearch.tables.choice import Choice
from mpsearch.tables.layer_choices import Choices, Pins
from mpsearch.tables.provenance import unpriced_activations
from mpsearch.tables.solution import Solution
from mpsearch.tables.stored_widths import FORMATS, excludes_for, note_of
from mpsearch.tables.table import LayerTable
from mpsearch.tables.tool import tool_notes
from mpsearch.tables.units import parse_bytes

if TYPE_CHECKING:
    from typing import Unpack

    import pandas as pd

    from mpsearch.interactions.interactions import Interactions, Prediction


class Measured(TypedDict, total=False):
    """What `solve` takes to measure: the keywords of `mpsearch.python.measuring.smallest`."""

    min_accuracy: str | float | None
    max_drop: str | float | None
    min_agreement: str | float | None
    model: Any
    data: Any
    calibration: Any
    confirm: Any
    most: int | str | None
    tolerance: str | float
    settings: Any
    batch_size: int
    device: str
    output: str | os.PathLike[str] | None


TARGETS = ("min_accuracy", "max_drop", "min_agreement")


def solve(
    table: "LayerTable | str | os.PathLike[str] | pd.DataFrame",
    budget: Budget | Amount | Mapping[str, Amount] | None = None,
    *,
    size: Amount | None = None,
    bops: Amount | None = None,
    limits: Any = None,
    at_least: Any = None,
    pin: Pins = (),
    exclude: Choices = (),
    allow: Choices = (),
    pins: Pins = (),
    minimize: Minimand | str | None = None,
    omega_limit: Amount | None = None,
    max_distinct: int | None = None,
    format: str | None = None,
    ram: str | int | None = None,
    flash: str | int | None = None,
    target: str | None = None,
    recipe: str | None = None,
    solver: str = "auto",
    time_limit: float | None = None,
    options: Mapping[str, Any] | None = None,
    explain: bool = True,
    rerank: int | None = None,
    from_front: "Front | str | os.PathLike[str] | None" = None,
    columns: Columns = None,
    groups: Groups = (),
    **measured: "Unpack[Measured]",
) -> Solution:
    """The assignment of least Ω within the limits, proven, as `mpsearch solve` finds it.

    table: a LayerTable, a path, or a DataFrame; of another tool too, with columns and groups as
    `read_table` takes them: `columns={"omega": "kld"}`, `groups="blocks.*.{q,k,v}"`. size, bops:
    `"45KB"`, `"50%"`, `"w8"`, or a number of bytes and operations; `budget` is a size, limits by
    column, or a Budget.
    limits, at_least: of any column, `{"latency_s": "20ms", "count:w8": 5}`. pin: `{"fc2": "w8a8"}`;
    exclude: `{"fc2": ["w2a8"]}`, or `"w2a8"` for every layer; allow: `{"fc2": ["w4a8", "w8a8"]}`;
    pins: an older name of pin.
    minimize: another column, or a sum such as `"omega + 0.5*omega_kl"`, with `omega_limit`.
    max_distinct: at most so many different choices. format: leave out what this file format would
    store at other bits. ram, flash, target: the memory of the C export (docs/ram.md). recipe: the
    tool that it is for, `"torchao"`, as `--for`: its choices, and `size` in its own bytes. solver,
    time_limit (seconds), options: see `mpsearch solvers`. explain: find the smallest feasible
    limits of an infeasible budget. rerank: take the best of so many by the interactions beside the
    table. from_front: look the answer up.

    measured: with `min_accuracy="88%"`, `max_drop=1.0` (points) or `min_agreement="98%"` the
    smallest assignment that reaches it, measured on `data`, as `mpsearch solve --min-accuracy`;
    `model`, `data`, `calibration`: in any form, by default those of the profile; `confirm`: data to
    measure the answer on again; `most` and `tolerance`: `--measure` and `--tolerance`; `settings`:
    a PostTraining; `output`: what was measured is kept beside this file.

    A budget without answer gives a Solution without choices that says what is feasible and, as
    `remedies`, what would help. An answer
    of a solver that breaks a limit or claims too much is replaced, which its notes say. Raises
    InputError for what is no limit, and for a layer or choice that the table lacks.

    >>> best = mpsearch.solve(table, size="60%", pin={"3": "w4a8"})
    >>> best.status, best.bits["3"], best.totals["size_bytes"] <= best.limits["size_bytes"]
    ('optimal', Choice(4, 8), True)
    """
    table = for_tool(as_table(table, columns, groups), recipe)
    pin = pin or pins
    if minimize is None and any(measured.get(target) is not None for target in TARGETS):
        minimize = table.size_column
    minimand = Minimand.parse(table, minimize) if isinstance(minimize, str) else minimize
    limited = budget_of(table, budget, size, bops, limits, at_least, omega_limit, minimand)
    unfit: list[str] = []
    if format is not None:
        if format not in FORMATS:
            close = did_you_mean(format, FORMATS)
            raise InputError(f"got the format {format!r}{close}; expected {', '.join(FORMATS)}")
        unfit = excludes_for(format, table)
    pinned, excludes, recorded = searched(table, pin, exclude, allow, unfit)
    if max_distinct is not None:
        recorded["max-distinct"] = (str(max_distinct),)
    asked = Asked(table, limited, pinned, excludes, max_distinct)
    if measured:
        from mpsearch.python.measuring import smallest

        resource = str(minimand)
        found = smallest(asked, resource, from_front, **measured)
    elif ram is not None or flash is not None:
        from mpsearch.python.memory import solve_within_memory

        found = solve_within_memory(
            asked, minimand or Minimand(), ram, flash, target, solver, time_limit, options or {}
        )
    elif from_front is not None:
        from mpsearch.search.other_sources import look_up

        found = look_up(table, from_front, limited)
    else:
        found = solve_table(
            table, limited, solver, pinned, excludes, time_limit, options, minimand, max_distinct,
            explain,
        )  # fmt: skip
    if rerank and found.choices:
        from mpsearch.interactions.interactions import interactions_path
        from mpsearch.search.other_sources import reranked

        instance = Instance.build(
            table, limited.limits, pinned, excludes, at_least=limited.at_least
        )
        found, _ = reranked(
            found, table, instance, interactions_path(table.source), rerank, time_limit,
            table.provenance,
        )  # fmt: skip
    if found.status == "infeasible" and explain and not measured and ram is None and flash is None:
        from mpsearch.search.remedies import Question, remedies

        typed = [(f"--{name}", text) for name, texts in recorded.items() for text in texts
                 if name in ("pin", "exclude") and text not in unfit]  # fmt: skip
        typed += [] if format is None else [("--format", format)]
        question = Question(table, limited, tuple(typed), max_distinct)
        helping = remedies(question, found.smallest)
        found = replace(found, remedies=helping.found, no_bits_fit=helping.nothing)
    paid = (*limited.limits, *limited.at_least, *(minimand or Minimand()).columns)
    notes = [*tool_notes(table.tool), *([] if format is None else note_of(format, unfit))]
    notes += unpriced_activations(table, table.provenance, paid)
    return replace(found, table=table, search=recorded, notes=(*found.notes, *notes))


def front(
    table: "LayerTable | str | os.PathLike[str] | pd.DataFrame",
    resource: str | None = None,
    limits: Any = None,
    *,
    size: Amount | None = None,
    bops: Amount | None = None,
    at_least: Any = None,
    pin: Pins = (),
    exclude: Choices = (),
    allow: Choices = (),
    pins: Pins = (),
    recipe: str | None = None,
    max_states: int | None = None,
    max_memory: str | int | None = None,
    epsilon: float | None = None,
    columns: Columns = None,
    groups: Groups = (),
) -> Front:
    """All non-dominated points of Ω against a resource within limits, as `mpsearch front`.

    resource: by default the size, or the bytes of the tool that `recipe` names. table, limits, pin,
    exclude, allow, recipe, columns, groups: as `solve` takes them. Exact, unless more states than
    fit `max_memory` (`"1GB"`, the default; with further limits 60,000 states) or than `max_states`
    remain: then some points are missing, and `epsilon` says how much that can matter. Empty where
    the limits are infeasible. epsilon: only as many points as are within a factor 1 + epsilon of
    the best Ω at every amount; None: all, from 1,000 layers on 0.01. Raises InputError as `solve`.

    >>> front = mpsearch.front(table)
    >>> front.exact, front.assignment(0).keys() == solution.choices.keys()
    (True, True)
    """
    table = for_tool(as_table(table, columns, groups), recipe)
    resource = resource or table.size_column
    limited = budget_of(table, None, size, bops, limits, at_least)
    pinned, excludes, recorded = searched(table, pin or pins, exclude, allow)
    memory = (
        None
        if max_memory is None
        else parse_bytes(amount_text("max_memory", "memory_bytes", max_memory))
    )
    found = front_of(
        table, resource, limited.limits, pinned, excludes, max_states, memory, limited.at_least,
        epsilon,
    )  # fmt: skip
    return replace(found, search=recorded, table=table)


def ranges(
    table: "LayerTable | str | os.PathLike[str] | pd.DataFrame",
    *,
    size: Amount | None = None,
    bops: Amount | None = None,
    limits: Any = None,
    at_least: Any = None,
    pin: Pins = (),
    exclude: Choices = (),
    allow: Choices = (),
    recipe: str | None = None,
    columns: Columns = None,
    groups: Groups = (),
) -> dict[str, Range]:
    """What limits can be, by column, as `mpsearch solve --limit-ranges` says it.

    >>> found = mpsearch.ranges(table)["size_bytes"]
    >>> found.least < found.useful <= found.most
    True
    """
    table = for_tool(as_table(table, columns, groups), recipe)
    limited = budget_of(table, None, size, bops, limits, at_least)
    pinned, excludes, _ = searched(table, pin, exclude, allow)
    return ranges_of(table, pinned, excludes, limited.limits, at_least=limited.at_least)


def explain(
    assignment: "Solution | Assignment | str | os.PathLike[str]",
    table: "LayerTable | str | os.PathLike[str] | pd.DataFrame | None" = None,
    *,
    pin: Pins = (),
    exclude: Choices = (),
    allow: Choices = (),
    time_limit: float | None = None,
) -> Explanation:
    """Why every layer has its bits, under the assignment's own limits, as `mpsearch explain`.

    assignment: what `solve` returned, which knows its table, or one that was saved, with the table.
    pin, exclude, allow: beside those that it records. time_limit: seconds for each search. Raises
    InputError for an assignment of another table, of other layers, or against pins and excludes.

    >>> mpsearch.explain(solution).status
    'optimal'
    """
    chosen, searched_in, pinned, excludes = _decided(assignment, table, pin, exclude, allow)
    return explain_assignment(searched_in, chosen, pinned, excludes, time_limit)


def what_if(
    assignment: "Solution | Assignment | str | os.PathLike[str]",
    change: Pins,
    table: "LayerTable | str | os.PathLike[str] | pd.DataFrame | None" = None,
    *,
    pin: Pins = (),
    exclude: Choices = (),
    allow: Choices = (),
    time_limit: float | None = None,
) -> WhatIf:
    """The best assignment under the same limits if layers had these choices: `{"fc2": "w8a8"}`.

    As `mpsearch explain --what-if`; the other arguments are those of `explain`.

    >>> answer = mpsearch.what_if(solution, {"0": "w4a8"})
    >>> answer.solution.bits["0"]
    Choice(4, 8)
    """
    chosen, searched_in, pinned, excludes = _decided(assignment, table, pin, exclude, allow)
    changes, _, _ = searched(searched_in, change)
    return what_if_of(searched_in, chosen, changes, pinned, excludes, time_limit)


def _decided(
    given: Any, table: Any, pin: Any, exclude: Any, allow: Any
) -> tuple[Assignment, LayerTable, dict[str, Choice], dict[str, set[Choice]]]:
    """The assignment, its table, and what both the search and the caller pin and exclude."""
    if isinstance(given, LayerTable):  # in the other order
        given, table = table, given
    given, table = as_assignment(given, table)
    if table is None:
        raise InputError("an assignment does not hold its table; expected explain(it, table)")
    known = given.search
    table = as_table(table, groups=known.get("group", ()))
    table = table if table.tool is not None else as_searched(table, known)
    pinned, excludes, _ = searched(
        table, known.get("pin", ()), known.get("exclude", ()), known.get("allow", ())
    )
    more, others, _ = searched(table, pin, exclude, allow)
    for layer, choices in others.items():
        excludes.setdefault(layer, set()).update(choices)
    return given, table, {**pinned, **more}, excludes


def predict(interactions: "Interactions | str | os.PathLike[str]", assignment: Any) -> "Prediction":
    """Loss and accuracy of an assignment from stored changes: no pass through the network.

    interactions: what `load_interactions` read, or the path of `profile(…, interactions=True)`.
    assignment: as `apply` takes it. Raises InputError for interactions that lack a layer.

    >>> _ = mpsearch.profile(model, (x, y), "together.csv", interactions=True)
    >>> mpsearch.predict("together.interactions.npz", solution).samples
    96
    """
    from mpsearch.interactions.interactions import load_interactions
    from mpsearch.interactions.interactions import predict as predict_choices
    from mpsearch.python.chosen import choices_of

    if isinstance(interactions, str | os.PathLike):
        interactions = load_interactions(interactions)
    return predict_choices(interactions, choices_of(assignment, interactions.layers))

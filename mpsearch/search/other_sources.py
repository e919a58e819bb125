"""Solutions that are not searched in the table alone: looked up in a front, or re-ranked."""

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mpsearch.errors import InputError
from mpsearch.interactions.interactions import Interactions, load_interactions
from mpsearch.interactions.k_best import Ranking, rerank
from mpsearch.knapsack.instance import Instance
from mpsearch.pareto.files import answer, read_json
from mpsearch.pareto.front import Front
from mpsearch.search.not_binding import not_binding
from mpsearch.tables.budget import Budget, total_of, totals_of
from mpsearch.tables.provenance import Judged, check_weights, model_digest_of
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable

SECONDS = 10.0  # for the K best, which take long where very many are about equally good


def look_up(table: LayerTable, path: "Front | str | os.PathLike[str]", budget: Budget) -> Solution:
    """The optimum under a budget, from an exact front of this table; equals `solve`.

    Raises InputError for a front that cannot answer, and for limits that it has no point within.
    """
    started = time.monotonic()
    front = path if isinstance(path, Front) else read_json(path)
    name = "the front" if isinstance(path, Front) else os.fspath(path)
    point = answer(front, table.digest, budget.limits, budget.at_least, table.recorded)
    if point is None:
        raise InputError(
            f"{name} has no point within the limits; `mpsearch solve` without "
            "--from-front gives the smallest feasible values"
        )
    choices = front.assignment(point)
    omega = float(table.total(choices, "omega"))
    return Solution(
        status="optimal",
        choices=choices,
        objective=omega,
        bound=omega,
        gap=0.0,
        seconds=time.monotonic() - started,
        solver="front",
        totals=totals_of(table, choices, budget.limits, budget.at_least),
        limits=budget.limits,
        at_least=budget.at_least,
        omega=omega,
        not_binding=not_binding(table, budget, choices),
    )


def check_is_of_table(interactions: Interactions, provenance: Mapping[str, Any], name: str) -> None:
    """Raise InputError for interactions of other weights or data than the table's."""
    remedy = "make table and interactions together with `mpsearch profile MODEL --interactions`"
    model, data = model_digest_of(provenance), provenance.get("data_digest")
    judged = Judged({} if model is None else {"the table": model})
    check_weights(interactions.model_digest, name, judged, remedy)
    if interactions.data_digest and isinstance(data, str) and interactions.data_digest != data:
        raise InputError(
            f"{name} is of other data than the table: {interactions.data_digest[:19]}, there "
            f"{data[:19]}",
            remedy,
        )


def reranked(
    solution: Solution,
    table: LayerTable,
    instance: Instance,
    path: str | os.PathLike[str],
    count: int,
    seconds: float | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> tuple[Solution, Ranking]:
    """Replace the additive optimum by the best of the `count` best by superposed outputs.

    Objective, bound and gap stay those of Ω. seconds: default 10. provenance: of the table;
    InputError for interactions of other weights or data than it names.
    """
    started = time.monotonic()
    interactions = load_interactions(path)
    check_is_of_table(interactions, provenance or {}, os.fspath(path))
    deadline = started + (SECONDS if seconds is None else seconds)
    ranking = rerank(instance, interactions, solution.choices, count, deadline)
    choices = {layer: ranking.winner.choices[layer] for layer in table.layer_names}
    omega = float(table.total(choices, "omega"))
    bound = solution.bound or 0.0
    same = omega == solution.objective
    new = replace(
        solution,
        status=solution.status if same else "feasible",
        choices=choices,
        objective=omega,
        omega=omega,
        gap=solution.gap if same else (omega - bound) / omega,
        solver=f"{solution.solver}, re-ranked",
        seconds=solution.seconds + time.monotonic() - started,
        totals={key: total_of(table, choices, key) for key in solution.totals},
    )
    return new, ranking

"""From what a run folder holds to the facts of its report."""

from collections import Counter
from collections.abc import Mapping

import mpsearch
from mpsearch.agreement import contradictions, recomputed_totals
from mpsearch.assignment import Assignment
from mpsearch.choice import Choice
from mpsearch.errors import InputError
from mpsearch.evaluation import Evaluation, Evaluations, paired_drop, wilson_interval
from mpsearch.exact import exact_sum
from mpsearch.front import Front, front
from mpsearch.reports.commands import commands_of
from mpsearch.reports.device_facts import device_facts
from mpsearch.reports.facts import (
    AccuracyFacts,
    AnswerFacts,
    Facts,
    FrontFacts,
    LayerFacts,
    LimitFacts,
    Point,
)
from mpsearch.reports.measured_figure import measured_facts
from mpsearch.reports.run_folder import Run
from mpsearch.table import LayerTable

FRONT_WORK = 20_000_000  # states times layers of the search: a report waits seconds for its front
FRONT_STATES = 200_000
EIGHT = Choice(8, 8)


def gather(run: Run) -> Facts:
    """The facts of a run; what is missing in it is missing in them.

    Totals come from the table where there is one, not from what assignment.json states, and a
    difference between the two is a warning. Raises InputError for nothing: a run that was read is
    enough.
    """
    warnings: list[str] = []
    fitting = _fitting(run, warnings)
    answer = _answer(run.assignment, fitting)
    _compare_measured(run, answer, warnings)
    evaluations = run.evaluations
    data_names = [str(run.provenance.get("data", "")), evaluations.data_name if evaluations else ""]
    return Facts(
        version=mpsearch.__version__,
        generated=any("generated" in name.lower() for name in data_names),
        limits=_limits(run, answer),
        answer=answer,
        uniform=_uniform(run.table),
        front=_front(run, warnings),
        layers=_layers(run.table, run.assignment, fitting),
        accuracies=_accuracies(evaluations),
        accuracy_data=evaluations.data_name if evaluations else None,
        held_out=evaluations.held_out if evaluations else True,
        device=device_facts(run, warnings),
        provenance=run.provenance,
        commands=commands_of(run),
        missing=run.missing,
        warnings=tuple(warnings),
    )


def _fitting(run: Run, warnings: list[str]) -> LayerTable | None:
    """The table if the assignment's choices are in it; a warning for what does not agree."""
    if run.table is None or run.assignment is None:
        return None
    try:
        wrong = contradictions(run.assignment, run.table)
    except InputError as error:
        warnings.append(f"the assignment and the table are of different networks: {error}")
        return None
    if wrong:
        warnings.append(f"the assignment's own totals are not the table's: {'; '.join(wrong)}")
    if run.assignment.table_digest not in (None, run.table.digest):
        warnings.append("the assignment was chosen from another table than this one; solve again")
    return run.table


def _answer(assignment: Assignment | None, table: LayerTable | None) -> AnswerFacts | None:
    if assignment is None:
        return None
    if table is None:
        stated = assignment.omega
        if stated is None and assignment.minimize == "omega":
            stated = assignment.objective
        omega = float("nan") if stated is None else stated
        point = Point("chosen", omega, assignment.totals)
    else:
        point = _point("chosen", table, assignment.layers)
    counts = Counter(assignment.layers.values())
    return AnswerFacts(
        status=assignment.status,
        gap=assignment.gap,
        bound=assignment.bound,
        solver=assignment.solver,
        seconds=assignment.seconds,
        point=point,
        layers_by_choice={str(choice): counts[choice] for choice in sorted(counts)},
        minimize=assignment.minimize,
    )


def _point(name: str, table: LayerTable, layers: Mapping[str, Choice]) -> Point:
    totals = recomputed_totals(Assignment(layers), table)
    return Point(name, float(table.total(layers, "omega")), totals)


def _limits(run: Run, answer: AnswerFacts | None) -> tuple[LimitFacts, ...]:
    if run.assignment is None:
        return ()
    eight = next((point for point in _uniform(run.table) if point.name == str(EIGHT)), None)
    facts = []
    for column, limit in run.assignment.limits.items():
        total = run.assignment.totals.get(column)
        if answer:
            total = answer.point.totals.get(column, total)
        whole = eight.totals.get(column) if eight else None
        slack = None if total is None else limit - total
        facts.append(LimitFacts(column, limit, total, slack, limit / whole if whole else None))
    return tuple(facts)


def _uniform(table: LayerTable | None) -> tuple[Point, ...]:
    """One point for every choice that all layers have."""
    if table is None:
        return ()
    return tuple(
        _point(str(choice), table, dict.fromkeys(table.layer_names, choice))
        for position, choice in enumerate(table.choices)
        if (table.row_index[:, position] >= 0).all()
    )


def _front(run: Run, warnings: list[str]) -> FrontFacts | None:
    """The front that was written, or the table's, over size where it is a column."""
    found: Front | None = run.front
    if found is not None and run.table is not None and found.table_digest != run.table.digest:
        warnings.append("front.json is of another table; the front shown is computed from this one")
        found = None
    if found is None and run.table is not None:
        columns = run.table.columns
        resource = "size_bytes" if "size_bytes" in columns else columns[0]
        states = min(FRONT_STATES, max(1000, FRONT_WORK // len(run.table.layers)))
        found = front(run.table, resource, max_states=states)
    if found is None or not len(found):
        return None
    return FrontFacts(
        resource=found.resource,
        exact=found.exact,
        limits=found.limits,
        omega=tuple(found.omega.tolist()),
        totals=tuple(found.totals[found.resource].tolist()),
        measured=measured_facts(found),
    )


def _layers(
    table: LayerTable | None, assignment: Assignment | None, fitting: LayerTable | None
) -> tuple[LayerFacts, ...]:
    if table is None:
        chosen = assignment.layers if assignment else {}
        return tuple(
            LayerFacts(name, "", 0, 0, choice, None, None, {}, {}, {})
            for name, choice in chosen.items()
        )
    choices: dict[str, dict[Choice, tuple[float, float]]] = {n: {} for n in table.layer_names}
    costs = {}
    for row in table.rows():
        choices[row.layer][row.choice] = (row.omega, row.omega_stderr)
        costs[row.layer, row.choice] = {"omega": row.omega, **row.resources}
    selected = assignment.layers if assignment and fitting else {}
    totals = {
        column: exact_sum([costs[layer, choice][column] for layer, choice in selected.items()])
        for column in ("omega", *table.columns)
    }
    facts = []
    for layer in table.layers:
        choice = selected.get(layer.name)
        spent = costs[layer.name, choice] if choice else {}
        shares = {
            column: value / totals[column] for column, value in spent.items() if totals[column]
        }
        omega, stderr = choices[layer.name][choice] if choice else (None, None)
        resources = {column: value for column, value in spent.items() if column != "omega"}
        facts.append(
            LayerFacts(
                layer.name, layer.kind, layer.weights, layer.macs, choice, omega, stderr,
                resources, shares, dict(sorted(choices[layer.name].items())),
            )
        )  # fmt: skip
    return tuple(facts)


def _accuracies(evaluations: Evaluations | None) -> tuple[AccuracyFacts, ...]:
    if evaluations is None:
        return ()
    reference = evaluations.named("FP32")
    return tuple(_accuracy(row, reference) for row in evaluations.rows if row.n)


def _accuracy(row: Evaluation, reference: Evaluation | None) -> AccuracyFacts:
    lost, interval, smaller = None, None, None
    if reference is not None and reference is not row:
        if reference.n == row.n:
            drop, (low, high) = paired_drop(reference.correct, row.correct)
            lost, interval = 100 * drop, (100 * low, 100 * high)
        if reference.size_bytes and row.size_bytes:
            smaller = reference.size_bytes / row.size_bytes
    hits = sum(row.correct)
    return AccuracyFacts(
        name=row.name,
        n=row.n,
        accuracy=hits / row.n,
        interval=wilson_interval(hits, row.n),
        lost=lost,
        lost_interval=interval,
        loss=row.loss,
        loss_interval=row.loss_interval,
        size_bytes=row.size_bytes,
        bops=row.bops,
        times_smaller=smaller,
    )


def _compare_measured(run: Run, answer: AnswerFacts | None, warnings: list[str]) -> None:
    """Whether the row `assignment` was measured on the assignment that is shown."""
    row = run.evaluations.named("assignment") if run.evaluations else None
    if row is None or answer is None:
        return
    for column, value in (("size_bytes", row.size_bytes), ("bops", row.bops)):
        total = answer.point.totals.get(column)
        if value is not None and total is not None and value != total:
            warnings.append(
                f"the measured network has {column} {value}, the assignment shown {total}: "
                "the accuracies may be of another assignment; evaluate again"
            )

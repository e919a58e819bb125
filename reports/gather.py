"""From what a run folder holds to the facts of its report."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import mpsearch
from mpsearch.errors import InputError
from mpsearch.pareto.front import Front
from mpsearch.reports.accuracy_facts import (
    accuracy_facts,
    accuracy_warnings,
    bundled_name,
    check_evidence,
    confusion_facts,
    metric_facts,
    near_facts,
    published_facts,
    untied,
)
from mpsearch.reports.commands import MODEL, commands_of, measuring_commands, model_of
from mpsearch.reports.device_facts import device_facts, price_facts
from mpsearch.reports.facts import AnswerFacts, Facts, LayerFacts, LimitFacts, Point
from mpsearch.reports.front_facts import (
    finite,
    fp32_point,
    front_facts,
    prediction_facts,
    table_front,
)
from mpsearch.reports.python_calls import calls_of, is_made_in_python, measuring_calls
from mpsearch.reports.run_folder import Run
from mpsearch.tables.assignment import Assignment, contradictions, recomputed_totals
from mpsearch.tables.choice import Choice
from mpsearch.tables.exact import exact_sum
from mpsearch.tables.provenance import is_of_another, not_its_table
from mpsearch.tables.table import LayerTable

EIGHT = Choice(8, 8)


def gather(run: Run) -> Facts:
    """The facts of a run; what is missing in it is missing in them.

    Totals come from the table where there is one, not from what assignment.json states, and a
    difference between the two is a warning. Raises InputError for figures of another network, as
    `check_evidence` does, and for nothing else: a run that was read is enough.
    """
    check_evidence(run)
    warnings: list[str] = untied(run)
    fitting = fitting_table(run, warnings)
    answer = answer_facts(run.assignment, fitting)
    evaluations = run.evaluations
    warnings += accuracy_warnings(evaluations, answer)
    accuracies = accuracy_facts(evaluations)
    front = _front(run, warnings)
    in_python = is_made_in_python(run)
    data_names = [str(run.provenance.get("data", "")), evaluations.data_name if evaluations else ""]
    return Facts(
        version=mpsearch.__version__,
        generated=any("generated" in name.lower() for name in data_names),
        limits=_limits(run, answer),
        answer=answer,
        uniform=uniform_points(run.table),
        front=front_facts(front) if front is not None else None,
        layers=_layers(run.table, run.assignment, fitting),
        accuracies=accuracies,
        metrics=metric_facts(evaluations),
        near=near_facts(evaluations),
        measured_samples=evaluations.rows[0].n if evaluations and evaluations.rows else 0,
        accuracy_data=evaluations.data_name if evaluations else None,
        held_out=evaluations.held_out if evaluations else True,
        device=device_facts(run, warnings),
        fp32=fp32_facts(run, front),
        predictions=prediction_facts(front),
        published=published_facts(run.table, accuracies),
        confusion=confusion_facts(evaluations),
        prices=price_facts(fitting, run.assignment),
        provenance=run.provenance,
        commands=calls_of(run) if in_python else commands_of(run),
        missing=run.missing,
        warnings=tuple(warnings),
        name=network_name(run),
        date=run.date,
        measure=()
        if run.foreign
        else measuring_calls(run)
        if in_python
        else measuring_commands(run),
    )


def fitting_table(run: Run, warnings: list[str]) -> LayerTable | None:
    """The table if the assignment's choices are in it; a warning for what does not agree."""
    if run.table is None or run.assignment is None:
        return None
    same_layers = set(run.assignment.layers) == set(run.table.layer_names)
    other = is_of_another(run.assignment, run.table)
    try:
        wrong = contradictions(run.assignment, run.table)
    except InputError as error:
        reason = not_its_table(run.assignment, run.table)
        if not (same_layers and other):
            text = " ".join(error.lines)
            reason = f"the assignment and the table are of different networks: {text}"
        warnings.append(reason)
        return None
    if wrong:
        warnings.append(f"the assignment's own totals are not the table's: {'; '.join(wrong)}")
    if other:
        warnings.append(not_its_table(run.assignment, run.table))
    return run.table


def network_name(run: Run) -> str:
    """A bundled network's name, else that of its file, else of the folder that the run lies in.

    `model.pt` says no more than that it is a model, so its folder is named.
    """
    bundled = bundled_name(run.table)
    if bundled is not None:
        return f"tinym2net-{bundled}"
    stem = Path(model_of(run.provenance)).stem
    return run.folder or stem if stem == Path(MODEL).stem else stem


def answer_facts(assignment: Assignment | None, table: LayerTable | None) -> AnswerFacts | None:
    """The chosen assignment, with the table's totals where there is one that fits."""
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
    eight = next((point for point in uniform_points(run.table) if point.name == str(EIGHT)), None)
    facts = []
    for column, limit in run.assignment.limits.items():
        total = run.assignment.totals.get(column)
        if answer:
            total = answer.point.totals.get(column, total)
        whole = eight.totals.get(column) if eight else None
        slack = None if total is None else limit - total
        facts.append(LimitFacts(column, limit, total, slack, limit / whole if whole else None))
    found = run.assignment.memory  # planned, and no sum over the layers
    for name in ("ram", "flash"):
        if f"{name}_limit" in found:
            total, limit = found[f"{name}_bytes"], found[f"{name}_limit"]
            facts.append(LimitFacts(f"{name}_bytes", limit, total, limit - total, None))
    return tuple(facts)


def uniform_points(table: LayerTable | None) -> tuple[Point, ...]:
    """One point for every choice that all layers have."""
    if table is None:
        return ()
    return tuple(
        _point(str(choice), table, dict.fromkeys(table.layer_names, choice))
        for position, choice in enumerate(table.choices)
        if (table.row_index[:, position] >= 0).all()
    )


def _front(run: Run, warnings: list[str]) -> Front | None:
    """The front that was written, or the table's; without points that are no numbers."""
    found: Front | None = run.front
    if found is not None and run.table is not None and found.table_digest != run.table.digest:
        warnings.append("front.json is of another table; the front shown is computed from this one")
        found = None
    if found is None and run.table is not None and run.table.columns:
        found = table_front(run.table)
    if found is None:
        return None
    kept = finite(found)
    if len(kept) < len(found):
        lost = len(found) - len(kept)
        warnings.append(f"{lost} points of front.json have values that are no finite numbers")
    return kept if len(kept) else None


def fp32_facts(run: Run, front: Front | None) -> Point | None:
    """The float network, from its measurement or from the table's provenance."""
    row = run.evaluations.named("FP32") if run.evaluations else None
    size, macs = run.provenance.get("fp32_bytes"), run.provenance.get("macs")
    return fp32_point(
        front,
        (row.size_bytes if row else None) or (size if isinstance(size, int) else None),
        (row.bops if row else None) or (32 * 32 * macs if isinstance(macs, int) else None),
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
    known = {choice: choice for choice in table.choices}  # with the bits that the table says
    chosen = assignment.layers if assignment and fitting else {}
    selected = {name: known[choice] for name, choice in chosen.items()}
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

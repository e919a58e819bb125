"""The commands that repeat a run, as its files record it."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpsearch.evaluation.evaluation import Evaluations
from mpsearch.pareto.front import Front
from mpsearch.post_training.words import options_of
from mpsearch.reports.front_facts import measured_facts
from mpsearch.reports.run_folder import Run
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import is_choice
from mpsearch.tables.units import is_size

MODEL = "model.pt"  # a table that was made from Python knows its model by digest alone
SAMPLE_OF = "the sample in "


def commands_of(run: Run) -> tuple[str, ...]:
    """One shell command per piece that is there; `model.pt` stands for an unrecorded model file.

    Limits are written as absolute numbers, so they hold whatever they were asked as.
    """
    table = run.paths.get("profile", "profile.csv")
    commands = []
    if run.provenance:
        model = model_of(run.provenance)
        grouped = run.table is not None and any(layer.group for layer in run.table.layers)
        words = [*profile_options(run.provenance), *(["--group-residual"] if grouped else [])]
        commands.append(["profile", model, *words, "-o", table])
    if run.assignment is not None and run.assignment.status != "given":
        output = run.paths.get("assignment", "assignment.json")
        commands.append(["solve", table, *search_options(run.assignment), "-o", output])
    if run.front is not None:
        output = str(Path(run.paths.get("front", "front.json")).with_suffix(".csv"))
        words = ["--resource", run.front.resource, *asked_options(run.front)]
        commands.append(["front", table, *words, "-o", output])
        commands += _measured_front(run, run.front, output)
    if run.evaluations is not None:
        model = model_of(run.provenance, run.evaluations.data_name)
        commands.append(["evaluate", model, *_evaluate(run, run.evaluations)])
    return tuple("mpsearch " + shlex.join(words) for words in commands)


def model_of(provenance: Mapping[str, Any], measured_on: str = "") -> str:
    """The model file as far as it is recorded, else by its own sample; `model.pt` stands for it
    elsewhere. measured_on: data of an evaluation, where there is no provenance."""
    recorded = provenance.get("model_file")
    if isinstance(recorded, str):
        return recorded
    data = str(provenance.get("data", measured_on))
    return data.removeprefix(SAMPLE_OF) if data.startswith(SAMPLE_OF) else MODEL


def measuring_commands(run: Run) -> tuple[str, ...]:
    """What measures the accuracies, where none are, and points of the front, where none are."""
    model = model_of(run.provenance)
    table = run.paths.get("profile", "profile.csv")
    commands = []
    if run.assignment is not None and run.evaluations is None:
        chosen = run.paths.get("assignment", "assignment.json")
        commands.append(["evaluate", model, "--assignment", chosen, "--uniform", "w8a8"])
    if run.table is not None and (run.front is None or not run.front.measured):
        front = Path(run.paths.get("front", str(Path(table).with_name("front.csv"))))
        if run.front is None:
            commands.append(["front", table, "-o", str(front.with_suffix(".csv"))])
        commands.append(["evaluate", model, "--front", str(front.with_suffix(".csv")),
                         "--points", "8"])  # fmt: skip
    unseen = ["--data", "test.npz"]
    return tuple(
        "mpsearch " + shlex.join([*words, *(unseen if words[0] == "evaluate" else [])])
        for words in commands
    )


def profile_options(provenance: Mapping[str, Any]) -> list[str]:
    """The options of `mpsearch profile` that its provenance records."""
    words = []
    if not str(provenance.get("data", SAMPLE_OF)).startswith(SAMPLE_OF):
        words += ["--data", str(provenance["data"])]
    options = ("metric", "choices", "samples", "batch_size", "rtol", "max_probes", "seed")
    for option in options:
        if option in provenance:
            value = provenance[option]
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            words += ["--" + option.replace("_", "-"), text]
    return [*words, *_losses(str(provenance.get("loss", "")))]


def _losses(name: str) -> list[str]:
    """`class=cross-entropy + box=mse` as options; none for what classifiers have unasked."""
    if name in ("", "cross-entropy", "kl-to-fp32"):
        return []
    return [word for part in name.split(" + ") for word in ("--loss", part)]


def search_options(assignment: Assignment) -> list[str]:
    """The options of `mpsearch solve` that an assignment records."""
    words = asked_options(assignment)
    if assignment.minimize != "omega":
        words += ["--minimize", assignment.minimize]
    found = assignment.measured
    for option, value in (
        ("--min-accuracy", found.get("min_accuracy")),
        ("--max-drop", found.get("max_drop")),
        ("--min-agreement", found.get("min_agreement")),
    ):
        if isinstance(value, float):
            sign = "" if option == "--max-drop" else "%"
            words += [option, f"{100 * value:.10g}{sign}", *_measured_on(found)]
            words += ["--measure", str(found.get("most") or "all")]
            words += ["--tolerance", f"{100 * found.get('tolerance', 0):.10g}%"]
            words += options_of(found.get("post_training"))
    if assignment.refined:
        words += ["--refine", str(assignment.refined["asked"]), *_measured_on(assignment.refined)]
        words += options_of(assignment.refined["post_training"])
    return words


def _measured_on(facts: Mapping[str, Any]) -> list[str]:
    """Data and calibration of something measured, where they are not a model file's sample."""
    words = []
    for option in ("data", "calibration"):
        if not str(facts.get(option, SAMPLE_OF)).startswith(SAMPLE_OF):
            words += [f"--{option}", str(facts[option])]
    return words


def _measured_front(run: Run, front: Front, output: str) -> list[list[str]]:
    """The command that measures the points that are measured; none where there are none."""
    found = measured_facts(front)
    if found is None:
        return []
    sizes = [f"{total}{'B' if is_size(front.resource) else ''}" for total in found.totals]
    words = [word for size in sizes for word in ("--point", size)]
    if len(sizes) == len(front):
        words = ["--points", "all"]
    model = model_of(run.provenance)
    words += [*_measured_on(front.measurement), *options_of(front.measurement.get("settings"))]
    return [["evaluate", model, "--front", output, *words]]


def asked_options(found: Assignment | Front) -> list[str]:
    """Limits, pins and the like, which `solve` and `front` share."""
    words = _limits(found.limits)
    for key, limit in found.at_least.items():
        words += ["--at-least", f"{key}={limit!r}{'B' if is_size(key) else ''}"]
    for option, values in found.search.items():
        words += [word for value in values for word in (f"--{option}", value)]
    return words


def _limits(limits: Mapping[str, int | float]) -> list[str]:
    words = []
    for column, limit in limits.items():
        text = f"{limit!r}B" if is_size(column) else repr(limit)
        if column == "size_bytes":
            words += ["--size", text]
        elif column == "bops":
            words += ["--bops-limit", text]
        else:
            words += ["--limit", f"{column}={text}"]
    return words


def _evaluate(run: Run, evaluations: Evaluations) -> list[str]:
    """Rows that are an assignment or one choice everywhere; others need commands of their own."""
    words = []
    if evaluations.named("assignment") is not None:
        words += ["--assignment", run.paths.get("assignment", "assignment.json")]
    uniform = [row for row in evaluations.rows if is_choice(row.name)]
    for row in uniform:
        words += ["--uniform", row.name]
    made = [row for row in (evaluations.named("assignment"), *uniform) if row is not None]
    if made:
        words += options_of(made[0].origin.post_training)
    if not evaluations.data_name.startswith(SAMPLE_OF):
        words += ["--data", evaluations.data_name]
    words += _losses(evaluations.loss)
    return [*words, "-o", run.paths.get("evaluation", "evaluation.json")]

"""`mpsearch evaluate`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mpsearch.commands.console import echo, json_option, print_json, print_table, progress
from mpsearch.commands.grouping import READING, REPAIRING, Grouped
from mpsearch.commands.options import (
    ModelOptions,
    PostTrainingOptions,
    device_option,
    loss_option,
    model_options,
    post_training_options,
)
from mpsearch.errors import InputError

if TYPE_CHECKING:
    from mpsearch.evaluation.evaluation import Evaluations
    from mpsearch.importers.loading import ModelSource
    from mpsearch.pareto.front import Front
    from mpsearch.post_training.repairing import PostTraining

POINTS = 12


@dataclass(frozen=True)
class EvaluateRequest:
    """The options of `mpsearch evaluate`, as they were typed; its help says what each is."""

    path: str
    assignment: str | None
    uniform: tuple[str, ...]
    front_path: str | None
    points: str | None
    amounts: tuple[str, ...]
    remeasure: bool
    plot: str | None
    data: str | None
    calibration: str | None
    fp32: str | None
    integer: bool
    metrics: tuple[str, ...]
    loss: tuple[str, ...]
    device: str
    batch_size: int
    output: str | None
    post_training: PostTrainingOptions
    model: ModelOptions
    as_json: bool


GROUPS = {
    "What is measured": ("data", "assignment", "uniform", "fp32", "integer", "metric", "loss"),
    "Points of a front": ("front", "points", "point", "remeasure", "plot"),
    "How it is quantized": ("calibration", *REPAIRING),
    "Output": ("output", "json", "help"),
    "Computing": ("device", "batch-size"),
    "Reading MODEL": READING,
}  # fmt: skip


@click.command(cls=Grouped, groups=GROUPS)
@click.argument("path", metavar="MODEL")
@click.option("--assignment", metavar="FILE", help="Also measure this assignment of a float MODEL.")
@click.option(
    "--uniform", multiple=True, metavar="w8a8", help="Also measure one choice everywhere."
)
@click.option(
    "--front", "front_path", metavar="FRONT.csv",
    help="Measure points of this front, and add the columns to it.",
)  # fmt: skip
@click.option(
    "--points", metavar="N|all",
    help=f"How many points of the front [default: {POINTS}]: both ends, then the middle of the "
    "widest gap in log size, again and again.",
)  # fmt: skip
@click.option(
    "--point", "amounts", multiple=True, metavar="145KB",
    help="Or the point of least Ω within this size. Repeatable.",
)  # fmt: skip
@click.option(
    "--remeasure", is_flag=True, help="Drop what the front holds of other data or networks."
)
@click.option("--plot", metavar="FILE.png", help="Draw the front with what was measured on it.")
@click.option(
    "--data", metavar="D", help="Data, labelled or not [default: the model file's sample]."
)
@click.option(
    "--calibration", metavar="D", help="Data for the ranges [default: the model file's sample]."
)
@click.option("--fp32", metavar="MODEL", help="The float model beside a quantized MODEL.")
@click.option(
    "--integer",
    is_flag=True,
    help="Also with integers only, as a device computes.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="[OUTPUT=]METRIC",
    help="accuracy, balanced-accuracy, top5, f1, auc, mae, mse, rmse, r2, against FP32 agreement, "
    "kl, sqnr, or package.module:function; repeatable [default: by the loss].",
)
@loss_option
@device_option
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True)
@click.option("-o", "--output", metavar="FILE", help="[default: evaluation.json]")
@post_training_options
@model_options
@json_option
def evaluate(**options: Any) -> None:
    """Measure accuracy and loss of MODEL, with 95 % intervals, beside FP32; without labels how far
    it agrees with FP32.

    MODEL is a float model (measured as it is and, with --assignment or --uniform, quantized) or a
    file written by `mpsearch apply`. With --front, points of a front that `mpsearch front -o` wrote
    are measured instead; what was measured before is kept, so a killed run goes on.

    \b
    Example:
      mpsearch evaluate model.pt --assignment assignment.json --data test.npz
      mpsearch evaluate quantized.pt --fp32 model.pt --metric f1 -o f1.json
      mpsearch evaluate model.pt --front front.csv --points 12 --data test.npz
    """
    request = EvaluateRequest(**options)
    source, settings = request.model.source(request.path), request.post_training.settings()
    if request.front_path is not None:
        _measure_front(request, request.front_path, source, settings)
    else:
        _measure_networks(request, source, settings)


def _measure_networks(
    request: EvaluateRequest, source: "ModelSource", settings: "PostTraining"
) -> None:
    """Write evaluation.json: the float network and what is made of it, or a quantized file."""
    from mpsearch.evaluation.evaluation import save_evaluations
    from mpsearch.evaluation.subjects import EvaluationRequest, run

    of_fronts = request.points is not None or request.amounts or request.remeasure
    if of_fronts or request.plot is not None:
        raise InputError("--points, --point, --remeasure and --plot go with --front FRONT.csv")
    evaluations = run(
        EvaluationRequest(
            source=source,
            assignment=request.assignment,
            uniform=request.uniform,
            data=request.data,
            calibration=request.calibration,
            fp32=request.fp32,
            batch_size=request.batch_size,
            post_training=settings,
            integer=request.integer,
            losses=request.loss,
            metrics=request.metrics,
            device=request.device,
        )
    )
    output = request.output or "evaluation.json"
    save_evaluations(evaluations, output)
    if request.as_json:
        print_json(_document(evaluations))
        return
    print_evaluations(evaluations)
    if evaluations.named("FP32") is None:
        echo("FP32 is not known on these samples; --fp32 MODEL measures it beside, for points lost")
    echo(f"wrote {output}")


def _measure_front(
    request: EvaluateRequest, front_path: str, source: "ModelSource", settings: "PostTraining"
) -> None:
    """Measure points of a stored front, and add the columns to it."""
    from mpsearch.evaluation.subjects import load_subject
    from mpsearch.measured.front import measure_front, read_front
    from mpsearch.pareto.files import points_of
    from mpsearch.reports.writing import check_picture, plot_front
    from mpsearch.running.workers import join, leave

    files = (request.assignment, request.fp32, request.output)
    if files != (None, None, None) or request.uniform or request.integer:
        raise InputError(
            "--front adds its columns to the front; leave out --assignment, --uniform, --fp32, "
            "--integer and -o"
        )
    if request.metrics or request.loss:
        raise InputError("--front measures accuracy, or agreement; leave out --metric and --loss")
    if request.points is not None and request.amounts:
        raise InputError("got --points and --point; name the points in one of the two ways")
    if request.plot is not None:
        check_picture(request.plot)
    front = read_front(front_path)
    points = points_of(front, request.points or str(POINTS), request.amounts)
    subject = load_subject(
        source, request.data, request.calibration, request.batch_size, settings,
        need_labels=False, device=request.device,
    )  # fmt: skip
    workers = join()
    with progress("evaluate the front", len(points)) as step:
        front = measure_front(front, points, subject, front_path, request.remeasure, step, workers)
    leave(workers)
    if workers.rank:
        return
    if request.plot is not None:
        plot_front(front, request.plot)
    if request.as_json:
        print_json(_front_document(front, points))
        return
    _print_front(front, points)
    stored = Path(front_path)
    for written in (stored.with_suffix(".csv"), stored.with_suffix(".json"), request.plot):
        if written:
            echo(f"wrote {written}")


def _front_document(front: "Front", points: list[int]) -> dict[str, Any]:
    rows = []
    for point in points:
        values = {name: float(column[point]) for name, column in front.measured.items()}
        rows.append(
            {
                "point": point,
                "omega": float(front.omega[point]),
                "totals": {name: column[point].item() for name, column in front.totals.items()},
                **{name: None if math.isnan(value) else value for name, value in values.items()},
            }
        )
    fp32 = {k: v for k, v in front.measurement["fp32"].items() if k != "correct"}
    return {"measurement": {**front.measurement, "fp32": fp32}, "rows": rows}


def _print_front(front: "Front", points: list[int]) -> None:
    """The points as a table, by rising size, under FP32."""
    from mpsearch.tables.units import format_amount

    def percent(point: int, name: str, sign: str = "") -> str:
        value, low, high = (
            100 * front.measured[name + end][point] for end in ("", "_low", "_high")
        )
        return f"{value:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"

    fp32, labelled = front.measurement["fp32"], front.score == "accuracy"
    accuracy = ""
    if labelled:
        low, high = (100 * end for end in fp32["accuracy_interval"])
        accuracy = f"{100 * fp32['accuracy']:.2f} [{low:.2f}, {high:.2f}]"
    lost, digits = ([""], ".4f") if labelled else ([], ".4g")
    size = format_amount("size_bytes", fp32["size_bytes"]) if "size_bytes" in front.totals else ""
    totals = [size if name == "size_bytes" else "" for name in front.totals]
    rows = [["FP32", *totals, accuracy, *lost, f"{fp32['loss']:{digits}}"]]
    for point in points:
        rows.append([
            f"{front.omega[point]:.6g}",
            *(format_amount(name, values[point]) for name, values in front.totals.items()),
            percent(point, front.score),
            *([percent(point, "drop", "+")] if labelled else []),
            f"{front.measured['loss'][point]:{digits}}",
        ])  # fmt: skip
    lost = ["points lost [95 %]", "loss"] if labelled else ["divergence"]
    others = [name for name in front.totals if name != front.resource]
    columns = ["Ω", *front.totals, f"{front.score} % [95 %]", *lost]
    print_table(columns, rows, least=["loss", *others])
    where = front.measurement
    note = "" if where["held_out"] else " (also used for calibration: not unseen data)"
    total = sum(not math.isnan(value) for value in front.measured[front.score].tolist())
    echo(
        f"measured on {where['samples']} samples of {where['data']}{note}; "
        f"{total} of the front's {len(front)} points are measured now",
        *([] if labelled else ["no labels: measured against the FP32 network"]),
    )


def _document(evaluations: "Evaluations") -> dict[str, Any]:
    from mpsearch.evaluation.evaluation import row_to_json

    return {
        "data": evaluations.data_name,
        "held_out": evaluations.held_out,
        "loss": evaluations.loss,
        "notes": list(evaluations.notes),
        "rows": [row_to_json(row) for row in evaluations.rows],
    }


def print_evaluations(evaluations: "Evaluations") -> None:
    """The measured networks as a table: accuracy and loss with intervals, drop against FP32.

    Other metrics have a table of their own below, all of them without labels.
    """
    from mpsearch.statistics import paired_drop
    from mpsearch.tables.units import format_count, format_size

    reference = evaluations.named("FP32")
    rows = []
    for row in evaluations.rows:
        cells = []
        if row.classifies:
            low, high = row.accuracy_interval
            drop = ""
            if reference is not None and row is not reference:
                lost, (least, most) = paired_drop(reference.correct, row.correct)
                drop = f"{100 * lost:+.2f} [{100 * least:+.2f}, {100 * most:+.2f}]"
            cells = [f"{100 * row.accuracy:.2f} [{100 * low:.2f}, {100 * high:.2f}]", drop]
        loss = f"{row.loss:.4f} ± {(row.loss_interval[1] - row.loss):.4f}"
        rows.append([
            row.name,
            *cells,
            "" if row.size_bytes is None else format_size(row.size_bytes),
            "" if row.bops is None else format_count(row.bops),
            *([loss] if evaluations.labelled else []),
        ])  # fmt: skip
    columns, spare = ["network", "size", "BOPS"], ["BOPS"]
    if evaluations.labelled:
        columns.append("loss ± 95 %")
    if evaluations.rows[0].classifies:
        columns[1:1] = ["accuracy % [95 %]", "points lost [95 %]"]
        spare = ["loss ± 95 %", "BOPS"]
    print_table(columns, rows, least=spare)
    _print_metrics(evaluations)
    n = evaluations.rows[0].n
    where = f"{n} samples of {evaluations.data_name}"
    note = "" if evaluations.held_out else " (also used for calibration: not unseen data)"
    loss = "" if evaluations.loss == "cross-entropy" else f", loss {evaluations.loss}"
    echo(f"measured on {where}{note}{loss}", *evaluations.notes)


def _print_metrics(evaluations: "Evaluations") -> None:
    from mpsearch.evaluation.evaluation import with_unit
    from mpsearch.evaluation.metrics import DRAWS

    rows = []
    for row in evaluations.rows:
        for name, metric in row.metrics.items():
            change = ""
            if metric.difference is not None and metric.difference_interval is not None:
                low, high = metric.difference_interval
                change = f"{metric.difference:+.4g} [{low:+.4g}, {high:+.4g}]"
            low, high = metric.interval
            value = f"{metric.value:.4g} [{low:.4g}, {high:.4g}]"
            method = metric.method.removesuffix(f" of {DRAWS}")  # 80 columns; the file says all
            rows.append([row.name, with_unit(name), value, change, method])
    columns = ["network", "metric", "value [95 %]", "less FP32's [95 %]", "interval"]
    if rows and not any(row[3] for row in rows):
        columns, rows = [columns[i] for i in (0, 1, 2, 4)], [[*row[:3], row[4]] for row in rows]
    if rows:
        print_table(columns, rows, naming=2, least=["interval"])

"""`mpsearch evaluate`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mpsearch.commands.console import echo, json_option, print_json, print_table, progress
from mpsearch.commands.model_options import device_option, loss_option, model_options, source_of
from mpsearch.commands.post_training_options import post_training_of, post_training_options
from mpsearch.errors import InputError

if TYPE_CHECKING:
    from mpsearch.evaluation.evaluation import Evaluations
    from mpsearch.importers.loading import ModelSource
    from mpsearch.pareto.front import Front
    from mpsearch.post_training.repairing import PostTraining

POINTS = 12


@click.command()
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
@click.option("--data", metavar="D", help="Labelled data [default: the model file's sample].")
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
    help="accuracy, balanced-accuracy, top5, f1, auc, mae, mse, rmse, r2 or "
    "package.module:function; repeatable [default: by the loss].",
)
@loss_option
@device_option
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True)
@click.option("-o", "--output", metavar="FILE", help="[default: evaluation.json]")
@post_training_options
@model_options
@json_option
def evaluate(
    path: str,
    assignment: str | None,
    uniform: tuple[str, ...],
    front_path: str | None,
    points: str | None,
    amounts: tuple[str, ...],
    remeasure: bool,
    plot: str | None,
    data: str | None,
    calibration: str | None,
    fp32: str | None,
    integer: bool,
    metrics: tuple[str, ...],
    loss: tuple[str, ...],
    device: str,
    batch_size: int,
    output: str | None,
    ranges: str,
    per_tensor: bool,
    equalize: bool,
    bias_correction: bool,
    rounding: str,
    seed: int,
    learn_scales: bool,
    as_json: bool,
    **model: Any,
) -> None:
    """Measure accuracy and loss of MODEL, with 95 % intervals, beside FP32.

    MODEL is a float model (measured as it is and, with --assignment or --uniform, quantized) or a
    file written by `mpsearch apply`. With --front, points of a front that `mpsearch front -o` wrote
    are measured instead; what was measured before is kept, so a killed run goes on.

    \b
    Example:
      mpsearch evaluate model.pt --assignment assignment.json --data test.npz
      mpsearch evaluate quantized.pt --fp32 model.pt --data test.npz --metric f1 --metric auc
      mpsearch evaluate model.pt --front front.csv --points 12 --data test.npz --plot front.png
    """
    from mpsearch.evaluation.evaluation import save_evaluations
    from mpsearch.evaluation.subjects import EvaluationRequest, run

    source = source_of(path, **model)
    settings = post_training_of(
        ranges, per_tensor, equalize, bias_correction, rounding, seed, learn_scales
    )
    if front_path is not None:
        if assignment is not None or uniform or fp32 is not None or output is not None or integer:
            raise InputError(
                "--front adds its columns to the front; leave out --assignment, --uniform, --fp32, "
                "--integer and -o"
            )
        if metrics or loss:
            raise InputError("--front measures accuracy; leave out --metric and --loss")
        if points is not None and amounts:
            raise InputError("got --points and --point; name the points in one of the two ways")
        chosen = (points or str(POINTS), amounts, remeasure)
        _evaluate_front(
            source, front_path, chosen, (data, calibration, batch_size, settings), device, plot,
            as_json,
        )  # fmt: skip
        return
    if points is not None or amounts or remeasure or plot is not None:
        raise InputError("--points, --point, --remeasure and --plot go with --front FRONT.csv")
    request = EvaluationRequest(
        source=source,
        assignment=assignment,
        uniform=uniform,
        data=data,
        calibration=calibration,
        fp32=fp32,
        batch_size=batch_size,
        post_training=settings,
        integer=integer,
        losses=loss,
        metrics=metrics,
        device=device,
    )
    evaluations = run(request)
    output = output or "evaluation.json"
    save_evaluations(evaluations, output)
    if as_json:
        print_json(_document(evaluations))
        return
    print_evaluations(evaluations)
    echo(f"wrote {output}")


def _evaluate_front(
    source: "ModelSource",
    front_path: str,
    chosen: tuple[str, tuple[str, ...], bool],
    measured_on: "tuple[str | None, str | None, int, PostTraining]",
    device: str,
    plot: str | None,
    as_json: bool,
) -> None:
    from mpsearch.evaluation.subjects import load_subject
    from mpsearch.measured.front import measure_front, read_front
    from mpsearch.pareto.files import points_of
    from mpsearch.reports.writing import check_picture, plot_front
    from mpsearch.running.workers import join, leave

    if plot is not None:
        check_picture(plot)
    count, amounts, remeasure = chosen
    front = read_front(front_path)
    points = points_of(front, count, amounts)
    subject = load_subject(source, *measured_on, device=device)
    workers = join()
    with progress("evaluate the front", len(points)) as step:
        front = measure_front(front, points, subject, front_path, remeasure, step, workers)
    leave(workers)
    if workers.rank:
        return
    if plot is not None:
        plot_front(front, plot)
    if as_json:
        print_json(_front_document(front, points))
        return
    _print_front(front, points)
    stored = Path(front_path)
    for written in (stored.with_suffix(".csv"), stored.with_suffix(".json"), plot):
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

    fp32 = front.measurement["fp32"]
    low, high = (100 * end for end in fp32["accuracy_interval"])
    accuracy = f"{100 * fp32['accuracy']:.2f} [{low:.2f}, {high:.2f}]"
    size = format_amount("size_bytes", fp32["size_bytes"]) if "size_bytes" in front.totals else ""
    totals = [size if name == "size_bytes" else "" for name in front.totals]
    rows = [["FP32", *totals, accuracy, "", f"{fp32['loss']:.4f}"]]
    for point in points:
        rows.append([
            f"{front.omega[point]:.6g}",
            *(format_amount(name, values[point]) for name, values in front.totals.items()),
            percent(point, "accuracy"),
            percent(point, "drop", "+"),
            f"{front.measured['loss'][point]:.4f}",
        ])  # fmt: skip
    print_table(["Ω", *front.totals, "accuracy % [95 %]", "points lost [95 %]", "loss"], rows)
    where = front.measurement
    note = "" if where["held_out"] else " (also used for calibration: not unseen data)"
    total = sum(not math.isnan(value) for value in front.measured["accuracy"].tolist())
    echo(
        f"measured on {where['samples']} samples of {where['data']}{note}; "
        f"{total} of the front's {len(front)} points are measured now"
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

    Other metrics have a table of their own below.
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
        rows.append([
            row.name,
            *cells,
            f"{row.loss:.4f} ± {(row.loss_interval[1] - row.loss):.4f}",
            "" if row.size_bytes is None else format_size(row.size_bytes),
            "" if row.bops is None else format_count(row.bops),
        ])  # fmt: skip
    columns = ["network", "loss ± 95 %", "size", "BOPS"]
    if evaluations.rows[0].classifies:
        columns[1:1] = ["accuracy % [95 %]", "points lost [95 %]"]
    print_table(columns, rows)
    _print_metrics(evaluations)
    n = evaluations.rows[0].n
    where = f"{n} samples of {evaluations.data_name}"
    note = "" if evaluations.held_out else " (also used for calibration: not unseen data)"
    loss = "" if evaluations.loss == "cross-entropy" else f", loss {evaluations.loss}"
    echo(f"measured on {where}{note}{loss}", *evaluations.notes)


def _print_metrics(evaluations: "Evaluations") -> None:
    rows = []
    for row in evaluations.rows:
        for name, metric in row.metrics.items():
            change = ""
            if metric.difference is not None and metric.difference_interval is not None:
                low, high = metric.difference_interval
                change = f"{metric.difference:+.4g} [{low:+.4g}, {high:+.4g}]"
            low, high = metric.interval
            value = f"{metric.value:.4g} [{low:.4g}, {high:.4g}]"
            rows.append([row.name, name, value, change, metric.method])
    if rows:
        columns = ["network", "metric", "value [95 %]", "less FP32's [95 %]", "interval"]
        print_table(columns, rows)

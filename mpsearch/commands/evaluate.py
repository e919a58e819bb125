"""`mpsearch evaluate`."""

from typing import TYPE_CHECKING, Any

import click

from mpsearch.console import json_option, print_json, print_table
from mpsearch.model_options import model_options, source_of

if TYPE_CHECKING:
    from mpsearch.evaluation import Evaluations


@click.command()
@click.argument("path", metavar="MODEL")
@click.option("--assignment", metavar="FILE", help="Also measure this assignment of a float MODEL.")
@click.option(
    "--uniform", multiple=True, metavar="w8a8", help="Also measure one choice everywhere."
)
@click.option("--data", metavar="D", help="Labelled data [default: the model file's sample].")
@click.option(
    "--calibration", metavar="D", help="Data for the ranges [default: the model file's sample]."
)
@click.option("--fp32", metavar="MODEL", help="The float model beside a quantized MODEL.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True)
@click.option("-o", "--output", default="evaluation.json", show_default=True)
@model_options
@json_option
def evaluate(
    path: str,
    assignment: str | None,
    uniform: tuple[str, ...],
    data: str | None,
    calibration: str | None,
    fp32: str | None,
    batch_size: int,
    output: str,
    as_json: bool,
    **model: Any,
) -> None:
    """Measure accuracy and loss of MODEL, with 95 % intervals, beside FP32.

    MODEL is a float model (measured as it is and, with --assignment or --uniform, quantized) or a
    file written by `mpsearch apply`.

    \b
    Example:
      mpsearch evaluate model.pt --assignment assignment.json --data test.npz
      mpsearch evaluate quantized.pt --fp32 model.pt --data test.npz
    """
    from mpsearch.evaluation import save_evaluations
    from mpsearch.evaluation_run import EvaluationRequest, run

    request = EvaluationRequest(
        source=source_of(path, **model),
        assignment=assignment,
        uniform=uniform,
        data=data,
        calibration=calibration,
        fp32=fp32,
        batch_size=batch_size,
    )
    evaluations = run(request)
    save_evaluations(evaluations, output)
    if as_json:
        print_json(_document(evaluations))
        return
    print_evaluations(evaluations)
    click.echo(f"wrote {output}")


def _document(evaluations: "Evaluations") -> dict[str, Any]:
    from mpsearch.evaluation import row_to_json

    return {
        "data": evaluations.data_name,
        "held_out": evaluations.held_out,
        "rows": [row_to_json(row) for row in evaluations.rows],
    }


def print_evaluations(evaluations: "Evaluations") -> None:
    """The measured networks as a table: accuracy and loss with intervals, drop against FP32."""
    from mpsearch.evaluation import paired_drop
    from mpsearch.units import format_count, format_size

    reference = evaluations.named("FP32")
    rows = []
    for row in evaluations.rows:
        low, high = row.accuracy_interval
        drop = ""
        if reference is not None and row is not reference:
            lost, (least, most) = paired_drop(reference.correct, row.correct)
            drop = f"{100 * lost:+.2f} [{100 * least:+.2f}, {100 * most:+.2f}]"
        rows.append([
            row.name,
            f"{100 * row.accuracy:.2f} [{100 * low:.2f}, {100 * high:.2f}]",
            drop,
            f"{row.loss:.4f} ± {(row.loss_interval[1] - row.loss):.4f}",
            "" if row.size_bytes is None else format_size(row.size_bytes),
            "" if row.bops is None else format_count(row.bops),
        ])  # fmt: skip
    columns = ["network", "accuracy % [95 %]", "points lost [95 %]", "loss ± 95 %", "size", "BOPS"]
    print_table(columns, rows)
    n = evaluations.rows[0].n
    where = f"{n} samples of {evaluations.data_name}"
    note = "" if evaluations.held_out else " (also used for calibration: not unseen data)"
    click.echo(f"measured on {where}{note}")

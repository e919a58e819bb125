"""`mpsearch report`."""

import os

import click

from mpsearch.commands.console import echo, json_option, print_json
from mpsearch.commands.renamed import Renamed
from mpsearch.errors import InputError

FORMATS = ("html", "md", "json")


@click.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("--profile", metavar="FILE", help="[default: profile.csv in RUN]")
@click.option("--assignment", metavar="FILE", help="[default: assignment.json in RUN]")
@click.option(
    "--front", metavar="FILE", help="[default: front.json in RUN; else computed from the table]"
)
@click.option("--evaluation", metavar="FILE", help="[default: evaluation.json in RUN]")
@click.option(
    "--device-file", "device", cls=Renamed, old=["--device"], metavar="FILE",
    help="[default: device.json in RUN, where it is]",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="[default: as -o ends, else html]"
)
@click.option(
    "--figures", metavar="DIR", help="Also write every figure to DIR as .svg, .pdf and .png."
)
@click.option(
    "--node-data",
    metavar="EXPORT",
    help="Also write EXPORT.bits.json, .omega.json and .size.json: the layers on the nodes of the "
    "exported .onnx or .tflite file EXPORT, for Model Explorer.",
)
@click.option("-o", "--output", metavar="FILE", help="[default: report.html in RUN]")
@json_option
def report(
    runs: tuple[str, ...],
    profile: str | None,
    assignment: str | None,
    front: str | None,
    evaluation: str | None,
    device: str | None,
    form: str | None,
    figures: str | None,
    node_data: str | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Write one HTML page about the files in the folder RUN (default: this folder).

    The page holds everything itself and opens offline: the question and the answer, the Pareto
    front to read point by point, bits and sensitivity per layer, predicted against measured,
    accuracies and a measured device beside the paper's, confusion, what another KB buys, and the
    commands to repeat it. What is missing in RUN is listed on it. Several RUNs are compared: their
    fronts in one figure, hypervolumes, and where they cross (compare.html in this folder). --json
    prints the same facts.

    \b
    Examples:
      mpsearch report
      mpsearch report model-run -o small.html
      mpsearch report --format md --figures figures
      mpsearch report --node-data model.onnx
      mpsearch report model-run half-run -o both.html
    """
    from mpsearch.reports.facts import to_document
    from mpsearch.reports.prose import notices
    from mpsearch.reports.writing import report as write

    pieces = {
        "profile": profile, "assignment": assignment, "front": front, "evaluation": evaluation,
        "device": device,
    }  # fmt: skip
    if len(runs) > 1:
        if any(pieces.values()) or node_data:
            raise InputError(
                "several runs are compared as their folders hold them; "
                "--profile, --node-data and the like go with one run"
            )
        _compare(runs, form, figures, output, as_json)
        return
    made = write(runs[0] if runs else ".", output, form, figures, pieces)
    overlays: list[str] = []
    without: list[str] = []
    if node_data is not None:
        from mpsearch.reports.node_data import write_node_data  # needs torch, as reports do not

        overlays, without = write_node_data(made.facts, node_data)
    if as_json:
        found = {"report": made.written[0], "facts": to_document(made.facts)}
        print_json(found if node_data is None else found | {"node_data": overlays})
        return
    for text in notices(made.facts):
        echo(text)
    if without:
        echo(f"no node of {node_data} computes {', '.join(without)}")
    for path in (*made.written, *overlays):
        echo(f"wrote {os.path.normpath(path)}")


def _compare(
    folders: tuple[str, ...],
    form: str | None,
    figures: str | None,
    output: str | None,
    as_json: bool,
) -> None:
    from mpsearch.reports.compare_facts import compare, run_names
    from mpsearch.reports.compare_sections import (
        compare_drawing,
        compare_notices,
        comparison_markdown,
        render_comparison,
    )
    from mpsearch.reports.facts import to_document
    from mpsearch.reports.run_folder import read_run
    from mpsearch.reports.writing import form_of, write_report

    names = run_names(folders)
    facts = compare({name: read_run(run) for name, run in zip(names, folders, strict=True)})
    form = form_of(form, output)
    output = output or f"compare.{form}"
    made = {
        "html": lambda pictures: render_comparison(facts, folders),
        "md": lambda pictures: comparison_markdown(facts, folders, pictures),
        "json": lambda pictures: to_document(facts),
    }[form]
    written = write_report(output, made, [compare_drawing(facts)], figures)
    if as_json:
        print_json({"report": output, "facts": to_document(facts)})
        return
    for text in compare_notices(facts):
        echo(text)
    for path in written:
        echo(f"wrote {os.path.normpath(path)}")

"""`mpsearch report`."""

import os

import click

from mpsearch.console import json_option, print_json


@click.command()
@click.argument("run", metavar="[RUN]", default=".")
@click.option("--profile", metavar="FILE", help="[default: profile.csv in RUN]")
@click.option("--assignment", metavar="FILE", help="[default: assignment.json in RUN]")
@click.option(
    "--front", metavar="FILE", help="[default: front.json in RUN; else computed from the table]"
)
@click.option("--evaluation", metavar="FILE", help="[default: evaluation.json in RUN]")
@click.option("--device", metavar="FILE", help="[default: device.json in RUN, where it is]")
@click.option("-o", "--output", metavar="FILE", help="[default: report.html in RUN]")
@json_option
def report(
    run: str,
    profile: str | None,
    assignment: str | None,
    front: str | None,
    evaluation: str | None,
    device: str | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Write one HTML page about the files in the folder RUN (default: this folder).

    The page holds everything itself and opens offline: the question and the answer, the Pareto
    front, measured accuracies, a measured device beside the paper's, bits and Ω per layer, and the
    commands to repeat it. What is missing in RUN is listed on it. --json prints the same facts.

    \b
    Example:
      mpsearch report
      mpsearch report runs/battlefield -o battlefield.html
    """
    from mpsearch.files import write_atomic
    from mpsearch.reports.facts import to_document
    from mpsearch.reports.gather import gather
    from mpsearch.reports.html import render
    from mpsearch.reports.prose import notices
    from mpsearch.reports.run_folder import read_run

    pieces = {
        "profile": profile, "assignment": assignment, "front": front, "evaluation": evaluation,
        "device": device,
    }  # fmt: skip
    facts = gather(read_run(run, pieces))
    output = output or os.path.join(run, "report.html")
    write_atomic(output, render(facts))
    if as_json:
        print_json({"report": output, "facts": to_document(facts)})
        return
    for text in notices(facts):
        click.echo(text)
    click.echo(f"wrote {os.path.normpath(output)}")

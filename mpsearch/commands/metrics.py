"""`mpsearch metrics`."""

from importlib.metadata import EntryPoint

import click

from mpsearch.commands.console import json_option, print_json, print_table
from mpsearch.errors import MpsearchError
from mpsearch.running import plugins


@click.command()
@json_option
def metrics(as_json: bool) -> None:
    """List the metrics: of sensitivity (`profile --metric`), and of evaluations
    (`evaluate --metric`, `gate`).

    Cost counts passes over the samples. Plug-ins are in the first table; a function of your own,
    package.module:function, can stand for a metric of evaluations (docs/losses.md).

    \b
    Examples:
      mpsearch metrics
      mpsearch metrics --json
    """
    from mpsearch.evaluation.fidelity import FIDELITY
    from mpsearch.evaluation.metric_choice import METRICS
    from mpsearch.profiling.profile import GROUP

    sensitivity = [_describe(name, point) for name, point in plugins.installed(GROUP).items()]
    evaluation = [
        {
            "name": name, "of": of, "description": what,
            "compares_with": "FP32" if name in FIDELITY else "labels",
        }
        for name, (of, what) in METRICS.items()
    ]  # fmt: skip
    if as_json:
        print_json({"sensitivity": sensitivity, "evaluation": evaluation})
        return
    keys = ("name", "labels", "cost", "description")
    print_table(
        ["metric", "labels", "cost", "what it measures"],
        [[row[key] for key in keys] for row in sensitivity],
        "of sensitivity: profile --metric",
    )
    keys = ("name", "of", "compares_with", "description")
    print_table(
        ["metric", "of", "against", "what it measures"],
        [[row[key] for key in keys] for row in evaluation],
        "of evaluations: evaluate --metric, gate --min NAME=VALUE",
    )


def _describe(name: str, point: EntryPoint) -> dict[str, str]:
    """One row. A plug-in that fails says why."""
    try:
        metric = point.load()
        labels = getattr(metric, "labels", "")  # optional, as `cost`: not part of a metric
        cost, description = getattr(metric, "cost", ""), metric.description
    except Exception as error:  # a third party's import must not hide the other metrics
        lines = error.lines if isinstance(error, MpsearchError) else (str(error),)
        labels = cost = ""
        description = f"cannot be loaded: {type(error).__name__}: {' '.join(lines)}"
    row = {"name": name, "labels": labels, "cost": cost, "description": description}
    return {key: str(value) for key, value in row.items()}

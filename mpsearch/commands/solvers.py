"""`mpsearch solvers`."""

from importlib.metadata import EntryPoint

import click

from mpsearch import plugins
from mpsearch.console import json_option, print_json
from mpsearch.errors import MpsearchError
from mpsearch.solver import GROUP
from mpsearch.solving import AUTO_RULE


@click.command()
@json_option
def solvers(as_json: bool) -> None:
    """List the installed solvers and what each can do.

    Every answer of every solver is re-evaluated in exact arithmetic and proven by dp's bound;
    a wrong claim is reported and never passed on.

    \b
    Example:
      mpsearch solvers
    """
    found = [_describe(name, point) for name, point in plugins.installed(GROUP).items()]
    if as_json:
        print_json({"auto": AUTO_RULE, "solvers": found})
        return
    width = max(len(row["name"]) for row in found)
    for row in found:
        click.echo(f"{row['name']:<{width}}  {row['description']}")
        click.echo(f"{'':<{width}}  {row['capabilities']}")
    click.echo(f"{'auto':<{width}}  {AUTO_RULE}")


def _describe(name: str, point: EntryPoint) -> dict[str, str]:
    """One row; a plug-in that cannot be loaded is listed with the reason."""
    try:
        solver = point.load()
        return {
            "name": name,
            "description": str(solver.description),
            "capabilities": ", ".join(solver.capabilities),
        }
    except MpsearchError as error:
        return {"name": name, "description": str(error), "capabilities": ""}
    except Exception as error:  # a third party's import must not hide the other solvers
        text = f"cannot be loaded: {type(error).__name__}: {error}"
        return {"name": name, "description": text, "capabilities": ""}

"""`mpsearch solvers`."""

from importlib.metadata import EntryPoint
from typing import Any

import click

from mpsearch.commands.console import echo, json_option, print_json
from mpsearch.errors import MpsearchError
from mpsearch.knapsack.problem import GROUP
from mpsearch.running import plugins
from mpsearch.search.solving import AUTO_RULE


@click.command()
@json_option
def solvers(as_json: bool) -> None:
    """List the solvers, what each can do, and what is missing for it here.

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
        echo(f"{row['name']:<{width}}  {row['description']}")
        state = "works here" if row["available"] else f"not here: {row['install']}"
        words = [word for word in (row["capabilities"], state) if word]
        echo(f"{'':<{width}}  {'; '.join(words)}")
    echo(f"{'auto':<{width}}  {AUTO_RULE}")


def _describe(name: str, point: EntryPoint) -> dict[str, Any]:
    """One row; engines are looked for and not imported. A plug-in that fails says why."""
    row = {"name": name, "description": "", "capabilities": "", "available": True, "install": None}
    try:
        solver = point.load()
        row["description"] = str(solver.description)
        row["capabilities"] = ", ".join(solver.capabilities)
        look = getattr(solver, "missing", None)  # optional: not part of what makes a solver
        install = look() if look else None
    except Exception as error:  # a third party's import must not hide the other solvers
        text = (
            " ".join(error.lines)
            if isinstance(error, MpsearchError)
            else f"cannot be loaded: {type(error).__name__}: {error}"
        )
        return {**row, "description": text, "available": False, "install": "mend the plug-in"}
    return {**row, "available": install is None, "install": install}

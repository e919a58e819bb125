"""`mpsearch recipes`."""

from importlib.metadata import EntryPoint
from typing import Any

import click

from mpsearch.commands.console import echo, json_option, print_json
from mpsearch.recipes.target import GROUP
from mpsearch.running import plugins


@click.command()
@json_option
def recipes(as_json: bool) -> None:
    """List the tools that `mpsearch recipe` writes for, their files and the choices that they take.

    `mpsearch solve --for NAME` searches among these choices, in the tool's own bytes.

    \b
    Example:
      mpsearch recipes
    """
    found = [_describe(name, point) for name, point in plugins.installed(GROUP).items()]
    if as_json:
        print_json({"recipes": found})
        return
    width = max((len(row["name"]) for row in found), default=0)
    for row in found:
        echo(f"{row['name']:<{width}}  {row['description']}")
        if row["formats"]:
            echo(f"{'':<{width}}  takes {row['formats']}")


def _describe(name: str, point: EntryPoint) -> dict[str, Any]:
    """One row; a plug-in that fails says why."""
    try:
        target = point.load()
        return {"name": name, "description": str(target.description), "formats": target.formats}
    except Exception as error:  # a third party's import must not hide the others
        text = f"cannot be loaded: {type(error).__name__}: {error}"
        return {"name": name, "description": text, "formats": ""}

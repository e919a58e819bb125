"""`mpsearch tables`."""

import click

from mpsearch.commands.console import echo, json_option, print_json
from mpsearch.errors import first_line


@click.command()
@json_option
def tables(as_json: bool) -> None:
    """List the tables of other tools that are read, in the order in which they are recognised.

    Which one a file is tells its content, never its name. `mpsearch solve`, `front` and `explain`
    read all of them; `mpsearch table` shows one (docs/foreign-tables.md).

    \b
    Example:
      mpsearch tables
    """
    from mpsearch.foreign_tables.reading import readers

    found = [
        {
            "name": name,
            "description": f"cannot be loaded: {first_line(reader)}"
            if isinstance(reader, Exception)
            else str(reader.description),
        }
        for name, reader in readers().items()
    ]
    if as_json:
        print_json({"tables": found})
        return
    width = max(len(row["name"]) for row in found)
    for row in found:
        echo(f"{row['name']:<{width}}  {row['description']}")

"""What the commands print: tables and progress for people, JSON for machines."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import click

from mpsearch.streams import plain, takes_all

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    ascii_only = not takes_all(sys.stdout)  # its escapes mean the same
    click.echo(json.dumps(document, indent=2, ensure_ascii=ascii_only))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None
) -> None:
    """A table on standard output; every column but the first is aligned to the right.

    Cells are printed as they are: names from a file are never read as markup.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        heading = plain(column, sys.stdout)
        table.add_column(
            Text(heading), justify="left" if index == 0 else "right", no_wrap=index > 0
        )
    for row in rows:
        table.add_row(*(Text(plain(cell, sys.stdout)) for cell in row))
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:  # a pipe or a file gets whole lines, whatever the terminal's width
        console.width = 200
    console.print(table)


@contextlib.contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function that reports one finished step; a bar with time left, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)

"""What the commands print: lines, tables and progress for people, JSON for machines.

Nothing else in mpsearch prints. Here every line and cell is made fit to be shown, whoever wrote it.
"""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import click

from mpsearch.foreign_text import LONGEST_LINE, json_text, shown, terminal_line, without_commands

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def echo(*lines: str, err: bool = False, bold: bool = False) -> None:
    r"""Print lines, each an argument: a line break inside of one came from a file, so `\n` shows.

    err: on standard error.
    """
    for line in lines:
        click.secho(terminal_line(line), err=err, bold=bold)


def print_command(line: str, err: bool = False) -> None:
    """A line of `foreign_text.annotation`, for the CI system that acts on it."""
    click.echo(line, err=err)


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json_text(document, indent=2))


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

    def text(cell: str) -> Text:
        return Text(shown(cell, LONGEST_LINE))

    heading = None if title is None else text(title)
    table = Table(box=SIMPLE_HEAD, title=heading, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(text(column), justify="left" if index == 0 else "right", no_wrap=index > 0)
    for row in rows:
        table.add_row(*map(text, row))
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:  # a pipe or a file gets whole lines, whatever the terminal's width
        console.width = 200
    with console.capture() as captured:
        console.print(table)
    # Cells start lines, and so does what is wrapped of them.
    click.echo("\n".join(map(without_commands, captured.get().split("\n"))), nl=False)


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
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(terminal_line(description), total=total)
        yield lambda: bar.advance(task)

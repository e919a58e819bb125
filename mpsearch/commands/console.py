"""What the commands print: lines, tables and progress for people, JSON for machines.

Nothing else in mpsearch prints, but for `streams.say`: what ends a call that failed, and a notice
from inside of the library. Every line and cell is made fit to be shown, whoever wrote it.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from mpsearch.running.streams import (
    LONGEST_LINE,
    json_text,
    plain,
    shown,
    takes_all,
    terminal_line,
    without_commands,
)
from mpsearch.running.terminal import width_of, wrapped

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_COMMANDS = ("next: ", "$ ", "get it: ")  # how a line starts that is a command
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def echo(*lines: str, err: bool = False, bold: bool = False, whole: bool = False) -> None:
    r"""Print lines, each an argument: a line break inside of one came from a file, so `\n` shows.

    On a terminal they are broken between words, but for those that are commands, which somebody
    copies: `next: mpsearch solve`. err: on standard error. whole: never broken, as a document.
    """
    width = width_of(sys.stderr if err else sys.stdout)
    for line in lines:
        kept = whole or line.lstrip().startswith(_COMMANDS)
        for part in wrapped(terminal_line(line), None if kept else width):
            click.echo(click.style(part, bold=True) if bold and part else part, err=err)


STEP_OF_RUN = "a step of mpsearch run"  # a context's obj


def echo_next(command: str) -> None:
    """`next: mpsearch solve …`, but where `mpsearch run` does that itself."""
    context = click.get_current_context(silent=True)
    if context is None or context.obj != STEP_OF_RUN:
        echo(f"next: {command}")


def print_command(line: str, err: bool = False) -> None:
    """A line of `foreign_text.annotation`, for the CI system that acts on it."""
    click.echo(line, err=err)


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    ascii_only = not takes_all(sys.stdout)  # its escapes mean the same
    click.echo(json_text(document, ascii_only, indent=2))


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str | None = None,
    naming: int = 1,
    least: Sequence[str] = (),
) -> None:
    """A table on standard output, as `lay_out` sets it for this terminal; a pipe gets all of it.

    naming: how many columns, from the left, name a row; names are never cut, wrapped or left out.
    least: headings of columns that a narrow terminal may go without, the least important first.
    Cells are printed as they are: names from a file are never read as markup.
    """
    from mpsearch.commands.table_layout import lay_out

    def text(cell: str) -> str:
        return plain(shown(cell, LONGEST_LINE), sys.stdout)

    width = width_of(sys.stdout)
    body = [[*map(text, row)] for row in rows]
    layout = lay_out([*map(text, columns)], body, width, naming, [*map(text, least)])
    echo("", *(() if title is None else (title,)), bold=True)
    for line in layout.lines:
        text_only = without_commands(line.text)
        click.echo(click.style(text_only, bold=True) if line.strong else text_only)
    echo("")
    if layout.left_out:
        gone = ", ".join(layout.left_out)
        echo(f"not shown at {width} columns: {gone}; a wider terminal or `| cat` shows all")


class Steps:
    """Call it after each finished step; None: nothing is shown."""

    def __init__(self, bar: "Progress | None", task: "TaskID | None" = None) -> None:
        self._bar, self._task = bar, task

    def __call__(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.start()
            self._bar.advance(self._task)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """No bar, while another program may ask something on the terminal; then there is one."""
        if self._bar is None:
            yield
            return
        self._bar.stop()
        yield
        self._bar.start()


@contextlib.contextmanager
def progress(description: str, total: int, asks: bool = False) -> Iterator[Steps]:
    """Yield a function that reports one finished step; a bar with time left, on a terminal only.

    asks: another program may ask something first; there is no bar before the first `paused` ends.
    """
    if not sys.stderr.isatty():
        yield Steps(None)
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
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(terminal_line(description), total=total)
    try:
        if not asks:
            bar.start()
        yield Steps(bar, task)
    finally:
        bar.stop()

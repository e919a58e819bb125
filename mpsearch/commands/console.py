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

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

FIRST_COLUMN = 24  # where a terminal is narrow, what is left of a name before it is wrapped
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
    ascii_only = not takes_all(sys.stdout)  # its escapes mean the same
    click.echo(json_text(document, ascii_only, indent=2))


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str | None = None,
    naming: int = 1,
) -> None:
    """A table on standard output; every column but the first is aligned to the right.

    Where a terminal is too narrow, columns follow below the others, each block beside the first
    `naming` ones. Cells are printed as they are: names from a file are never read as markup.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def text(cell: str) -> Text:
        return Text(plain(shown(cell, LONGEST_LINE), sys.stdout))

    heading = [*map(text, columns)]
    body = [[*map(text, row)] for row in rows]
    widths = [max(cell.cell_len for cell in column) for column in zip(heading, *body, strict=True)]
    console = Console(file=sys.stdout, highlight=False)
    if console.is_terminal:
        widths[0] = min(widths[0], FIRST_COLUMN)  # it can be wrapped, to no less than this
        blocks = _blocks(widths, naming, console.width)
    else:  # a pipe or a file gets whole lines, whatever the terminal's width
        blocks = [[*range(len(widths))]]
    needed = max(_width([widths[index] for index in block]) for block in blocks)
    console.width = max(console.width, needed)
    with console.capture() as captured:
        for number, indices in enumerate(blocks):
            name = text(title) if title is not None and number == 0 else None
            table = Table(box=SIMPLE_HEAD, title=name, title_justify="left", title_style="bold")
            for index in indices:
                first = index == 0
                table.add_column(
                    heading[index],
                    justify="left" if first else "right",
                    min_width=widths[0] if first else None,
                    no_wrap=not first,
                )
            for row in body:
                table.add_row(*(row[index] for index in indices))
            console.print(table)
    # Cells start lines, and so does what is wrapped of them.
    click.echo("\n".join(map(without_commands, captured.get().split("\n"))), nl=False)


def _width(widths: Sequence[int]) -> int:
    """Of a table whose columns have these widths: two blanks and a line's place for each."""
    return sum(widths) + 3 * len(widths) + 1


def _blocks(widths: Sequence[int], naming: int, room: int) -> list[list[int]]:
    """The columns of each table: as many as fit, and the first `naming` ones in all of them."""
    blocks = [[*range(naming)]]
    for index in range(naming, len(widths)):
        wider = [widths[other] for other in (*blocks[-1], index)]
        if len(blocks[-1]) > naming and _width(wider) > room:
            blocks.append([*range(naming)])
        blocks[-1].append(index)
    return blocks


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

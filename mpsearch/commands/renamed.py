"""Options that had another spelling: it works for one more release, and says so."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import click

from mpsearch.commands.console import echo

UNTIL = "0.3"  # the release that takes the new spellings only


class Renamed(click.Option):
    """An option that `old` spellings give as well, each with one line on standard error.

    `click.option("--fp32", cls=Renamed, old=["--network"])`: help shows the new spelling alone.
    """

    def __init__(self, *args: Any, old: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.old = tuple(old)

    @property
    def spelling(self) -> str:
        """The new one, as it is typed."""
        return max(self.opts, key=len)

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """The option, and for each old spelling one like it, whose value is found under it."""
        super().add_to_parser(parser, ctx)
        for spelling in self.old:
            twin = copy(self)
            twin.name, twin.opts, twin.secondary_opts, twin.old = spelling, [spelling], [], ()
            twin.add_to_parser(parser, ctx)

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """What was typed in old words becomes what was typed in the new one."""
        found = dict(opts)
        for spelling in self.old:
            if spelling not in found:
                continue
            value = found.pop(spelling)
            if self.multiple:
                value = [*found.get(self.name or "", ()), *value]
            elif self.name in found:
                raise click.UsageError(
                    f"got {self.spelling} and {spelling}, its old spelling; expected one of them",
                    ctx,
                )
            found[self.name or ""] = value
            if not ctx.resilient_parsing:  # of a shell that completes words
                echo(
                    f"note: {spelling} is now {self.spelling}; "
                    f"the old spelling works until {UNTIL}",
                    err=True,
                )
        return super().handle_parse_result(ctx, found, args)

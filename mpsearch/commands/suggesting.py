"""Commands and options' choices whose misspelt names are answered with the one that was meant."""

from typing import Any, TypeVar

import click

from mpsearch.errors import did_you_mean

Command = TypeVar("Command", bound=click.Command)


class Commands(click.Group):
    """A group that says which of its commands was meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if self.get_command(ctx, word) is None and not word.startswith("-"):
            close = did_you_mean(word, self.list_commands(ctx))
            ctx.fail(f"no such command {word!r}{close}")
        return super().resolve_command(ctx, args)


class _OneOf(click.Choice[Any]):
    """A choice that says which of its words was meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            close = did_you_mean(str(value), map(str, self.choices))
            self.fail(f"{error.message.rstrip('.')}{close}", param, ctx)


def suggesting(command: Command) -> Command:
    """The command, and those below it, with choices that say which of their words was meant."""
    for parameter in command.params:
        kind = parameter.type
        if type(kind) is click.Choice:
            parameter.type = _OneOf(kind.choices, kind.case_sensitive)
    if isinstance(command, click.Group):
        for other in command.commands.values():
            suggesting(other)
    return command

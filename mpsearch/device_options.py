"""Options of every command that compiles an export for a device."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mpsearch.errors import InputError

if TYPE_CHECKING:
    from mpsearch.device.compiling import Compiler

Function = TypeVar("Function", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--host", required=True, help="USER@NAME as for ssh, or local."),
    click.option(
        "--timeout", type=click.IntRange(1, 86_400), default=120, show_default=True,
        help="Seconds that one process may take; then it is killed.",
    ),
    click.option(
        "--compile", "where", type=click.Choice(["device", "here"]), default="device",
        show_default=True, help="here: send a static program instead of its source.",
    ),
    click.option(
        "--cc", default="cc", show_default=True, help="The compiler, on the device or here."
    ),
    click.option("--flags", default="-O2", show_default=True, help="Its flags."),
)  # fmt: skip


def device_options(function: Function) -> Function:
    """Add `--host`, `--timeout`, `--compile`, `--cc` and `--flags`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def compiler_of(where: str, cc: str, flags: str) -> "Compiler":
    """The options as a Compiler. Raises InputError for words that no shell would split."""
    from mpsearch.device.compiling import Compiler, split_words

    words = split_words("--cc", cc)
    if not words:
        raise InputError("--cc: got nothing; expected a compiler such as gcc")
    return Compiler(words, split_words("--flags", flags), where == "here")

"""Options of every command that compiles an export for a device."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from mpsearch.commands.options import Function, add
from mpsearch.errors import InputError

if TYPE_CHECKING:
    from mpsearch.device.energy import Power
    from mpsearch.device.exported import Compiler

# What a board in QEMU does not take, and what takes nothing else.
NOT_OF_BOARDS = frozenset(
    "folder_there where cc mode runs repeat warm_up rounds launch_prefix emulated power "
    "power_interval idle_seconds power_seconds".split()
)
OF_BOARDS = frozenset("flash ram target".split())

_OPTIONS = (
    click.option("--host", help="USER@NAME as for ssh, or local."),
    click.option("--board", metavar="B", help="A board in QEMU, such as mps2-an386."),
    click.option(
        "--device-folder", "folder_there", default="", metavar="PATH",
        help="Where to work on the device [default: its TMPDIR, or /tmp].",
    ),
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

_POWER = (
    click.option("--power", metavar="SOURCE", help="A power meter, as docs/power.md tells."),
    click.option(
        "--power-interval", type=float, metavar="SECONDS",
        help="Start the program of command:… again and again, for one number each.",
    ),
    click.option(
        "--idle-seconds", type=click.FloatRange(1, 3600), default=10, show_default=True,
        help="How long to record the idle device.",
    ),
    click.option(
        "--power-seconds", type=click.FloatRange(1, 3600), default=10, show_default=True,
        help="How long to loop the network for the meter.",
    ),
)  # fmt: skip


def device_options(function: Function) -> Function:
    """Add `--host`, `--board`, `--device-folder`, `--timeout`, `--compile`, `--cc`, `--flags`."""
    return add(function, _OPTIONS)


def check_one_place(**places: str | None) -> None:
    """Raise InputError unless exactly one of the options says where the export runs."""
    options = [f"--{name}" for name in places]
    given = [f"--{name}" for name, value in places.items() if value is not None]
    if len(given) != 1:
        raise InputError(
            f"got {' and '.join(given) or 'no place to run'}; expected one of {', '.join(options)}"
        )


def refuse_given(place: str, others: Collection[str]) -> None:
    """Raise InputError for an option of the current command that was given, and is one of `others`,
    which do not go with `place`."""
    for parameter in click.get_current_context().command.params:
        name = parameter.name or ""
        if name in others and is_given(name):
            raise InputError(f"{parameter.opts[0]} does not go with {place}; leave it out")


def is_given(name: str) -> bool:
    """Whether this option of the current command was given."""
    return click.get_current_context().get_parameter_source(name) == ParameterSource.COMMANDLINE


def power_options(function: Function) -> Function:
    """Add `--power`, `--power-interval`, `--idle-seconds` and `--power-seconds`."""
    return add(function, _POWER)


def power_of(
    host: str, text: str | None, interval: float | None, idle_seconds: float, seconds: float
) -> "Power | None":
    """The options as a Power; None without `--power`. Raises InputError for an unknown source."""
    from mpsearch.device.energy import Power
    from mpsearch.device.power_source import power_source
    from mpsearch.device.transport import LOCAL, shell_of

    if text is None:
        if interval is not None:
            raise InputError("--power-interval belongs to --power command:PROGRAM")
        return None
    source = power_source(text, interval, shell_of(host), remote=host != LOCAL)
    return Power(source, idle_seconds, seconds)


def compiler_of(where: str, cc: str, flags: str) -> "Compiler":
    """The options as a Compiler. Raises InputError for words that no shell would split."""
    from mpsearch.device.exported import Compiler, split_words

    words = split_words("--cc", cc)
    if not words:
        raise InputError("--cc: got nothing; expected a compiler such as gcc")
    return Compiler(words, split_words("--flags", flags), where == "here")

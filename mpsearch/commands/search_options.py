"""Options that `solve` and `front` share: limits, pins and excludes as text."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from mpsearch.errors import InputError

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--size", metavar="SIZE", help="Limit on size_bytes: 145KB, 1.5MB, 50%, w8."),
    click.option("--bops-limit", metavar="COUNT", help="Limit on bops: 1.2G, 300M, 50%, w8a8."),
    click.option(
        "--limit",
        "limits",
        multiple=True,
        metavar="COLUMN=VALUE",
        help="Limit on any column's total (latency_s=0.02), its peak over the layers "
        "(max:activation_bytes=64KB), or a number of layers (count:w8=5). Repeatable.",
    ),
    click.option(
        "--at-least",
        "lower_limits",
        multiple=True,
        metavar="COLUMN=VALUE",
        help="Lower limit, e.g. count:w4=10 or size_bytes=100KB. Repeatable.",
    ),
    click.option(
        "--pin",
        "pins",
        multiple=True,
        metavar="LAYER=CHOICE",
        help="Give a layer (and its group) this choice, e.g. conv1=w8a8. Repeatable.",
    ),
    click.option(
        "--exclude",
        "excludes",
        multiple=True,
        metavar="[LAYER=]CHOICE",
        help="Forbid a choice for one layer (conv1=w4a4) or for all (w2a2). Repeatable.",
    ),
    click.option(
        "--allow",
        "allows",
        multiple=True,
        metavar="LAYER=CHOICE,…",
        help="The only choices that a layer may have, e.g. conv1=w4a8,w8a8. Repeatable.",
    ),
)


def budget_options(command: _Command) -> _Command:
    """--size, --bops-limit, --limit, --at-least, --pin, --exclude and --allow."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def parse_solver_options(texts: Sequence[str]) -> dict[str, str]:
    """`["num_workers=8"]` -> {"num_workers": "8"}; the solver knows what is right."""
    options: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"got --solver-option {text!r}; expected KEY=VALUE")
        options[key] = value
    return options

"""Options that `solve` and `front` share: limits, pins and excludes as text."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from mpsearch.choice import Choice
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
        help="Limit on any resource column, e.g. latency_s=0.02. Repeatable.",
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
)


def budget_options(command: _Command) -> _Command:
    """--size, --bops-limit, --limit, --pin and --exclude."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def parse_pins(texts: Sequence[str]) -> dict[str, Choice]:
    """`["conv1=w8a8"]` -> {"conv1": Choice(8, 8)}."""
    pins: dict[str, Choice] = {}
    for text in texts:
        layer, equals, choice = text.rpartition("=")
        if not equals or not layer:
            raise InputError(f"got --pin {text!r}; expected LAYER=CHOICE such as conv1=w8a8")
        if layer in pins and pins[layer] != Choice.parse(choice):
            raise InputError(f"layer {layer!r} is pinned twice: {pins[layer]} and {choice}")
        pins[layer] = Choice.parse(choice)
    return pins


def parse_excludes(texts: Sequence[str]) -> dict[str, set[Choice]]:
    """`["w2a2", "conv1=w4a4"]` -> {"": {w2a2}, "conv1": {w4a4}}; "" is every layer."""
    excludes: dict[str, set[Choice]] = {}
    for text in texts:
        layer, _, choice = text.rpartition("=")
        excludes.setdefault(layer, set()).add(Choice.parse(choice))
    return excludes


def parse_solver_options(texts: Sequence[str]) -> dict[str, str]:
    """`["num_workers=8"]` -> {"num_workers": "8"}; the solver knows what is right."""
    options: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"got --solver-option {text!r}; expected KEY=VALUE")
        options[key] = value
    return options

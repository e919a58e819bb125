"""An assignment in any form, and the float model and samples that it is applied to."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.network import Network
from mpsearch.python.given import as_data, as_network, given
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice, as_choice, is_choice
from mpsearch.tables.solution import Solution

Settings = TypeVar("Settings")


def choices_of(chosen: Any, names: Iterable[str]) -> dict[str, Choice]:
    """Layer -> choice of a Solution, an Assignment, a path, `{"conv1": "w4a8"}`, or one choice for
    all of `names`. Raises InputError for another type, and for a solution without an assignment.
    """
    if isinstance(chosen, Choice) or (isinstance(chosen, str) and is_choice(chosen)):
        return dict.fromkeys(names, as_choice(chosen))
    if isinstance(chosen, str | os.PathLike):
        _no_choice(os.fspath(chosen))
        return dict(Assignment.load(chosen).layers)
    if isinstance(chosen, Assignment):
        return dict(chosen.layers)
    if isinstance(chosen, Solution):
        if not chosen.choices:
            raise InputError(f"there is no assignment to apply: the solution is {chosen.status}")
        return dict(chosen.choices)
    if isinstance(chosen, Mapping):
        return {str(name): as_choice(choice) for name, choice in chosen.items()}
    raise InputError(
        f"got {type(chosen).__name__} for the assignment; expected a Solution, an Assignment, a "
        "path to assignment.json, {'conv1': 'w4a8', …}, or one choice for all layers: 'w8a8'"
    )


def _no_choice(text: str) -> None:
    """Raises InputError for a text that is rather a wrong choice than the path of a file."""
    found = re.fullmatch(r"[a-z]*?(\d{1,2})([a-z]+\d{1,2})?", text.lower())
    if found and not os.path.exists(text):
        raise InputError(
            f"got the assignment {text!r}; expected one choice for all layers such as "
            f"'w{found[1]}a8', {{'conv1': 'w4a8', …}}, a Solution, or a path to assignment.json"
        )


def memory_of(chosen: Any) -> Mapping[str, Any]:
    """What `solve` planned of a device's memory for it; empty where it did not."""
    if isinstance(chosen, str) and not is_choice(chosen):
        _no_choice(chosen)
        chosen = Assignment.load(chosen)
    if isinstance(chosen, Solution):
        return chosen.records.get("memory", {})
    return chosen.memory if isinstance(chosen, Assignment) else {}


def float_model(
    chosen: Any,
    model: Any,
    data: Any,
    purpose: str,
    *,
    need_labels: bool = False,
    losses: tuple[str, ...] = (),
    trust: bool = False,
) -> tuple[Network, Data]:
    """The float network and the samples: those given, or what `chosen` was profiled from.

    Raises InputError where neither is known, and as `given`.
    """
    origin = getattr(chosen, "origin", None)
    if origin is None and model is None:
        raise InputError(
            f"{purpose} needs the float model and samples: only what mpsearch.profile measured in "
            "this program is remembered; expected (model, data) as profile takes them"
        )
    if origin is not None and data is None:
        data = origin[1]
    if origin is not None and model is None:
        network: Network = origin[0]
        return network, as_data(data, network, losses=losses, need_labels=need_labels)
    if isinstance(data, Data):
        network = as_network(model, data, trust=trust)
        return network, as_data(data, network, losses=losses, need_labels=need_labels)
    return given(model, data, purpose, losses=losses, need_labels=need_labels, trust=trust)


def with_fields(settings: Settings, **named: Any) -> Settings:
    """Settings with those fields that are not None."""
    changed = {name: value for name, value in named.items() if value is not None}
    known = {one.name for one in fields(settings)}  # type: ignore[arg-type]
    assert changed.keys() <= known, changed
    return replace(settings, **changed) if changed else settings  # type: ignore[type-var]

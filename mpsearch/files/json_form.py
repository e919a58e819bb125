"""The form of a document as plain data, and the check of it that names the place of a fault.

    ROW = {"name": text, "n": whole(), "loss": number(), "bops": null_or(whole()),
           "metrics?": by_name({"value": number(), "interval": [number(), number()]})}
    check_form(document, ROW, "rows[0]")      # ValueError: rows[0].n: got "x"; expected ...

An object has the keys of a dictionary, those with a question mark where it wants; keys that the
form does not know are left to later versions. Nothing is converted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Form = Callable[[Any, str], None] | Mapping[str, Any] | Sequence[Any]


def check_form(value: Any, form: Form, where: str) -> None:
    """Raise ValueError, in one line that names the place, where `value` is not of this form.

    A list of forms is a list of just so many entries; `list_of` is one of any length.
    """
    if callable(form):
        form(value, where)
    elif isinstance(form, Mapping):
        if not isinstance(value, dict):
            raise _wrong(value, where, "an object")
        for key, inner in form.items():
            name = key.removesuffix("?")
            if name in value:
                check_form(value[name], inner, f"{where}.{name}" if where else name)
            elif name == key:
                raise ValueError(f"{where}.{name} is missing" if where else f"{name} is missing")
    else:
        if not isinstance(value, list) or len(value) != len(form):
            raise _wrong(value, where, f"a list of {len(form)}")
        for place, (entry, inner) in enumerate(zip(value, form, strict=True)):
            check_form(entry, inner, f"{where}[{place}]")


def anything(value: Any, where: str) -> None:
    """Whatever it is: what reads on checks it."""


def text(value: Any, where: str) -> None:
    """A text."""
    if not isinstance(value, str):
        raise _wrong(value, where, "a text")


def flag(value: Any, where: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise _wrong(value, where, "true or false")


def number(low: float = -math.inf, high: float = math.inf) -> Form:
    """A finite number from `low` to `high`, whole or not."""

    def check(value: Any, where: str) -> None:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise _wrong(value, where, "a finite number")
        if not low <= value <= high:
            raise _wrong(value, where, _range("a number", low, high))

    return check


def whole(low: int = 0, high: float = math.inf) -> Form:
    """An integer from `low` to `high`."""

    def check(value: Any, where: str) -> None:
        if type(value) is not int or not low <= value <= high:
            raise _wrong(value, where, _range("a whole number", low, high))

    return check


def one_of(*known: str) -> Form:
    """One of these texts."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or value not in known:
            raise _wrong(value, where, " or ".join(known))

    return check


def null_or(form: Form) -> Form:
    """Null, or what `form` says."""

    def check(value: Any, where: str) -> None:
        if value is not None:
            check_form(value, form, where)

    return check


def list_of(form: Form, least: int = 0) -> Form:
    """A list of at least so many entries, each of this form."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list) or len(value) < least:
            raise _wrong(value, where, f"a list of {least} or more" if least else "a list")
        for place, entry in enumerate(value):
            check_form(entry, form, f"{where}[{place}]")

    return check


def by_name(form: Form, least: int = 0) -> Form:
    """An object of any keys, at least so many, with values of this form."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict) or len(value) < least:
            raise _wrong(value, where, f"an object of {least} or more" if least else "an object")
        for name, entry in value.items():
            check_form(entry, form, f"{where}[{ascii(name)[:60]}]")

    return check


def _range(kind: str, low: float, high: float) -> str:
    if high == math.inf:
        return kind if low == -math.inf else f"{kind} of {low} or more"
    return f"{kind} from {low} to {high}"


def _wrong(value: Any, where: str, expected: str) -> ValueError:
    found = ascii(value)
    found = found if len(found) <= 50 else f"{found[:47]}..."
    return ValueError(f"{where}: got {found}; expected {expected}")

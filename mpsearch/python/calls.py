"""Every public function as Python calls it: what does not fit is told in one place, for all.

Arguments are compared with the signature before the function runs, so that a forgotten tuple or a
text for a number is an InputError and no TypeError from inside. Types that have several forms, such
as models, data and amounts, are left to what reads them.
"""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from functools import cache, wraps
from itertools import pairwise
from types import NoneType, UnionType
from typing import Any, Literal, Union, Unpack, get_args, get_origin, get_type_hints

from mpsearch.errors import InputError, did_you_mean
from mpsearch.running.python_words import in_python

Hints = Mapping[str, Any]
_WORDS = {
    int: "a whole number", float: "a number", str: "a text", bool: "True or False",
    os.PathLike: "a path", Callable: "a function", NoneType: "None",
}  # fmt: skip
_NUMBERS = {int, float}
_LISTED = 12  # arguments


@cache
def checked(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function under its public name, with InputError for arguments that it does not take."""
    signature = inspect.signature(function)
    hints = _hints(function, signature)
    forms = {argument: _forms(hint) for argument, hint in hints.items()}

    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        wrong = _misfit(name, signature, hints, args, named)
        if wrong is not None:
            raise InputError(wrong)
        bound = signature.bind(*args, **named)
        given = bound.arguments
        for argument in given.keys() & forms.keys():
            given[argument] = _fitting(name, argument, given[argument], forms, signature)
        try:
            return function(*bound.args, **bound.kwargs)
        except InputError as error:
            error.args = tuple(in_python(str(line), hints) for line in error.args)
            raise

    call.__module__, call.__qualname__ = "mpsearch", name  # where pickle finds it
    return call


def _hints(function: Callable[..., Any], signature: inspect.Signature) -> dict[str, Any]:
    """Type by argument, and by keyword of `**limits: Unpack[Limits]`."""
    known = {**function.__globals__, "Unpack": Unpack}
    found: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        hint = parameter.annotation
        if isinstance(hint, str):
            try:
                hint = eval(hint, known)
            except NameError:  # of a module that is imported for type checkers alone
                hint = Any
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            found[name] = hint
        elif get_origin(hint) is Unpack:
            found |= dict.fromkeys(get_type_hints(get_args(hint)[0]), Any)
    return found


def _forms(hint: Any) -> tuple[Any, ...]:
    """The types of an argument that is a number, a text, a path, a function, or settings or None;
    none for others."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    types = [one if get_origin(one) is Literal else get_origin(one) or one for one in members]
    plain = [one for one in types if one in _WORDS or get_origin(one) is Literal]
    if str in types and not _NUMBERS.isdisjoint(types):  # an amount
        return ()
    if len(plain) == len(types):
        return tuple(types)
    is_optional = len(types) == 2 and NoneType in types and all(inspect.isclass(t) for t in types)
    return tuple(types) if is_optional and not issubclass(types[0], Iterable) else ()


def _misfit(
    name: str, signature: inspect.Signature, hints: Hints, args: tuple[Any, ...], named: Hints
) -> str | None:
    """What is wrong with which arguments there are; inputs and labels apart come first."""
    parameters = signature.parameters
    places = [
        key
        for key, one in parameters.items()
        if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    if "data" in hints:
        for at, (first, second) in enumerate(pairwise(args)):
            if _is_array(first) and _is_array(second):
                both = f"{_kind(first)} and {_kind(second)} as arguments {at + 1} and {at + 2}"
                return f"got {both} of {name}; {_pair(signature)}"
    if surplus := args[len(places) :]:
        others = [key for key in hints if key not in places]
        rest = f", and by name {', '.join(others)}" if others else ""
        return (
            f"got {_shown(surplus[0])} as argument {len(places) + 1} of {name}; expected "
            f"{', '.join(places)}{rest}"
        )
    unread = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    is_open = unread and hints.keys() <= parameters.keys()
    for key in named:
        if key not in hints and not is_open:
            expected = f"help(mpsearch.{name}) says which it has"
            if len(hints) <= _LISTED:
                expected = f"expected {', '.join(hints)}"
            return f"{name} has no argument {key!r}{did_you_mean(key, hints)}; {expected}"
        if key in places[: len(args)]:
            return f"got {key} of {name} twice, by its place and by its name; expected it once"
    for key in places[len(args) :]:
        if key not in named and parameters[key].default is inspect.Parameter.empty:
            return f"{name} needs {key}; expected {name}({', '.join([*places[:3], '…'])})"
    return None


def _pair(signature: inspect.Signature) -> str:
    """How data are given, in the functions that take them."""
    data = signature.parameters.get("data")
    by_place = data is not None and data.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    return f"data are one argument: {'' if by_place else 'data='}(x, y)"


def _fitting(
    name: str,
    argument: str,
    value: Any,
    forms: Mapping[str, tuple[Any, ...]],
    signature: inspect.Signature,
) -> Any:
    """The value, a plain number of numpy's and torch's. Raises InputError where it does not fit."""
    wanted = forms[argument]
    if not wanted:
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if any(_fits(value, form) for form in wanted):
        return value
    if isinstance(value, list) or _is_array(value):
        pair = f"; {_pair(signature)}" if "data" in forms else ""
        raise InputError(f"got {_kind(value)} as {argument} of {name}{pair or _expected(wanted)}")
    raise InputError(f"got {argument}={_shown(value)} of {name}{_expected(wanted)}")


def _fits(value: Any, form: Any) -> bool:
    if get_origin(form) is Literal:
        return value in get_args(form)
    if form is Callable:
        return callable(value)
    if form is float:
        return isinstance(value, int | float)
    return isinstance(value, form) or (form is str and isinstance(value, os.PathLike))


def _expected(forms: tuple[Any, ...]) -> str:
    words: list[str] = []
    for form in forms:
        words += map(repr, get_args(form)) if get_origin(form) is Literal else [
            _WORDS.get(form) or form.__name__
        ]  # fmt: skip
    *others, last = words
    return f"; expected {', '.join(others)}{' or ' if others else ''}{last}"


def _is_array(value: object) -> bool:
    """Of numpy, torch or pandas, with at least one dimension."""
    return hasattr(value, "__array__") and bool(getattr(value, "shape", ()))


def _kind(value: object) -> str:
    known = {"Tensor": "a tensor", "ndarray": "an array"}
    return known.get(type(value).__name__, f"a {type(value).__name__}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"<{_kind(value)}>"

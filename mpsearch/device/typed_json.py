"""Frozen dataclasses from JSON that nobody vouches for: every key, every type, every number."""

import math
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

LONGEST = 2000  # characters of a text, entries of a list
MOST = 2**63 - 1  # of a whole number
_T = TypeVar("_T")


def from_json(kind: type[_T], value: Any, where: str) -> _T:
    """A `kind` from what `json_file.parse_json` gave: exactly its fields, each of exactly its type.

    Fields may be int, float, str, bool, tuple[X, ...], X | None and dataclasses of these. A whole
    number is a float as well; NaN, infinities, more than 64 bits and texts with control characters
    (which a terminal would obey) are refused. Raises ValueError that names the field:
    `steady.median_s: got "x"`.
    """
    return _read(kind, value, where)  # type: ignore[no-any-return]


def _read(kind: Any, value: Any, where: str) -> Any:
    if get_origin(kind) is UnionType:
        if value is None:
            return None
        (kind,) = (one for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) is tuple:
        if not isinstance(value, list) or len(value) > LONGEST:
            raise ValueError(f"{where}: got {_shown(value)}; expected a list")
        inner = get_args(kind)[0]
        return tuple(_read(inner, one, f"{where}[{i}]") for i, one in enumerate(value))
    if is_dataclass(kind):
        return _read_fields(kind, value, where)
    return _read_plain(kind, value, where)


def _read_fields(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: got {_shown(value)}; expected an object")
    names = [field.name for field in fields(kind)]
    dot = f"{where}." if where else ""
    for name in names:
        if name not in value:
            raise ValueError(f"{dot}{name} is missing")
    for name in value:
        if name not in names:
            raise ValueError(f"{dot}{_shown(name)} is unknown")
    hints = get_type_hints(kind)
    return kind(**{name: _read(hints[name], value[name], f"{dot}{name}") for name in names})


def _read_plain(kind: type, value: Any, where: str) -> Any:
    if kind is float and type(value) in (int, float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise ValueError(f"{where}: got {_shown(value)}; expected a finite number")
        return number
    if type(value) is not kind or (isinstance(value, int) and abs(value) > MOST):
        raise ValueError(f"{where}: got {_shown(value)}; expected {_WORDS[kind]}")
    if isinstance(value, str) and not (value.isprintable() and len(value) <= LONGEST):
        raise ValueError(f"{where}: got {_shown(value)}; expected one line of printable text")
    return value


_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def _shown(value: Any) -> str:
    return ascii(value)[:50]

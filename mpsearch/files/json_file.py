"""The one reader of JSON: bounded in size and depth, plain finite numbers, one meaning per key.

What `json.loads` takes beyond that has no use in files of ours and breaks what reads on: NaN and
Infinity, `1e400` (which it makes infinite), integers of thousands of digits, two values of one key
(of which it keeps the last), halves of surrogate pairs (which no file or terminal can take), and
lists in lists until the stack ends.

The form of a document as plain data, and the check of it that names the place of a fault.

    ROW = {"name": text, "n": whole(), "loss": number(), "bops": null_or(whole()),
           "metrics?": by_name({"value": number(), "interval": [number(), number()]})}
    check_form(document, ROW, "rows[0]")      # ValueError: rows[0].n: got "x"; expected ...

An object has the keys of a dictionary, those with a question mark where it wants; keys that the
form does not know are left to later versions. Nothing is converted.

Frozen dataclasses from JSON that nobody vouches for: every key, every type, every number.
"""

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from mpsearch.errors import InputError
from mpsearch.files.whole import like_file, read_limited

DEPTH = 100  # of lists and objects in each other; the deepest of ours, the graph of a file, has 12
_DIGITS = 300  # an integer of more is no double
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\Z)|[\[{]|[\]}]', re.DOTALL)


def parse_json(content: bytes | str) -> Any:
    """What a JSON text means. Raises ValueError, in one line, for what is not JSON as above."""
    text = content if isinstance(content, str) else content.decode("utf-8-sig")
    depth = 0
    for match in _BRACKETS.finditer(text):
        sign = match[0][0]
        depth += (sign in "[{") - (sign in "]}")
        if depth > DEPTH:
            raise ValueError(f"more than {DEPTH} lists or objects in each other")
    document = json.loads(
        text,
        object_pairs_hook=_object,
        parse_constant=_no_number,
        parse_float=_float,
        parse_int=_int,
    )
    if "\\ud" in text.lower():
        try:
            json.dumps(document, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair in a text") from None
    return document


def read_json(
    path: str | os.PathLike[str], noun: str, mebibytes: int, missing: str | None = None
) -> Any:
    """What the JSON file means.

    noun: what the file is called in messages; missing: the message where there is none. Raises
    InputError for a file of more than `mebibytes` MiB and for what `parse_json` refuses.
    """
    name = os.fspath(path)
    try:
        return parse_json(read_limited(path, mebibytes, _a(noun)))
    except FileNotFoundError:
        first = missing or f"there is no {noun} {name}"
        raise InputError(f"{first}{like_file(path)}") from None
    except (ValueError, IsADirectoryError) as error:
        raise InputError(f"{name} is not {_a(noun)}: {str(error)[:200]}") from None


def read_document(
    path: str | os.PathLike[str], noun: str, form: str, version: int, mebibytes: int, missing: str
) -> dict[str, Any]:
    """The document of a file with `"format": form` and this version; InputError for others."""
    name = os.fspath(path)
    document = read_json(path, noun, mebibytes, missing)
    if not isinstance(document, dict) or document.get("format") != form:
        raise InputError(f'{name} is not {_a(noun)}; expected "format": "{form}"')
    found = document.get("version")
    if type(found) is not int or found != version:
        raise InputError(f"{name} has version {ascii(found)[:50]}; this mpsearch reads {version}")
    return document


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {ascii(twice)[:60]} is there twice")
    return document


def _no_number(text: str) -> float:
    raise ValueError(f"{text}, which is no number of JSON")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:30]}, which is too large for a double")
    return value


def _int(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number of {len(text)} digits; expected at most {_DIGITS}")
    return int(text)


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
        if form is anything:  # a front has millions of these
            return
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

"""The one reader of JSON: bounded in size and depth, plain finite numbers, one meaning per key.

What `json.loads` takes beyond that has no use in files of ours and breaks what reads on: NaN and
Infinity, `1e400` (which it makes infinite), integers of thousands of digits, two values of one key
(of which it keeps the last), halves of surrogate pairs (which no file or terminal can take), and
lists in lists until the stack ends.
"""

import json
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from mpsearch.errors import InputError
from mpsearch.files.writing import read_limited

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
        raise InputError(missing or f"there is no {noun} {name}") from None
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

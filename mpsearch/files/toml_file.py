"""The one reader of TOML files: bounded in size and depth, numbers that doubles hold."""

import os
import tomllib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from mpsearch.errors import InputError
from mpsearch.files.writing import read_limited

LARGEST_MIB = 1
_WHOLE = 1 << 63  # TOML promises integers of 64 bits


def read_toml(
    path: str | os.PathLike[str], parse_float: Callable[[str], float | Decimal] = float
) -> dict[str, Any]:
    """The document of a file. Raises InputError for what is no TOML, OSError where none is read."""
    content = read_limited(path, LARGEST_MIB, "a TOML file")
    try:
        document = tomllib.loads(content.decode("utf-8"), parse_float=parse_float)
    except RecursionError:
        raise InputError(f"{path} is not a TOML file: too many lists in each other") from None
    except ValueError as error:
        raise InputError(f"{path} is not a TOML file: {str(error)[:200]}") from None
    todo: list[Any] = [document]
    while todo:
        value = todo.pop()
        if isinstance(value, dict | list):
            todo += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int) and not -_WHOLE <= value < _WHOLE:
            raise InputError(f"{path}: a number takes more than 64 bits")
    return document

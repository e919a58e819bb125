"""Third-party engines: importing one, saying what to install, and reading its settings."""

import importlib
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from mpsearch.errors import InputError

Kind = type[int] | type[float] | type[bool] | tuple[str, ...]  # a tuple lists the allowed words


def missing(module: str, install: str) -> str | None:
    """None if the package can be found, else the command that installs it; imports nothing."""
    if sys.modules.get(module) is not None or find_spec(module) is not None:
        return None
    return install


def engine_module(name: str, package: str, install: str, solver: str) -> Any:
    """Import `name`, a module of `package`; InputError with what to do if that cannot be done."""
    lacking = missing(package, install)
    if lacking:
        raise InputError(
            f"solver {solver} needs {package}, which is not installed; install it with: {lacking}"
        )
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        if "highspy" in sys.modules and package == "ortools":
            raise InputError(
                f"solver {solver}: OR-Tools cannot be loaded into a process that has imported "
                "highspy (their HiGHS libraries clash); use a process without it, or --solver dp"
            ) from error
        text = " ".join(str(error).split())[:150]
        raise InputError(
            f"solver {solver}: {package} is installed but cannot be imported ({text}); "
            f"install it again with: {install}"
        ) from error


def settings(options: Mapping[str, Any], kinds: Mapping[str, Kind], solver: str) -> dict[str, Any]:
    """`{"threads": "2"}` -> `{"threads": 2}`; InputError for an unknown key or a wrong value."""
    read: dict[str, Any] = {}
    for key, value in options.items():
        if key not in kinds:
            known = ", ".join(kinds) or "none"
            raise InputError(f"solver {solver} has no option {key!r}; it has {known}")
        read[key] = _value(key, str(value), kinds[key])
    return read


def _value(key: str, text: str, kind: Kind) -> int | float | bool | str:
    if isinstance(kind, tuple):
        if text in kind:
            return text
        raise InputError(f"got {key}={text}; expected one of {', '.join(kind)}")
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise InputError(f"got {key}={text}; expected true or false")
    try:
        number = kind(text)
    except ValueError:
        number = -1
    if not 0 <= number < 2**31:
        noun = "a whole number" if kind is int else "a number"
        raise InputError(f"got {key}={text}; expected {noun}, not negative")
    return number

"""The gate's conditions in a file: `[tool.mpsearch.gate]` of pyproject.toml, or mpsearch.toml."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from mpsearch.errors import InputError
from mpsearch.files.toml_file import read_toml
from mpsearch.gating.limits import CONDITIONS, Condition

OWN, PROJECT = "mpsearch.toml", "pyproject.toml"
FILES = ("assignment", "evaluation", "device", "profile", "baseline")
METRICS = tuple(condition.key for condition in CONDITIONS if condition.of_metrics)
SETTINGS = ("latency-mode", "network", "confidence")
FLAGS = ("strict", "lenient", "unverified")


def _place(condition: Condition) -> int:
    """In the list of keys: what is of the network alone, against a baseline, of a device."""
    return 1 if "baseline" in condition.needs else 2 if "device" in condition.needs else 0


LIMITS = tuple(one.key for one in sorted(CONDITIONS, key=_place) if not one.of_metrics)
KEYS = (*LIMITS, *SETTINGS, *METRICS, *FILES, *FLAGS)
MODES = ("steady", "process", "cold")


@dataclass(frozen=True)
class GateConfig:
    """What a file asks for: texts as they would stand on the command line, flags as bool.

    source: the file; None where there is none. Paths are relative to the file's folder.
    """

    source: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def get(self, key: str) -> Any:
        """The value of a key such as `max-size`; None where the file does not have it."""
        return self.values.get(key)


def find_config(named: str | None = None, folder: Path | None = None) -> GateConfig:
    """The named file, else the nearest one from `folder` (default: here) upwards.

    In each folder mpsearch.toml is looked at before pyproject.toml; one without a table for the
    gate does not count. The search ends at the root of the repository (a folder with .git).
    Raises InputError for unknown keys, wrong types, and a named file without the table.
    """
    if named is not None:
        found = _read(Path(named), ("gate",)) or _read(Path(named), ("tool", "mpsearch", "gate"))
        if found is None:
            raise InputError(f"{named} has no table [gate] or [tool.mpsearch.gate]")
        return found
    start = (folder or Path()).absolute()
    for place in (start, *start.parents):
        for name, keys in ((OWN, ("gate",)), (PROJECT, ("tool", "mpsearch", "gate"))):
            path = place / name
            if path.is_file():
                found = _read(path, keys)
                if found is not None:
                    return found
        if (place / ".git").exists():
            break
    return GateConfig()


def _read(path: Path, keys: tuple[str, ...]) -> GateConfig | None:
    try:
        document: Any = read_toml(path, Decimal)
    except FileNotFoundError:
        raise InputError(f"there is no file {path} with conditions for the gate") from None
    except IsADirectoryError:
        raise InputError(f"{path} is not a TOML file: it is a folder") from None
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            return None
        document = document[key]
    where = f"{_shown(path)}, [{'.'.join(keys)}]"
    if not isinstance(document, dict):
        raise InputError(f"{where} is no table; expected keys such as max-size")
    values = {key: _value(key, value, where, path.parent) for key, value in document.items()}
    return GateConfig(_shown(path), values)


def _value(key: str, value: Any, where: str, folder: Path) -> Any:
    if key not in KEYS:
        close = difflib.get_close_matches(key.replace("_", "-").lower(), KEYS, 1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(KEYS)}"
        raise InputError(f"{where} has the unknown key {ascii(key)[:60]}; {hint}")
    if key in FLAGS:
        if not isinstance(value, bool):
            raise InputError(f"{where}: {key} is {ascii(value)[:60]}; expected true or false")
        return value
    if key in METRICS:
        return _metrics(key, value, where)
    number = isinstance(value, int | Decimal) and not isinstance(value, bool)
    if not isinstance(value, str) and not (number and key not in FILES):
        raise InputError(f'{where}: {key} is {ascii(value)[:60]}; expected a text such as "145KB"')
    if key == "latency-mode" and value not in MODES:
        raise InputError(f"{where}: {key} is {ascii(value)[:60]}; expected {', '.join(MODES)}")
    return _shown(folder / value) if key in FILES else str(value)


def _metrics(key: str, value: Any, where: str) -> tuple[str, ...]:
    """`{ f1 = 0.9 }` or `["f1=0.9"]` -> ("f1=0.9",)."""
    if isinstance(value, dict):
        limits = [(name, limit) for name, limit in value.items()]
        if all(isinstance(x, int | Decimal | str) and not isinstance(x, bool) for _, x in limits):
            return tuple(f"{name}={limit}" for name, limit in limits)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise InputError(
        f"{where}: {key} is {ascii(value)[:60]}; expected limits by metric, such as {{ f1 = 0.9 }}"
    )


def _shown(path: Path) -> str:
    """Relative to the working directory where it lies below it."""
    here = Path.cwd()
    absolute = path.absolute()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)

"""The versions that a bug report needs, read from package metadata: nothing is imported."""

import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import mpsearch

_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
DEVELOPMENT = "dev"


@dataclass(frozen=True)
class Package:
    """A distribution that mpsearch names. extra: "" for a core one; installed: None if missing;
    fits: its version is one that mpsearch accepts."""

    name: str
    extra: str
    wanted: str
    installed: str | None
    fits: bool


def packages() -> tuple[Package, ...]:
    """What the installed mpsearch depends on, core first, then by extra; not for development."""
    found: list[Package] = []
    for line in requires("mpsearch") or ():
        match = _EXTRA.search(line)
        extra = match[1] if match else ""
        if extra != DEVELOPMENT:
            found += _package(line.partition(";")[0].strip(), extra)
    return tuple(sorted(found, key=lambda package: (package.extra, package.name.lower())))


def _package(requirement: str, extra: str) -> Iterable[Package]:
    from packaging.requirements import Requirement

    parsed = Requirement(requirement)
    if parsed.name.lower() == "mpsearch":  # an extra that includes another one
        return
    try:
        installed = version(parsed.name)
    except PackageNotFoundError:
        yield Package(parsed.name, extra, str(parsed.specifier), None, False)
        return
    fits = parsed.specifier.contains(installed, prereleases=True)
    yield Package(parsed.name, extra, str(parsed.specifier), installed, fits)


def versions() -> dict[str, Any]:
    """`{"mpsearch": …, "python": …, "packages": {"torch": "2.13.0", …}}`; null: missing."""
    return {
        "mpsearch": mpsearch.__version__,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.platform(),
        "architecture": platform.machine(),
        "packages": {package.name: package.installed for package in packages()},
    }

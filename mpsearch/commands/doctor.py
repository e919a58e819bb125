"""`mpsearch doctor`, and the versions that a bug report needs: what works here, what is missing."""

import os
import platform
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import groupby
from typing import Any

import click

import mpsearch
from mpsearch.commands.console import echo, json_option, print_json
from mpsearch.errors import install_extra

TITLES = {
    "core": "Packages that mpsearch needs",
    "extras": "Extras",
    "solvers": "Solvers",
    "tools": "Tools for exports and devices",
    "processors": "Processors",
}
# command -> (what it is for, the Debian package that brings it)
TOOLS = {
    "cc": ("compiles exports on this machine", "gcc"),
    "make": ("builds exports", "make"),
    "aarch64-linux-gnu-gcc": (
        "compiles exports for 64-bit Arm here", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
    ),
    "qemu-aarch64-static": ("runs Arm programs here, without meaningful times", "qemu-user-static"),
    "ssh": ("reaches devices (mpsearch device run --host)", "openssh-client"),
}  # fmt: skip
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
DEVELOPMENT = "dev"


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Say which packages, solvers, compilers and processors work here, and how to get the others.

    Exit code 1: something that mpsearch needs itself is missing or too old. Everything else is
    optional.

    \b
    Example:
      mpsearch doctor
    """
    checks = diagnose()
    healthy = all(check.works for check in checks if check.needed)
    if as_json:
        print_json(
            {"healthy": healthy, **versions(), "checks": [asdict(check) for check in checks]}
        )
        return 0 if healthy else 1
    known = versions()
    echo(f"mpsearch {known['mpsearch']}, Python {known['python']}, {known['system']}")
    width = max(len(check.name) for check in checks)
    for group, members in groupby(checks, key=lambda check: check.group):
        echo("", TITLES[group])
        for check in members:
            mark = "ok" if check.works else "MISSING" if check.needed else "-"
            echo(f"  {mark:<7} {check.name:<{width}}  {check.detail}")
            if check.install:
                echo(f"  {'':<7} {'':<{width}}  get it: {check.install}")
    return 0 if healthy else 1


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


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis. needed: mpsearch itself does not work without it.

    install: the command that installs what is missing; "" where it works or nothing can be done.
    """

    group: str
    name: str
    works: bool
    detail: str
    install: str = ""
    needed: bool = False


def diagnose() -> tuple[Check, ...]:
    """Every check, in the order of the groups core, extras, solvers, tools, processors."""
    known = packages()
    return (
        *_core(known),
        *_extras(known),
        *_solvers(),
        *_tools(),
        *_processors(),
    )


def _core(known: tuple[Package, ...]) -> Iterator[Check]:
    for package in known:
        if package.extra:
            continue
        install = "" if package.fits else f"pip install '{package.name}{package.wanted}'"
        yield Check("core", package.name, package.fits, _version(package), install, needed=True)


def _version(package: Package) -> str:
    if package.installed is None:
        return "not installed"
    return package.installed if package.fits else f"{package.installed}, needs {package.wanted}"


def _extras(known: tuple[Package, ...]) -> Iterator[Check]:
    groups: dict[str, list[Package]] = defaultdict(list)
    for package in known:
        if package.extra:
            groups[package.extra].append(package)
    for extra, members in groups.items():
        works = all(package.fits for package in members)
        detail = ", ".join(f"{package.name} {_version(package)}" for package in members)
        yield Check("extras", extra, works, detail, "" if works else install_extra(extra))


def _solvers() -> Iterator[Check]:
    from mpsearch.knapsack.problem import GROUP
    from mpsearch.running.plugins import installed

    for name, point in installed(GROUP).items():
        try:
            solver = point.load()
            look = getattr(solver, "missing", None)
            install = look() if look else None
            yield Check("solvers", name, install is None, str(solver.description), install or "")
        except Exception as error:  # a third party's import must not end the diagnosis
            yield Check(
                "solvers", name, False, f"cannot be loaded: {type(error).__name__}: {error}"
            )


def _tools() -> Iterator[Check]:
    for name, (purpose, package) in TOOLS.items():
        path = shutil.which(name)
        install = "" if path else f"apt-get install {package}"
        found = _first_line(path) if path and name != "ssh" else ""
        yield Check("tools", name, path is not None, f"{purpose}{found and f' ({found})'}", install)


def _first_line(path: str) -> str:
    """What the tool says of its version; nothing where it does not."""
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.splitlines()[0].strip()[:60] if done.returncode == 0 and done.stdout else ""


def _processors() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("processors", "cpu", True, f"{cores} cores for this process")
    try:
        import torch

        works = torch.cuda.is_available()
        name = torch.cuda.get_device_name() if works else "torch sees no CUDA device"
    except Exception as error:  # a broken torch is what a diagnosis is for
        works, name = False, f"torch cannot be imported: {type(error).__name__}: {error}"
    yield Check("processors", "cuda", works, name)

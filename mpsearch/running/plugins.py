"""Third-party solvers and profilers, found by entry-point group and imported when chosen."""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from mpsearch.errors import InputError


def installed(group: str) -> dict[str, EntryPoint]:
    """Entry points of `group` by name, sorted; nothing is imported."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda p: p.name)}


def load(group: str, name: str, noun: str) -> Any:
    """Import the plug-in `name` of `group`; an unknown name is an InputError listing the known
    ones."""
    points = installed(group)
    if name not in points:
        raise InputError(f"unknown {noun} {name!r}; installed: {', '.join(points)}")
    return points[name].load()

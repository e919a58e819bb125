"""The checkout, the installed package and pyproject.toml tell the same story."""

import re
import tomllib
from pathlib import Path

import pytest

import mpsearch

ROOT = Path(__file__).parent.parent
PARTS = ("models", "reports", "sensitivity", "solvers")


def test_every_package_is_shipped() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = config["tool"]["setuptools"]["packages"]
    inits = sorted((ROOT / "mpsearch").rglob("__init__.py"))
    packages = [init.parent.relative_to(ROOT).parts for init in inits]
    found = [".".join(parts) for parts in packages if set(parts[1:2]).isdisjoint(PARTS)]
    for part in PARTS:
        inits = sorted((ROOT / part).rglob("__init__.py"))
        found += [".".join(("mpsearch", *init.parent.relative_to(ROOT).parts)) for init in inits]
    folders = (
        ROOT / "mpsearch" / "exporters" / "c"
    ).iterdir()  # setuptools takes these for packages
    of_c = [folder for folder in folders if folder.is_dir() and list(folder.glob("*.[ch]"))]
    found += [".".join(folder.relative_to(ROOT).parts) for folder in of_c]
    assert sorted(listed) == sorted(found)


def test_links_point_at_the_parts() -> None:
    for part in PARTS:
        if (ROOT / "mpsearch" / part).is_file():
            pytest.skip("this checkout stores links as text files")
        assert (ROOT / "mpsearch" / part).readlink() == Path("..", part)


def test_rooms_leave_the_public_names_alone() -> None:
    """Importing `mpsearch.gate.x` would put the package in the place of the function `gate`."""
    inside = [path for path in (ROOT / "mpsearch").iterdir() if path.suffix != ".typed"]
    names = {path.stem for path in inside}
    assert names.isdisjoint(mpsearch.__all__)
    assert sum(path.suffix == ".py" for path in inside) <= 8


def test_the_rooms_on_the_page_are_those_that_are_checked() -> None:
    """docs/architecture.md against the ranks and the promises in pyproject.toml."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `(\w+)/?`( °)? \|", page, re.MULTILINE)
    layers, no_torch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    ranks = [layer.split(" | ") for layer in layers["layers"]]
    assert [int(rank) for rank, _, _ in rows] == sorted(
        (len(ranks) - place for place, rooms in enumerate(ranks) for _ in rooms), reverse=True
    )
    assert {(int(rank), room) for rank, room, _ in rows} == {
        (len(ranks) - place, room) for place, rooms in enumerate(ranks) for room in rooms
    }
    marked = {f"mpsearch.{room}" for _, room, mark in rows if mark}
    assert marked == set(no_torch["source_modules"])

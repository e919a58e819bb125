"""The checkout, the installed package and pyproject.toml tell the same story."""

import tomllib
from pathlib import Path

import pytest

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
    assert sorted(listed) == sorted(found)


def test_links_point_at_the_parts() -> None:
    for part in PARTS:
        if (ROOT / "mpsearch" / part).is_file():
            pytest.skip("this checkout stores links as text files")
        assert (ROOT / "mpsearch" / part).readlink() == Path("..", part)

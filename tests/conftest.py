"""Fixtures that several test files share."""

from pathlib import Path

import pytest
from tables import hand_table


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the table that is written by hand, as profile.csv."""
    hand_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path

"""Fixtures that several test files share, and the seed of generated examples."""

from pathlib import Path

import pytest
from hypothesis import settings
from tables import hand_table

# The same examples on every run: a suite that fails by chance tells nothing about a change.
# No deadline: an example that waits 0.2 s for a busy disk is no fault either.
settings.register_profile("seeded", derandomize=True, deadline=None)
settings.load_profile("seeded")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the table that is written by hand, as profile.csv."""
    hand_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path

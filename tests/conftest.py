"""Fixtures that several test files share, and the seed of generated examples."""

from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def coarse_scales() -> Iterator[None]:
    """Few candidate scales per channel: the search for them is most of the time of tiny layers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mpsearch.quantization.quantizer._MOST_CLIPS", 40)
        yield


@pytest.fixture(scope="module")
def coarsest_scales() -> Iterator[None]:
    """Four candidates in every search for scales: for tests that compare no figure with another
    search's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "quantization.quantizer._MOST_CLIPS",
            "quantization.quantizer._FEWEST_CLIPS",
            "post_training.compensated_rounding._MOST_SCALES",
            "post_training.compensated_rounding._FEWEST_SCALES",
        ):
            patch.setattr(f"mpsearch.{name}", 4)
        yield

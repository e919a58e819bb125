"""The generated dataset: the same for a seed, balanced, its splits apart."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("librosa")

from mpsearch.models import generated, generated_images, generated_sounds
from mpsearch.models.datasets import load_dataset
from mpsearch.models.generated import CLASSES, generated_battlefield, make_pairs


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPSEARCH_CACHE", str(tmp_path))
    monkeypatch.setattr(generated, "SIZES", {"train": 80, "val": 40, "test": 40})


def test_pairs_depend_on_the_seed_alone() -> None:
    # More than one chunk: which thread makes which must not matter.
    first, again, other = make_pairs(130, 3), make_pairs(130, 3), make_pairs(130, 4)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[1], other[1])


def test_shapes_ranges_and_balance() -> None:
    audio, images, labels = make_pairs(100, 0)
    assert (audio.shape, images.shape) == ((100, 1, 44, 13), (100, 3, 32, 32))
    assert [str(x.dtype) for x in (audio, images, labels)] == ["float32", "float32", "int64"]
    assert np.isfinite(audio).all()
    assert images.min() >= 0
    assert images.max() <= 1
    assert np.bincount(labels).tolist() == [25] * 4


def test_every_class_has_a_silhouette_and_a_voice() -> None:
    assert set(CLASSES) == set(generated_images.SILHOUETTES) == set(generated_sounds.VOICES)


def test_sounds_are_a_second_that_does_not_clip() -> None:
    sounds = generated_sounds.synthesise(np.arange(8) % 4, CLASSES, np.random.default_rng(0))
    assert sounds.shape == (8, 22_050)
    assert np.abs(sounds).max(axis=1).min() > 0.05
    assert np.abs(sounds).max() < 1


@pytest.mark.usefixtures("small")
def test_dataset_from_cache_is_the_one_that_was_made() -> None:
    made, cached = generated_battlefield(), load_dataset("generated-battlefield")
    assert made.digest == cached.digest
    assert made.generated
    assert "generated" in made.source
    assert [len(split) for split in made.splits.values()] == [80, 40, 40]
    for name, split in made.splits.items():
        for a, b in zip(split.inputs, cached.split(name).inputs, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("small")
def test_splits_share_nothing_and_seeds_share_no_split() -> None:
    pictures = [
        image.tobytes()
        for seed in (0, 1)
        for split in generated_battlefield(seed).splits.values()
        for image in np.round(split.inputs[1], 2)
    ]
    assert len(set(pictures)) == len(pictures)


@pytest.mark.usefixtures("small")
def test_normalisation_is_of_the_training_split() -> None:
    dataset = generated_battlefield()
    for x, axes in zip(dataset.split("train").inputs, [(0, 1, 2), (0, 2, 3)], strict=True):
        np.testing.assert_allclose(x.mean(axes), 0, atol=1e-3)
        np.testing.assert_allclose(x.std(axes), 1, atol=1e-3)
    test = dataset.split("test").inputs[0]
    assert np.abs(test.mean((0, 1, 2))).max() > 1e-3  # it was not normalised by itself

"""Sounds and pictures become the arrays that the networks were designed for."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsearch.errors import InputError, MissingExtraError
from mpsearch.models import features
from mpsearch.models.features import (
    BATTLEFIELD_AUDIO,
    COVID_COUGH,
    COVID_SPEECH,
    MfccSettings,
    Normalisation,
    mfcc,
    read_image,
    read_sound,
    window,
)

soundfile = pytest.importorskip("soundfile")
librosa = pytest.importorskip("librosa")
Image = pytest.importorskip("PIL.Image")


def noise(settings: MfccSettings, count: int = 2) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.standard_normal((count, settings.samples), dtype=np.float32) * 0.1


@pytest.mark.parametrize(
    ("settings", "shape"),
    [(BATTLEFIELD_AUDIO, (44, 13)), (COVID_COUGH, (203, 20)), (COVID_SPEECH, (333, 13))],
)
def test_shapes_of_the_paper(settings: MfccSettings, shape: tuple[int, int]) -> None:
    assert mfcc(noise(settings), settings).shape == (2, 1, *shape)


def test_battlefield_audio_is_librosas_default() -> None:
    sounds = noise(BATTLEFIELD_AUDIO, 70)  # more than one chunk
    ours = mfcc(sounds, BATTLEFIELD_AUDIO)
    for index in (0, 69):
        theirs = librosa.feature.mfcc(y=sounds[index], sr=22_050, n_mfcc=13)
        np.testing.assert_allclose(ours[index, 0], theirs.T, rtol=1e-4, atol=1e-3)


def test_a_quiet_window_is_not_changed_by_a_loud_one_beside_it() -> None:
    # power_to_db clips 80 dB below a maximum, which must be each window's own.
    sounds = noise(BATTLEFIELD_AUDIO)
    sounds[1] *= 1e-4
    alone = mfcc(sounds[1:], BATTLEFIELD_AUDIO)
    np.testing.assert_allclose(mfcc(sounds, BATTLEFIELD_AUDIO)[1:], alone, rtol=1e-4, atol=1e-3)


def test_mfcc_of_a_window_of_the_wrong_length() -> None:
    with pytest.raises(InputError, match=r"expected \[N, 22050\]"):
        mfcc(np.zeros((1, 22_000), np.float32), BATTLEFIELD_AUDIO)


def test_windows_are_padded_at_the_end_and_must_hold_something() -> None:
    sound = np.ones(40_000, np.float32)
    assert window(sound, COVID_COUGH).sum() == 32_000
    late = window(sound, COVID_COUGH, 1.5)
    assert (late.shape, late.sum(), late[:16_000].sum()) == ((32_000,), 16_000, 16_000)
    with pytest.raises(InputError, match=r"starts at 2.5 s of a sound of 2.50 s"):
        window(sound, COVID_COUGH, 2.5)


def test_sounds_are_mixed_to_mono_and_resampled(tmp_path: Path) -> None:
    time = np.arange(44_100) / 44_100
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(tmp_path / "stereo.flac", np.stack([tone, np.zeros_like(tone)], 1), 44_100)
    sound = read_sound(tmp_path / "stereo.flac", 22_050)
    assert len(sound) == 22_050
    spectrum = np.abs(np.fft.rfft(sound))
    assert spectrum.argmax() == 440
    assert 0.24 < sound.max() < 0.26  # the mean of the two channels


def test_unreadable_sounds_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.flac").write_bytes(b"fLaC and then nothing of the kind")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan), 16_000, subtype="FLOAT")
    (tmp_path / "headerless.raw").write_bytes(b"12" * 500)
    for name in ("broken.flac", "empty.wav", "nan.wav", "absent.wav", "headerless.raw"):
        with pytest.raises(InputError, match=name):
            read_sound(tmp_path / name, 16_000)


def test_images_become_rgb_of_32_pixels(tmp_path: Path) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :32, 0] = 200  # the left half is red
    Image.fromarray(picture).save(tmp_path / "large.png")
    array = read_image(tmp_path / "large.png")
    assert array.shape == (3, 32, 32)
    assert array.dtype == np.uint8
    assert (array[0, :, :16] == 200).all()
    assert (array[0, :, 16:] == 0).all()
    Image.fromarray(picture[..., 0]).save(tmp_path / "grey.png")
    assert (read_image(tmp_path / "grey.png") == array[0]).all()
    one = read_image(tmp_path / "grey.png", 16, 1)
    assert one.shape == (1, 16, 16)
    assert (one[0, :, :8] == 200).all()
    luma = read_image(tmp_path / "large.png", channels=1)
    assert luma.shape == (1, 32, 32)
    assert (luma[0, :, :16] == round(0.299 * 200)).all()


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32)).save(tmp_path / "alpha.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(InputError, match=r"alpha.png has the channels RGBA"):
        read_image(tmp_path / "alpha.png")
    for name in ("cut.png", "text.png", "absent.png"):
        with pytest.raises(InputError, match=name):
            read_image(tmp_path / name)


def test_normalisation_is_per_coefficient_and_survives_constants() -> None:
    random = np.random.default_rng(0)
    x = random.normal([[[[-300.0, 5.0, 7.0]]]], [[[[90.0, 0.1, 0.0]]]], (50, 1, 44, 3))
    scaled = Normalisation.of_mfcc(x)(x)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(scaled.std((0, 1, 2)), [1, 1, 0], atol=1e-3)
    images = random.uniform(0, 255, (20, 3, 32, 32))
    np.testing.assert_allclose(Normalisation.of_images(images)(images).std((0, 2, 3)), 1, atol=1e-3)


def test_missing_librosa_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    importer = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "librosa":
            raise ImportError(name)
        return importer(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[audio\]'"):
        mfcc(noise(BATTLEFIELD_AUDIO), BATTLEFIELD_AUDIO)


class Counted:
    """A build function that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return {"a": np.arange(1000, dtype=np.float32), "b": np.ones((2, 3), np.int64)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MPSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_cache_hit_equals_the_miss(cache: Path) -> None:
    build = Counted()
    miss = features.cached("x", "sha256:1", build)
    hit = features.cached("x", "sha256:1", build)
    assert build.calls == 1
    assert miss.keys() == hit.keys()
    for key in miss:
        np.testing.assert_array_equal(miss[key], hit[key])
        assert miss[key].dtype == hit[key].dtype
    features.cached("x", "sha256:2", build)
    assert build.calls == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "pickle"])
def test_a_damaged_cache_is_built_again(cache: Path, damage: str) -> None:
    build = Counted()
    whole = features.cached("x", "sha256:1", build)
    (path,) = cache.iterdir()
    stored = path.read_bytes()
    damaged = {
        "flip": stored[:500] + bytes([stored[500] ^ 1]) + stored[501:],
        "cut": stored[: len(stored) // 2],
        "empty": b"",
        "pickle": b"\x80\x04N.",
    }[damage]
    path.write_bytes(damaged)
    again = features.cached("x", "sha256:1", build)
    assert build.calls == 2
    np.testing.assert_array_equal(again["a"], whole["a"])
    assert path.read_bytes() == stored


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MPSEARCH_CACHE", str(tmp_path / "file" / "cache"))
    assert features.cached("x", "sha256:1", Counted())["a"].shape == (1000,)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MPSEARCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert features.cache_folder() == tmp_path / "mpsearch"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert features.cache_folder() == tmp_path / ".cache" / "mpsearch"

"""From files to the arrays that the networks see: windows of sound -> MFCC, pictures -> 3x32x32.

Computed features on disk, so that only the first run waits for them.
"""

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from mpsearch.errors import InputError, MissingExtraError
from mpsearch.files.archives import read_npz
from mpsearch.files.whole import write_atomic

if TYPE_CHECKING:
    from PIL import Image


RECIPE = 1  # part of every cache key: raise it when the same sources give other numbers
RANGE_DB = 80.0  # librosa's default: what is quieter than the loudest by more is clipped
CHUNK = 64  # windows transformed at once: bounds the memory for spectrograms


@dataclass(frozen=True)
class MfccSettings:
    """One window of sound -> `frames` x `coefficients`; librosa's defaults except for `hop`.

    librosa centres its frames and gives `1 + samples // hop` of them; `frames` is what is kept:
    surplus frames at the end are dropped.
    """

    rate: int  # Hz
    seconds: float
    hop: int  # samples
    coefficients: int
    frames: int

    @property
    def samples(self) -> int:
        return round(self.rate * self.seconds)


# librosa's own hop: 1 + 22050 // 512 = 44 frames.
BATTLEFIELD_AUDIO = MfccSettings(rate=22_050, seconds=1.0, hop=512, coefficients=13, frames=44)
# The paper gives the shapes, not the hops: 1 + 32000 // 158 = 203 frames of 9.9 ms, and
# 1 + 32000 // 96 = 334 frames of 6 ms, of which the last is dropped.
COVID_COUGH = MfccSettings(rate=16_000, seconds=2.0, hop=158, coefficients=20, frames=203)
COVID_SPEECH = MfccSettings(rate=16_000, seconds=2.0, hop=96, coefficients=13, frames=333)


def mfcc(sounds: np.ndarray, settings: MfccSettings) -> np.ndarray:
    """Mel-frequency cepstra of windows `[N, samples]`: `[N, 1, frames, coefficients]`.

    As librosa computes them (2048-point frames, 128 Slaney mel bands, dB with 80 dB range,
    orthonormal DCT-II); float32, not normalised. Raises MissingExtraError without librosa.
    """
    if sounds.ndim != 2 or sounds.shape[1] != settings.samples:
        raise InputError(
            f"got sounds of shape {sounds.shape}; expected [N, {settings.samples}], "
            f"{settings.seconds:g} s at {settings.rate} Hz"
        )
    librosa = _librosa()
    out = np.empty((len(sounds), 1, settings.frames, settings.coefficients), np.float32)
    for start in range(0, len(sounds), CHUNK):
        power = librosa.feature.melspectrogram(
            y=np.asarray(sounds[start : start + CHUNK], np.float32),
            sr=settings.rate,
            hop_length=settings.hop,
        )
        # Given several windows, librosa clips all of them below the loudest one; each window has
        # to come out as it does alone.
        level = librosa.power_to_db(power, top_db=None)
        level = np.maximum(level, level.max(axis=(1, 2), keepdims=True) - RANGE_DB)
        chunk = librosa.feature.mfcc(S=level, n_mfcc=settings.coefficients)
        out[start : start + CHUNK, 0] = chunk[:, :, : settings.frames].transpose(0, 2, 1)
    return out


def read_sound(path: str | os.PathLike[str], rate: int) -> np.ndarray:
    """A sound file as mono float32 at `rate` Hz: channels averaged, resampled where it differs.

    Raises InputError for a missing, unreadable or empty file or samples that are not finite.
    """
    try:
        import soundfile
    except ImportError:
        raise MissingExtraError("soundfile", "audio", "reading sound files") from None
    if not Path(path).is_file():
        raise InputError(f"there is no sound file {path}")
    try:
        samples, own_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (RuntimeError, OSError, ValueError, TypeError) as error:  # TypeError: headerless .raw
        raise InputError(f"cannot read the sound {path}: {error}") from None
    mono: np.ndarray = samples.mean(axis=1)
    if len(mono) == 0 or not np.isfinite(mono).all():
        raise InputError(f"the sound {path} is empty or has samples that are not finite numbers")
    return resampled(mono, own_rate, rate)


def resampled(sound: np.ndarray, own_rate: int, rate: int) -> np.ndarray:
    """The mono sound at `rate` Hz; itself where that is its own rate."""
    if own_rate == rate:
        return sound
    changed: np.ndarray = _librosa().resample(sound, orig_sr=own_rate, target_sr=rate)
    return changed


def window(sound: np.ndarray, settings: MfccSettings, start_s: float = 0.0) -> np.ndarray:
    """The window that starts at `start_s` seconds: `[samples]`, zeros where the sound has ended.

    Raises InputError when the window would hold nothing but padding.
    """
    start = round(start_s * settings.rate)
    if not 0 <= start < len(sound):
        raise InputError(
            f"a window starts at {start_s:g} s of a sound of {len(sound) / settings.rate:.2f} s"
        )
    part = sound[start : start + settings.samples]
    return np.pad(part, (0, settings.samples - len(part)))


def read_image(path: str | os.PathLike[str], size: int = 32, channels: int = 3) -> np.ndarray:
    """A picture as uint8 `[channels, size, size]`: RGB, or grey with one channel.

    Grey becomes RGB and the other way round (luma, ITU-R 601); other sizes are resampled by area.

    Raises InputError for a missing or unreadable file and for four channels (alpha, CMYK), because
    what to do with the fourth is not ours to guess.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("pillow", "audio", "reading images") from None
    if not Path(path).is_file():
        raise InputError(f"there is no image file {path}")
    try:
        with Image.open(path) as picture:
            picture.load()
            if len(picture.getbands()) not in (1, 3):
                bands = "".join(picture.getbands())
                raise InputError(f"the image {path} has the channels {bands}; expected RGB or grey")
            return square(picture, size, channels)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read the image {path}: {error}") from None


def square(picture: "Image.Image", size: int, channels: int = 3) -> np.ndarray:
    """A Pillow picture as uint8 `[channels, size, size]`, resampled by area where it differs."""
    from PIL import Image

    whole = picture.convert("RGB" if channels == 3 else "L")
    if whole.size != (size, size):
        whole = whole.resize((size, size), Image.Resampling.BOX)
    return np.asarray(whole).reshape(size, size, channels).transpose(2, 0, 1)


@dataclass(frozen=True)
class Normalisation:
    """`(x - mean) / std`, with statistics from training data only."""

    mean: np.ndarray
    std: np.ndarray

    @staticmethod
    def of_mfcc(train: np.ndarray) -> "Normalisation":
        """Per coefficient, over samples and frames of `[N, 1, frames, coefficients]`."""
        return _normalisation(train, (0, 1, 2))

    @staticmethod
    def of_images(train: np.ndarray) -> "Normalisation":
        """Per channel, over samples and pixels of `[N, channels, height, width]`."""
        return _normalisation(train, (0, 2, 3))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.asarray((x - self.mean) / self.std, np.float32)


def _normalisation(train: np.ndarray, axes: tuple[int, ...]) -> Normalisation:
    mean = train.mean(axis=axes, keepdims=True, dtype=np.float64)
    std = train.std(axis=axes, keepdims=True, dtype=np.float64)
    # A feature that never changes is left at zero rather than blown up.
    std = np.where(std > 1e-6, std, 1.0)
    return Normalisation(mean.astype(np.float32), std.astype(np.float32))


def _librosa() -> ModuleType:
    try:
        import librosa
    except ImportError:
        raise MissingExtraError("librosa", "audio", "computing audio features (MFCC)") from None
    module: ModuleType = librosa
    return module


DIGEST_BYTES = 32


def cache_folder() -> Path:
    """`$MPSEARCH_CACHE`, or `$XDG_CACHE_HOME/mpsearch`, or `~/.cache/mpsearch`."""
    own = os.environ.get("MPSEARCH_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "mpsearch"


def cached(
    name: str, key: str, build: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays of `build()`, cached under `key`, a digest of sources and settings.

    A file is the SHA-256 of an .npz archive and then the archive: a damaged one is noticed and
    built again, and nothing in it is ever executed. A folder that cannot be written to costs only
    the time.
    """
    path = cache_folder() / f"{name}-{key.removeprefix('sha256:')[:24]}.features"
    found = _read(path)
    if found is not None:
        return found
    arrays = dict(build())
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    content = buffer.getvalue()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, hashlib.sha256(content).digest() + content)
    return arrays


def _read(path: Path) -> dict[str, np.ndarray] | None:
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    content = stored[DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != stored[:DIGEST_BYTES]:
        return None
    try:
        return read_npz(content, str(path), kinds="fiubU")
    except InputError:
        return None

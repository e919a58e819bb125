"""From a file to what the network sees: one kind of input, one way to cut and decode it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpsearch.errors import InputError
from mpsearch.files.writing import digest
from mpsearch.models.dataset_config import VIDEO_STEP, InputConfig
from mpsearch.models.feature_cache import cached
from mpsearch.models.features import (
    RECIPE,
    MfccSettings,
    mfcc,
    read_image,
    read_sound,
    window,
)
from mpsearch.models.video_files import video_frames, video_sound


@dataclass(frozen=True)
class Decoded:
    """The pieces of one file: `starts[i]` seconds, `features[i]` and `contents[i]`.

    A content is the SHA-256 of the decoded samples or pixels, before the features are computed: the
    same sound as WAV and as FLAC has the same. A picture has the start NaN, because it belongs to
    any moment. `empty` windows of digital silence and frames of a single colour were left out: they
    say nothing, and are the same in many files.
    """

    starts: np.ndarray
    features: np.ndarray
    contents: np.ndarray
    empty: int


Arrays = dict[str, np.ndarray]


def decode(path: Path, config: InputConfig, starts: tuple[float, ...] | None) -> Decoded:
    """Cut and decode a file as the input's kind says; sounds and videos are cached on disk.

    Windows begin every `config.step` seconds, or at `starts` alone; those that lie beyond the end
    are left out. Raises InputError where nothing can be used.
    """

    def build() -> Arrays:
        return _READERS[config.kind](path, config, starts)

    if config.kind == "image":
        arrays = build()
    else:
        settings = (RECIPE, config.kind, config.mfcc, config.step, config.size, starts)
        arrays = cached("data", digest(repr(settings), _file_digest(path)), build)
    return Decoded(arrays["starts"], arrays["features"], arrays["contents"], int(arrays["empty"]))


def _audio(path: Path, config: InputConfig, starts: tuple[float, ...] | None) -> Arrays:
    settings = _mfcc_settings(config)
    sound = read_sound(path, settings.rate)
    if starts is None:
        chosen = _whole_windows(len(sound), settings, config.step)
    else:
        chosen = [start for start in starts if round(start * settings.rate) < len(sound)]
        if not chosen:
            raise InputError(
                f"the sound {path} of {len(sound) / settings.rate:.2f} s ends before its windows"
            )
    windows = np.stack([window(sound, settings, start) for start in chosen])
    return _sounds(path, windows, np.array(chosen, np.float64), settings, drop=starts is None)


def _video_sound(path: Path, config: InputConfig, starts: tuple[float, ...] | None) -> Arrays:
    settings = _mfcc_settings(config)
    windows = video_sound(path, settings.rate, settings.samples)
    seconds = np.arange(len(windows)) * VIDEO_STEP
    wanted = _wanted(path, seconds, starts)
    return _sounds(path, windows[wanted], seconds[wanted], settings, drop=starts is None)


def _video_frame(path: Path, config: InputConfig, starts: tuple[float, ...] | None) -> Arrays:
    frames = video_frames(path, config.size)
    seconds = np.arange(len(frames)) * VIDEO_STEP
    wanted = _wanted(path, seconds, starts)
    seconds, frames = seconds[wanted], frames[wanted]
    shown = np.ptp(frames.reshape(*frames.shape[:2], -1), axis=2).any(axis=1)
    if starts is not None or not shown.any():
        shown[:] = True
    return _arrays(seconds[shown], frames[shown], frames[shown], int((~shown).sum()))


def _image(path: Path, config: InputConfig, starts: tuple[float, ...] | None) -> Arrays:
    pixels = read_image(path, config.size)[None]
    return _arrays(np.array([np.nan]), pixels, pixels, 0)


_READERS: dict[str, Callable[[Path, InputConfig, tuple[float, ...] | None], Arrays]] = {
    "audio": _audio,
    "image": _image,
    "video-frame": _video_frame,
    "video-sound": _video_sound,
}


def _whole_windows(length: int, settings: MfccSettings, step: float) -> list[float]:
    """Beginnings of the windows that fit whole, in seconds; a short sound gives one, padded."""
    count = 1
    while round(count * step * settings.rate) + settings.samples <= length:
        count += 1
    return [number * step for number in range(count)]


def _sounds(
    path: Path, windows: np.ndarray, starts: np.ndarray, settings: MfccSettings, drop: bool
) -> Arrays:
    """MFCC of the windows; those that hold one value only (digital silence) are dropped."""
    heard = np.ptp(windows, axis=1) > 0
    if not heard.any():
        raise InputError(f"the sound {path} is nothing but silence")
    if not drop:
        heard[:] = True
    windows = np.ascontiguousarray(windows[heard], np.float32)
    return _arrays(starts[heard], mfcc(windows, settings), windows, int((~heard).sum()))


def _wanted(path: Path, seconds: np.ndarray, starts: tuple[float, ...] | None) -> np.ndarray:
    chosen = np.ones(len(seconds), bool) if starts is None else np.isin(seconds, starts)
    if not chosen.any():
        raise InputError(f"the video {path} of {len(seconds)} s ends before its windows")
    return chosen


def _arrays(starts: np.ndarray, features: np.ndarray, raw: np.ndarray, empty: int) -> Arrays:
    contents = [hashlib.sha256(np.ascontiguousarray(piece).tobytes()).hexdigest() for piece in raw]
    return {
        "starts": starts,
        "features": features,
        "contents": np.array(contents),
        "empty": np.array(empty),
    }


def _mfcc_settings(config: InputConfig) -> MfccSettings:
    assert config.mfcc is not None
    return config.mfcc


def _file_digest(path: Path) -> str:
    """Of the whole file, without holding it in memory: videos are large."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None

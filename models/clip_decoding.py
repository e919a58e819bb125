"""From a file to what the network sees: one kind of input, one way to cut and decode it.

One picture and one second of sound for every second of a video, as TinyM²Net's set was made.

Rashid et al. (arXiv 2202.04303) took one frame per second of battlefield videos and the second of
sound around it at 22,050 Hz. Second k gives the frame that is on the screen at k + 0.5 s and the
sound from k to k + 1 s.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mpsearch.errors import InputError, MissingExtraError
from mpsearch.files.whole import digest
from mpsearch.models.dataset_config import VIDEO_STEP, InputConfig
from mpsearch.models.features import (
    RECIPE,
    MfccSettings,
    cached,
    mfcc,
    read_image,
    read_sound,
    resampled,
    square,
    window,
)

ENOUGH = 0.5  # a second counts when at least this much of it is there; the rest is padded
NO_VIDEOS = ("tty", "image2")  # FFmpeg draws a text file, letter by letter


def video_frames(path: Path, size: int, channels: int = 3) -> np.ndarray:
    """The frame in the middle of every second: uint8 `[seconds, channels, size, size]`.

    Raises InputError for an unreadable file, one without pictures, and one shorter than half a
    second; MissingExtraError without PyAV.
    """
    av = _av()
    frames: list[np.ndarray] = []
    with _opened(av, path) as container:
        if not container.streams.video:
            raise InputError(f"the video {path} has no pictures")
        shown: Any = None
        began = 0.0
        for frame in container.decode(container.streams.video[0]):
            if frame.time is None:
                continue
            if shown is None:
                began = frame.time
            # Every moment before this frame's time shows the one before it.
            while shown is not None and frame.time - began > len(frames) + 0.5:
                frames.append(square(shown.to_image(), size, channels))
            shown = frame
        if shown is not None and _end(container, shown) - began > len(frames) + 0.5:
            frames.append(square(shown.to_image(), size, channels))
    if not frames:
        raise InputError(f"the video {path} is shorter than half a second or has no pictures")
    return np.stack(frames)


def video_sound(path: Path, rate: int, samples: int) -> np.ndarray:
    """The sound of every second, mono float32 `[seconds, samples]` at `rate` Hz.

    Time counts from the first picture, so that row k belongs to frame k. Raises InputError for an
    unreadable file and one without an audio track; MissingExtraError without PyAV.
    """
    av = _av()
    parts: list[np.ndarray] = []
    with _opened(av, path) as container:
        if not container.streams.audio:
            raise InputError(f"the video {path} has no audio track")
        track = container.streams.audio[0]
        own_rate = int(track.rate)
        began = 0.0
        # Planes of floats, with the channels and the rate as they are: those are ours to change.
        planar = av.AudioResampler(format="fltp", layout=track.layout, rate=own_rate)
        for frame in container.decode(track):
            if not parts and frame.time is not None:
                began = frame.time
            parts += [piece.to_ndarray().mean(axis=0) for piece in planar.resample(frame)]
        parts += [piece.to_ndarray().mean(axis=0) for piece in planar.resample(None)]
        began -= _first_picture(container)
    if not parts:
        raise InputError(f"the video {path} has an empty audio track")
    sound = resampled(np.concatenate(parts), own_rate, rate)
    late = round(began * rate)
    sound = np.pad(sound, (late, 0)) if late > 0 else sound[-late:]
    if not np.isfinite(sound).all():
        raise InputError(f"the video {path} has sound that is not finite numbers")
    seconds = int(len(sound) / rate + 1 - ENOUGH)
    if seconds < 1:
        raise InputError(f"the video {path} has less than half a second of sound")
    sound = np.pad(sound, (0, max(0, (seconds - 1) * rate + samples - len(sound))))
    return np.stack([sound[k * rate : k * rate + samples] for k in range(seconds)])


def _av() -> Any:
    try:
        return import_module("av")
    except ImportError:
        raise MissingExtraError("av", "video", "reading videos") from None


@contextmanager
def _opened(av: Any, path: Path) -> Iterator[Any]:
    """The open file; FFmpeg's errors while it is read become an InputError."""
    if not path.is_file():
        raise InputError(f"there is no video file {path}")
    try:
        with av.open(str(path)) as container:
            name = container.format.name
            if name in NO_VIDEOS or name.endswith("_pipe"):
                raise InputError(f"the file {path} is no video but text or a picture ({name})")
            yield container
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read the video {path}: {reason}") from None


def _end(container: Any, last: Any) -> float:
    """When the last frame leaves the screen: its own duration, else one frame's at this rate."""
    if last.duration and last.time_base:
        return float(last.time + last.duration * last.time_base)
    rate = container.streams.video[0].average_rate
    return float(last.time + (1 / rate if rate else 0))


def _first_picture(container: Any) -> float:
    """The time of the first picture, 0 where there is none."""
    if not container.streams.video:
        return 0.0
    stream = container.streams.video[0]
    if stream.start_time is None or stream.time_base is None:
        return 0.0
    return float(stream.start_time * stream.time_base)


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
        settings = (
            RECIPE,
            config.kind,
            config.mfcc,
            config.step,
            config.size,
            config.channels,
            starts,
        )
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
    frames = video_frames(path, config.size, config.channels)
    seconds = np.arange(len(frames)) * VIDEO_STEP
    wanted = _wanted(path, seconds, starts)
    seconds, frames = seconds[wanted], frames[wanted]
    shown = np.ptp(frames.reshape(*frames.shape[:2], -1), axis=2).any(axis=1)
    if starts is not None or not shown.any():
        shown[:] = True
    return _arrays(seconds[shown], frames[shown], frames[shown], int((~shown).sum()))


def _image(path: Path, config: InputConfig, starts: tuple[float, ...] | None) -> Arrays:
    pixels = read_image(path, config.size, config.channels)[None]
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

"""One picture and one second of sound for every second of a video, as TinyM²Net's set was made.

Rashid et al. (arXiv 2202.04303) took one frame per second of battlefield videos and the second of
sound around it at 22,050 Hz. Second k gives the frame that is on the screen at k + 0.5 s and the
sound from k to k + 1 s.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mpsearch.errors import InputError, MissingExtraError
from mpsearch.models.features import resampled, square_rgb

ENOUGH = 0.5  # a second counts when at least this much of it is there; the rest is padded
NO_VIDEOS = ("tty", "image2")  # FFmpeg draws a text file, letter by letter


def video_frames(path: Path, size: int) -> np.ndarray:
    """The frame in the middle of every second: RGB uint8 `[seconds, 3, size, size]`.

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
                frames.append(square_rgb(shown.to_image(), size))
            shown = frame
        if shown is not None and _end(container, shown) - began > len(frames) + 0.5:
            frames.append(square_rgb(shown.to_image(), size))
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

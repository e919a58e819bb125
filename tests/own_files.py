"""Small sounds and pictures on disk, and a data.toml for them, as a user would have them."""

from pathlib import Path

import numpy as np
import pytest

RATE = 22_050


def tone(hertz: float, seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """A sine with a little noise, so that no two windows are equal."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(0, 0.01, len(time))
    return np.asarray(0.3 * np.sin(2 * np.pi * hertz * time) + noise, np.float32)


def write_sound(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """16-bit samples; the suffix chooses the format."""
    soundfile = pytest.importorskip("soundfile")
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path


def write_picture(path: Path, seed: int, size: int = 32, mode: str = "RGB") -> Path:
    """Random pixels."""
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size, size, len(mode)) if mode != "L" else (size, size)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    image.fromarray(pixels, mode).save(path)
    return path


def write_classes(folder: Path, classes: int = 3, files: int = 4, seconds: float = 2.0) -> Path:
    """`sounds/CLASS/N.wav` and `pictures/CLASS/N.png` with as many files of each class."""
    for index, label in enumerate(("bell", "drum", "horn", "whistle")[:classes]):
        for number in range(files):
            seed = 100 * index + number
            sound = tone(300 * (index + 1) + 10 * number, seconds, seed)
            write_sound(folder / "sounds" / label / f"{number}.wav", sound)
            write_picture(folder / "pictures" / label / f"{number}.png", seed)
    return folder


SOUNDS = """
[inputs.audio]
kind = "audio"
folder = "sounds"
"""
PICTURES = """
[inputs.image]
kind = "image"
folder = "pictures"
"""


def write_config(folder: Path, text: str = SOUNDS + PICTURES) -> Path:
    """`folder/data.toml`."""
    path = folder / "data.toml"
    path.write_text(text)
    return path

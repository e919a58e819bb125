"""Rendered 32x32 colour images of four vehicles, for the generated dataset.

A silhouette is a union of ellipses and rectangles. It is turned, scaled, shifted and mirrored at
random, painted in random colours over a cluttered background, partly hidden, lit and made noisy:
what is hard about a small photograph, without a photograph.
"""

from typing import Literal, NamedTuple

import numpy as np

SIZE = 32
FAINTEST = 0.05  # contrast of the faintest image


class Shape(NamedTuple):
    """Centre, half sizes and tilt (radians) of a part, in units of half the vehicle's length."""

    kind: Literal["ellipse", "rectangle"]
    x: float
    y: float
    half_width: float
    half_height: float
    tilt: float = 0.0


SILHOUETTES: dict[str, tuple[Shape, ...]] = {
    "helicopter": (
        Shape("ellipse", 0.15, 0.10, 0.45, 0.27),
        Shape("rectangle", -0.50, 0.02, 0.42, 0.06),
        Shape("ellipse", -0.90, -0.05, 0.08, 0.20),
        Shape("rectangle", 0.15, -0.32, 0.75, 0.04),
        Shape("rectangle", 0.15, -0.20, 0.04, 0.12),
        Shape("rectangle", 0.15, 0.45, 0.42, 0.04),
    ),
    "aeroplane": (
        Shape("ellipse", 0.00, 0.02, 0.88, 0.15),
        Shape("rectangle", -0.08, 0.18, 0.15, 0.42, 0.5),
        Shape("rectangle", 0.04, -0.18, 0.12, 0.30, -0.6),
        Shape("rectangle", -0.76, -0.18, 0.10, 0.22, -0.3),
    ),
    "tank": (
        Shape("rectangle", 0.00, 0.20, 0.72, 0.14),
        Shape("ellipse", 0.00, 0.38, 0.82, 0.18),
        Shape("rectangle", 0.00, -0.05, 0.34, 0.15),
        Shape("rectangle", 0.60, -0.10, 0.36, 0.05),
    ),
    "truck": (
        Shape("rectangle", -0.25, -0.08, 0.52, 0.30),
        Shape("rectangle", 0.48, 0.06, 0.20, 0.20),
        Shape("rectangle", 0.00, 0.28, 0.75, 0.08),
        Shape("ellipse", -0.50, 0.40, 0.16, 0.16),
        Shape("ellipse", 0.48, 0.40, 0.16, 0.16),
    ),
}


def render(labels: np.ndarray, classes: tuple[str, ...], rng: np.random.Generator) -> np.ndarray:
    """Images `[N, 3, 32, 32]`, float32 in 0..1, of the vehicles `classes[labels[i]]`."""
    count = len(labels)
    image = _background(count, rng)
    # Something behind the vehicle, the vehicle, something in front of it.
    image = _paint(image, _random_part(count, rng, 0.1, 0.45), _colour(count, rng), rng)
    body = np.zeros((count, SIZE, SIZE), np.float32)
    x, y = _vehicle_frame(count, rng)
    for index, name in enumerate(classes):
        chosen = np.flatnonzero(labels == index)
        if len(chosen):
            body[chosen] = _silhouette(SILHOUETTES[name], x[chosen], y[chosen], rng)
    dark = _colour(count, rng) * 0.35
    image = _paint(image, body, dark, rng)
    image = _paint(image, _random_part(count, rng, 0.05, 0.28), _colour(count, rng), rng)
    noise = rng.uniform(0.01, 0.06, (count, 1, 1, 1)) * rng.standard_normal(image.shape)
    # Haze and night: what is seen spans a small and shifted part of the range, so that few bits
    # lose details that many bits keep.
    contrast = np.exp(rng.uniform(np.log(FAINTEST), 0, (count, 1, 1, 1)))
    haze = rng.random((count, 1, 1, 1)) * (1 - contrast)
    return np.asarray(np.clip(image + noise, 0, 1) * contrast + haze, np.float32)


def _vehicle_frame(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel's coordinates `[N, 32, 32]` as seen from the vehicle."""
    size = rng.uniform(0.75, 1.0, count)
    turn = rng.normal(0, 0.12, count)
    shift = rng.uniform(-0.12, 0.12, (2, count))
    mirror = rng.choice([-1.0, 1.0], count)
    x, y = _frame(shift[0], shift[1], turn)
    return x * (mirror / size)[:, None, None], y / size[:, None, None]


def _frame(x: np.ndarray, y: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pixel grid, -1..1, moved by (x, y) `[N]` and turned: two arrays `[N, 32, 32]`."""
    axis = (np.arange(SIZE) + 0.5) * (2 / SIZE) - 1
    dx = axis[None, None, :] - x[:, None, None]
    dy = axis[None, :, None] - y[:, None, None]
    cos, sin = np.cos(turn)[:, None, None], np.sin(turn)[:, None, None]
    return dx * cos + dy * sin, dy * cos - dx * sin


def _silhouette(
    parts: tuple[Shape, ...], x: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Coverage 0..1 `[N, 32, 32]`; every part is a little different each time."""
    cover = np.zeros(x.shape, np.float32)
    count = len(x)
    for part in parts:
        move = rng.normal(0, 0.05, (2, count, 1, 1))
        stretch = rng.lognormal(0, 0.12, (2, count, 1, 1))
        cos, sin = np.cos(part.tilt), np.sin(part.tilt)
        dx, dy = x - part.x - move[0], y - part.y - move[1]
        u = (dx * cos + dy * sin) / (part.half_width * stretch[0])
        v = (dy * cos - dx * sin) / (part.half_height * stretch[1])
        smaller = min(part.half_width, part.half_height)
        np.maximum(cover, _cover(part.kind, u, v, smaller), out=cover)
    return cover


def _cover(kind: str, u: np.ndarray, v: np.ndarray, smaller: float) -> np.ndarray:
    """1 inside the unit shape, 0 outside, with a soft edge of about one pixel."""
    distance = np.hypot(u, v) if kind == "ellipse" else np.maximum(np.abs(u), np.abs(v))
    return np.asarray(np.clip((1 - distance) * smaller * 10 + 0.5, 0, 1), np.float32)


def _random_part(
    count: int, rng: np.random.Generator, smallest: float, largest: float
) -> np.ndarray:
    """One random ellipse or rectangle per image: coverage `[N, 32, 32]`."""
    centre = rng.uniform(-1, 1, (2, count))
    half = rng.uniform(smallest, largest, (2, count, 1, 1))
    x, y = _frame(centre[0], centre[1], rng.uniform(0, np.pi, count))
    u, v = x / half[0], y / half[1]
    ellipse = rng.random((count, 1, 1)) < 0.5
    return np.where(ellipse, _cover("ellipse", u, v, 0.2), _cover("rectangle", u, v, 0.2))


def _paint(
    image: np.ndarray, cover: np.ndarray, colour: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Lay a colour `[N, 3]` over the image where `cover` is 1, lit from a random side."""
    slope = rng.normal(0, 0.15, (2, len(image), 1, 1, 1))
    axis = np.linspace(-1, 1, SIZE)
    shade = 1 + slope[0] * axis[:, None] + slope[1] * axis[None, :]
    mask = cover[:, None]
    return np.asarray(image * (1 - mask) + mask * colour[:, :, None, None] * shade)


def _colour(count: int, rng: np.random.Generator) -> np.ndarray:
    """Muted random colours `[N, 3]`: a random grey, a little tinted."""
    return np.clip(rng.uniform(0.2, 0.95, (count, 1)) + rng.normal(0, 0.12, (count, 3)), 0, 1)


def _background(count: int, rng: np.random.Generator) -> np.ndarray:
    """A vertical gradient between two colours and smooth clutter: `[N, 3, 32, 32]`."""
    top, bottom = (_colour(count, rng)[:, :, None, None] for _ in range(2))
    height = np.linspace(0, 1, SIZE)[None, None, :, None]
    clutter = np.zeros((count, 3, SIZE, SIZE))
    for cells, strength in ((4, 0.15), (9, 0.10)):
        smooth = _interpolation(cells)
        coarse = rng.standard_normal((count, 3, cells, cells)) * strength
        clutter += smooth @ coarse @ smooth.T
    return top * (1 - height) + bottom * height + clutter


def _interpolation(cells: int) -> np.ndarray:
    """The matrix `[32, cells]` of linear interpolation from a coarse grid."""
    place = np.linspace(0, cells - 1, SIZE)[:, None]
    return np.asarray(np.clip(1 - np.abs(place - np.arange(cells)[None, :]), 0, None))

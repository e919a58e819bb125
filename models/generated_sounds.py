"""Synthesised one-second sounds of four vehicles, for the generated dataset.

Two layers per sound: a *drone* (engine or propeller: a harmonic series) and a *beat* (rotor blades
or track links: repeated short bursts), under coloured noise at a random signal-to-noise ratio. The
classes differ in pitch, rate and colour, and their ranges touch, so that no single cue decides.
"""

from dataclasses import dataclass

import numpy as np

RATE = 22_050  # Hz
SAMPLES = RATE  # one second
TABLE = 1024  # samples of one period of a drone


@dataclass(frozen=True)
class Voice:
    """Ranges from which each sound of a class is drawn."""

    pitch: tuple[float, float]  # Hz, fundamental of the drone
    tilt: tuple[float, float]  # the k-th harmonic has amplitude k ** -tilt
    rate: tuple[float, float]  # beats per second
    ring: tuple[float, float]  # Hz, resonance of a beat
    decay: tuple[float, float]  # seconds, of a beat
    beat: tuple[float, float]  # amplitude of the beat, the drone's is one


VOICES = {
    "helicopter": Voice((60, 130), (0.9, 1.6), (9, 18), (70, 350), (0.015, 0.04), (0.6, 2.5)),
    "aeroplane": Voice((80, 190), (0.5, 1.3), (12, 30), (150, 900), (0.01, 0.03), (0.0, 0.8)),
    "tank": Voice((28, 60), (0.7, 1.4), (7, 16), (250, 1800), (0.006, 0.025), (0.5, 2.2)),
    "truck": Voice((35, 95), (0.9, 1.7), (6, 14), (150, 900), (0.01, 0.03), (0.0, 0.8)),
}


def synthesise(
    labels: np.ndarray, classes: tuple[str, ...], rng: np.random.Generator
) -> np.ndarray:
    """Sounds `[N, 22050]`, float32 in -1..1, of the vehicles `classes[labels[i]]`."""
    voices = [VOICES[classes[label]] for label in labels]
    beat = _unit(_beat(voices, rng)) * _draw(voices, "beat", rng)
    sound = _unit(_unit(_drone(voices, rng)) + beat)
    ratio = rng.uniform(2, 20, (len(voices), 1))  # dB
    sound = sound + _unit(_noise(len(voices), rng)) * (10 ** (-ratio / 20)).astype(np.float32)
    peak = np.abs(sound).max(axis=1, keepdims=True)
    loudness = rng.uniform(0.1, 0.9, (len(voices), 1)).astype(np.float32)
    return np.asarray(sound * (loudness / peak), np.float32)


def _draw(voices: list[Voice], field: str, rng: np.random.Generator) -> np.ndarray:
    """One value per voice from its range of `field`: `[N, 1]`."""
    low, high = np.array([getattr(voice, field) for voice in voices]).T
    return np.asarray(rng.uniform(low, high)[:, None], np.float32)


def _drone(voices: list[Voice], rng: np.random.Generator) -> np.ndarray:
    """A harmonic series with slow vibrato, read from one period per sound."""
    harmonics = np.arange(1, 33)
    phase = rng.uniform(0, 2 * np.pi, (len(voices), 32))
    uneven = rng.lognormal(0, 0.5, (len(voices), 32))
    amplitude = uneven * harmonics ** -_draw(voices, "tilt", rng)
    spectrum = np.zeros((len(voices), TABLE // 2 + 1), np.complex128)
    spectrum[:, 1:33] = amplitude * np.exp(1j * phase)
    table = np.fft.irfft(spectrum, TABLE).astype(np.float32)
    time = np.arange(SAMPLES, dtype=np.float32) / RATE
    wobble = rng.uniform(0, 0.8, (len(voices), 1)).astype(np.float32)
    speed = rng.uniform(1, 5, (len(voices), 1)).astype(np.float32)
    turns = _draw(voices, "pitch", rng) * time + wobble * np.sin(2 * np.pi * speed * time)
    place = (turns * TABLE).astype(np.int64) % TABLE
    return np.take_along_axis(table, place, axis=1)


def _beat(voices: list[Voice], rng: np.random.Generator) -> np.ndarray:
    """Decaying bursts of a resonance and of noise, at a nearly steady rate."""
    time = np.arange(SAMPLES, dtype=np.float32) / RATE
    start = rng.random((len(voices), 1)).astype(np.float32)
    turns = _draw(voices, "rate", rng) * time + start
    since = (turns % 1) * (1 / np.maximum(_draw(voices, "rate", rng), 1))
    strength = rng.lognormal(0, 0.3, (len(voices), 64)).astype(np.float32)
    envelope = np.exp(-since / _draw(voices, "decay", rng))
    envelope *= np.take_along_axis(strength, turns.astype(np.int64) % 64, axis=1)
    ring = np.sin((2 * np.pi) * _draw(voices, "ring", rng) * since)
    hiss = rng.standard_normal(envelope.shape, dtype=np.float32)
    share = rng.uniform(0.1, 0.5, (len(voices), 1)).astype(np.float32)
    return np.asarray(envelope * ((1 - share) * ring + share * hiss), np.float32)


def _noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls as a random power of the frequency."""
    frequency = np.maximum(np.arange(SAMPLES // 2 + 1), 20) / 20
    slope = rng.uniform(0.0, 1.0, (count, 1))
    amplitude = np.exp(-slope * np.log(frequency)).astype(np.float32)
    parts = rng.standard_normal((2, count, len(frequency)), dtype=np.float32)
    spectrum = amplitude * (parts[0] + 1j * parts[1])
    return np.fft.irfft(spectrum, SAMPLES, axis=1).astype(np.float32)


def _unit(sound: np.ndarray) -> np.ndarray:
    """The sound at a mean power of one."""
    power = np.mean(np.square(sound), axis=1, keepdims=True)
    return np.asarray(sound / np.sqrt(power + 1e-12), np.float32)

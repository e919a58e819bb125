"""The quantizer in numpy, one scalar rule per function, written from docs/quantization.md."""

import numpy as np


def half_to_even(x: np.ndarray) -> np.ndarray:
    """Rounding by comparing with the floor: 0.5 -> 0, 1.5 -> 2, -0.5 -> 0."""
    below = np.floor(x)
    rest = x - below
    odd = np.mod(below, 2) == 1
    rounded: np.ndarray = below + ((rest > 0.5) | ((rest == 0.5) & odd))
    return rounded


def weight_codes(rows: np.ndarray, scales: np.ndarray, bits: int) -> np.ndarray:
    """q = round(w / s), kept within the b-bit codes; without the lowest one from 8 bits on."""
    highest = 2 ** (bits - 1) - 1
    lowest = -highest if bits >= 8 else -highest - 1
    quotient = rows.astype(np.float32) / scales.astype(np.float32)[:, None]
    codes: np.ndarray = np.minimum(np.maximum(half_to_even(quotient), lowest), highest)
    whole: np.ndarray = codes.astype(np.int64)
    return whole


def activation_codes(x: np.ndarray, scale: float, zero_point: int, bits: int) -> np.ndarray:
    """q = round(x · (1/s)) + z within 0 … 2^b - 1, the reciprocal and product in float32."""
    reciprocal = np.float32(1) / np.float32(scale)
    q = half_to_even(x.astype(np.float32) * reciprocal).astype(np.int64) + zero_point
    codes: np.ndarray = np.minimum(np.maximum(q, 0), 2**bits - 1)
    return codes


def fake_quantize(x: np.ndarray, scale: float, zero_point: int, bits: int) -> np.ndarray:
    """(q - z)·s in float32."""
    steps = activation_codes(x, scale, zero_point, bits) - zero_point
    values: np.ndarray = steps.astype(np.float32) * np.float32(scale)
    return values

"""Spectra: DFT and STFT as torch's own operators, and the tables that audio front ends bring.

ONNX writes a complex number as two reals in a last dimension. The transforms have no weights, so
they are no layers: they stay in float, with their windows.
"""

import math
from collections.abc import Callable
from typing import cast

import numpy as np
import torch

from mpsearch.errors import InputError
from mpsearch.importers.onnx.calls import Call, Result, axis_of, check_elements
from mpsearch.importers.onnx.steps import Array

_LONGEST = 1 << 24  # samples of one transform
# Of LiteRT files, where a complex number is one element of a tensor.
RFFT2D, REAL, IMAG = "LiteRT.RFFT2D", "LiteRT.Real", "LiteRT.Imag"


def _dft(call: Call) -> Result:
    """`[…, n, …, 1 or 2]` along `axis`; onesided: the first n/2 + 1 bins, or back from them."""
    x = call.tensor(0)
    default = 1 if call.opset < 20 else -2
    axis = int(call.sizes(2)[0]) if call.has(2) else call.attribute("axis", default)
    axis = axis_of(axis, x.dim())
    if axis == x.dim() - 1:
        raise InputError(f"got axis {axis}, which holds the real and imaginary parts")
    length = _number(call, 1) if call.has(1) else None
    onesided, inverse = (bool(call.attribute(name, 0)) for name in ("onesided", "inverse"))
    values = _complex_or_real(x)
    if inverse and onesided:
        return cast(torch.Tensor, torch.fft.irfft(_complex(values), length, axis)).unsqueeze(-1)
    if inverse:
        return torch.view_as_real(torch.fft.ifft(values, length, axis))
    if not onesided:
        return torch.view_as_real(torch.fft.fft(values, length, axis))
    if not values.is_complex():
        return torch.view_as_real(torch.fft.rfft(values, length, axis))
    bins = (length or int(x.shape[axis])) // 2 + 1
    return torch.view_as_real(torch.fft.fft(values, length, axis).narrow(axis, 0, bins))


def _stft(call: Call) -> Result:
    """`[N, length, 1 or 2]` or `[N, length]` -> `[N, frames, bins, 2]`."""
    x = call.tensor(0)
    if x.dim() == 2:  # as some exporters and onnxruntime have it
        x = x.unsqueeze(-1)
    if x.dim() != 3:
        raise InputError(
            f"got a signal of {x.dim()} dimensions; expected [samples, length, 1 or 2]"
        )
    step, window = _number(call, 1), call.tensor(2) if call.has(2) else None
    if call.has(3):
        length = _number(call, 3)
    else:
        length = int(x.shape[1] if window is None else window.shape[0])
    if window is not None and tuple(window.shape) != (length,):
        raise InputError(f"got a window of shape {list(window.shape)}; expected [{length}]")
    if length > x.shape[1]:
        raise InputError(f"got frames of {length} for a signal of {x.shape[1]}")
    if window is None:
        window = call.derived("window", lambda: np.ones(length, dtype=np.float32))
    values = _complex_or_real(x)
    onesided = bool(call.attribute("onesided", 1))
    if values.is_complex() and onesided:
        raise InputError("got onesided for a complex signal; expected a real one")
    y = torch.stft(
        values, length, step, length, window, center=False, onesided=onesided, return_complex=True
    )
    return torch.view_as_real(y).transpose(1, 2)


def _rfft2d(call: Call) -> Result:
    sizes = [int(size) for size in call.sizes(1)]
    if len(sizes) != 2 or not all(0 < size <= _LONGEST for size in sizes):
        raise InputError(f"got a transform of {sizes}; expected two lengths of 1 to {_LONGEST}")
    return cast(torch.Tensor, torch.fft.rfft2(call.tensor(0), sizes))


def _complex_or_real(x: torch.Tensor) -> torch.Tensor:
    if x.shape[-1] not in (1, 2):
        raise InputError(f"got a last dimension of {x.shape[-1]}; expected 1 (real) or 2 (complex)")
    return torch.complex(x[..., 0], x[..., 1]) if x.shape[-1] == 2 else x[..., 0]


def _complex(x: torch.Tensor) -> torch.Tensor:
    return x if x.is_complex() else torch.complex(x, torch.zeros_like(x))


def _number(call: Call, index: int) -> int:
    """A length or step. Raises InputError for one that is not positive or out of all bounds."""
    value = int(call.sizes(index)[0])
    if not 0 < value <= _LONGEST:
        raise InputError(f"got {value} for {call.step.inputs[index]!r}; expected 1 to {_LONGEST}")
    return value


def _window(*weights: float) -> Callable[[Call], Result]:
    """Σ_k weights[k] · cos(2πkn/N), N the size or, for a symmetric window, one less."""

    def handler(call: Call) -> Result:
        size = _number(call, 0)
        check_elements([size])
        period = size if call.attribute("periodic", 1) else max(1, size - 1)
        angles = 2 * math.pi * np.arange(size) / period
        terms = [weight * np.cos(order * angles) for order, weight in enumerate(weights)]
        return np.asarray(np.sum(terms, axis=0), dtype=np.float32)

    return handler


def _mel_weights(call: Call) -> Result:
    """Triangles between points that are equally far apart on the mel scale: `[bins, mels]`."""
    mels, length, rate = (_number(call, index) for index in range(3))
    low, high = (float(call.host(index).reshape(-1)[0]) for index in (3, 4))
    if not 0 <= low < high:
        raise InputError(f"got edges of {low:g} and {high:g} Hz; expected 0 <= lower < upper")
    bins = length // 2 + 1
    check_elements([bins, mels])
    first, last = (2595 * math.log10(1 + edge / 700) for edge in (low, high))
    points = first + (last - first) / (mels + 2) * np.arange(mels + 2)
    edges = np.floor((length + 1) * 700 * (10 ** (points / 2595) - 1) / rate).astype(np.int64)
    if edges[-1] > bins:
        raise InputError(f"got an upper edge of {high:g} Hz for {rate} samples per second")
    return _triangles(edges, bins)


def _triangles(edges: Array, bins: int) -> Array:
    table = np.zeros((bins, len(edges) - 2), dtype=np.float32)
    for column, (left, centre, right) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        if left == centre:
            table[centre, column] = 1
        else:
            table[left : centre + 1, column] = np.arange(centre - left + 1) / (centre - left)
        if right > centre:
            table[centre:right, column] = (right - np.arange(centre, right)) / (right - centre)
    return table


SPECTRAL: dict[str, Callable[[Call], Result]] = {
    "DFT": _dft,
    "STFT": _stft,
    "HannWindow": _window(0.5, -0.5),
    "HammingWindow": _window(25 / 46, -21 / 46),
    "BlackmanWindow": _window(0.42, -0.5, 0.08),
    "MelWeightMatrix": _mel_weights,
    RFFT2D: _rfft2d,
    REAL: lambda call: torch.real(call.tensor(0)),
    IMAG: lambda call: torch.imag(call.tensor(0)),
}

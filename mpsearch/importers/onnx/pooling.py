"""Pooling with ONNX's padding, rounding and counting."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from mpsearch.errors import InputError
from mpsearch.importers.onnx.calls import Call, Result
from mpsearch.importers.onnx.windows import Window, pad_spatial, window_of

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Callable[..., torch.Tensor]] = {
    1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d,
}  # fmt: skip


def _window(call: Call, x: torch.Tensor) -> Window:
    window = window_of(call, x, tuple(call.attribute("kernel_shape", [])))
    if len(window.kernel) not in _MAX:
        raise InputError(f"got {len(window.kernel)} spatial dimensions; expected 1, 2 or 3")
    return window


def _as_torch_pads(window: Window) -> bool:
    """torch pads both sides equally, by at most half a kernel, and rounds down."""
    fits = all(2 * b <= k for b, k in zip(window.begin, window.kernel, strict=True))
    return window.is_symmetric and fits and not any(window.overhang)


def _end(window: Window) -> tuple[int, ...]:
    return tuple(e + o for e, o in zip(window.end, window.overhang, strict=True))


def _max_pool(call: Call) -> Result:
    x = call.tensor(0)
    window = _window(call, x)
    pool = _MAX[len(window.kernel)]
    if not _as_torch_pads(window):
        x = pad_spatial(x, window.begin, _end(window), -torch.inf)
        window = window.without_padding()
    return pool(x, window.kernel, window.strides, window.begin, window.dilations)


def _average_pool(call: Call) -> Result:
    """With padding on one side or partial windows: the sum, by the number that ONNX counts."""
    x = call.tensor(0)
    window = _window(call, x)
    counted = bool(call.attribute("count_include_pad", 0))
    pool = _AVERAGE[len(window.kernel)]
    if any(d > 1 for d in window.dilations):
        raise InputError(f"got dilations {list(window.dilations)}; expected an average without")
    if _as_torch_pads(window):
        return pool(x, window.kernel, window.strides, window.begin, False, counted)
    sizes = [int(size) for size in x.shape[2:]]
    inside = torch.zeros(1, 1, *[s + b + e for s, b, e in _sides(sizes, window, window.end)])
    region = tuple(
        slice(None) if counted else slice(b, b + s) for s, b, _ in _sides(sizes, window, window.end)
    )
    inside[(slice(None), slice(None), *region)] = 1.0
    zero = (0,) * len(sizes)
    # the share of each window that counts; pooling the padded input divides by the whole window
    shares = pool(pad_spatial(inside, zero, window.overhang, 0.0), window.kernel, window.strides)
    padded = pad_spatial(x, window.begin, _end(window), 0.0)
    factor = call.derived("window_share", lambda: (1.0 / shares).numpy())
    return pool(padded, window.kernel, window.strides) * factor


def _sides(sizes: list[int], window: Window, end: tuple[int, ...]) -> list[tuple[int, int, int]]:
    return list(zip(sizes, window.begin, end, strict=True))


def _over_space(function: Callable[..., torch.Tensor]) -> Callable[[Call], Result]:
    def handler(call: Call) -> Result:
        x = call.tensor(0)
        if x.dim() < 3:
            raise InputError(f"got {x.dim()} dimensions; expected [N, C, …]")
        return function(x, list(range(2, x.dim())), keepdim=True)

    return handler


POOLING: dict[str, Callable[[Call], Result]] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalMaxPool": _over_space(torch.amax),
    "GlobalAveragePool": _over_space(torch.mean),
}

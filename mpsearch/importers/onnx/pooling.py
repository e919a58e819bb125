"""Pooling with ONNX's padding, rounding and counting.

Resize and Upsample: nearest, linear and cubic, in ONNX's coordinate systems.

torch's own interpolation is used where it means the same. Otherwise every axis is a selection of
rows by position (nearest), or two selections and their weighted sum (linear).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from mpsearch.errors import InputError
from mpsearch.importers.onnx.calls import Call, Result, axis_of, check_elements
from mpsearch.importers.onnx.steps import Array
from mpsearch.importers.onnx.weighted import Window, pad_spatial, window_of

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


_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class _Axis:
    """One resized axis: `scale` as the file gives it, which need not be `after / before`."""

    axis: int
    before: int
    after: int
    scale: float


def _axes(call: Call, x: torch.Tensor, scales_at: int, sizes_at: int) -> list[_Axis]:
    """The axes that change; the batch and axes of equal size stay as they are."""
    chosen = [axis_of(a, x.dim()) for a in call.attribute("axes", list(range(x.dim())))]
    scales = call.step.attributes.get("scales")
    if scales is None and call.has(scales_at) and call.host(scales_at).size:
        scales = [float(scale) for scale in call.host(scales_at)]
    found = []
    if scales is not None:
        for axis, scale in zip(chosen, scales, strict=True):
            if scale != 1:
                before = int(x.shape[axis])
                found.append(_Axis(axis, before, int(np.floor(before * scale)), float(scale)))
        return found
    if call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise InputError("got a keep_aspect_ratio_policy; expected stretch")
    for axis, size in zip(chosen, call.sizes(sizes_at), strict=True):
        before = x.shape[axis]
        if axis and before != size:
            found.append(_Axis(axis, int(before), int(size), float(size) / int(before)))
    return found


def _coordinates(axis: _Axis, mode: str) -> Array:
    """Positions in the input, as fractions, of the output's positions."""
    out = np.arange(axis.after, dtype=np.float64)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and axis.after > 1):
        return (out + 0.5) / axis.scale - 0.5
    if mode == "pytorch_half_pixel":
        return np.zeros_like(out)
    if mode == "asymmetric":
        return out / axis.scale
    if mode == "align_corners":
        return out * ((axis.before - 1) / (axis.after - 1)) if axis.after > 1 else out * 0
    if mode == "tf_half_pixel_for_nn":
        return (out + 0.5) / axis.scale
    if mode == "half_pixel_symmetric":
        adjustment = axis.after / (axis.before * axis.scale)
        centre = axis.before / 2
        return centre * (1 - adjustment) + (out + 0.5) / axis.scale - 0.5
    raise InputError(f"got the coordinate mode {mode!r}; expected one without a region of interest")


def _nearest(position: Array, mode: str) -> Array:
    rounding: dict[str, Callable[[Array], Array]] = {
        "round_prefer_floor": lambda p: np.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: np.floor(p + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    if mode not in rounding:
        raise InputError(f"got nearest_mode {mode!r}; expected one of {', '.join(rounding)}")
    # what differs from a whole number by rounding errors only is that number
    exact = np.round(position)
    return rounding[mode](np.where(np.abs(position - exact) < 1e-6, exact, position))


def _resize_nearest(call: Call, x: torch.Tensor, axes: list[_Axis], coordinates: str) -> Result:
    rule = call.attribute("nearest_mode", "round_prefer_floor")
    if call.step.operator == "Upsample":
        rule = "floor"
    rows = {
        a.axis: np.clip(_nearest(_coordinates(a, coordinates), rule), 0, a.before - 1) for a in axes
    }
    as_torch = all(
        np.array_equal(rows[a.axis], np.floor(np.arange(a.after) * a.before / a.after))
        for a in axes
    )
    if as_torch and _is_spatial(x, axes):
        return F.interpolate(x, size=_spatial_size(x, axes), mode="nearest")
    for axis, positions in rows.items():
        where = call.derived(f"rows{axis}", _fixed(positions.astype(np.int64)))
        x = x.index_select(axis, where)
    return x


def _resize_linear(call: Call, x: torch.Tensor, axes: list[_Axis], coordinates: str) -> Result:
    exact = all(a.after == a.before * a.scale for a in axes)
    corners = coordinates == "align_corners"
    halves = coordinates == "half_pixel" or (
        coordinates == "pytorch_half_pixel" and all(a.after > 1 for a in axes)
    )
    if _is_spatial(x, axes) and (corners or (halves and exact)):
        return F.interpolate(
            x, size=_spatial_size(x, axes), mode=_LINEAR[x.dim() - 2], align_corners=corners
        )
    for a in axes:
        position = np.clip(_coordinates(a, coordinates), 0, a.before - 1)
        low = np.floor(position).astype(np.int64)
        high = np.minimum(low + 1, a.before - 1)
        shape = [-1 if axis == a.axis else 1 for axis in range(x.dim())]
        share = (position - low).astype(np.float32).reshape(shape)
        below = x.index_select(a.axis, call.derived(f"below{a.axis}", _fixed(low)))
        above = x.index_select(a.axis, call.derived(f"above{a.axis}", _fixed(high)))
        x = below + (above - below) * call.derived(f"share{a.axis}", _fixed(share))
    return x


def _fixed(array: Array) -> Callable[[], Array]:
    return lambda: array


def _is_spatial(x: torch.Tensor, axes: list[_Axis]) -> bool:
    return 3 <= x.dim() <= 5 and all(a.axis >= 2 for a in axes)


def _spatial_size(x: torch.Tensor, axes: list[_Axis]) -> list[int]:
    sizes = {a.axis: a.after for a in axes}
    return [sizes.get(axis, int(x.shape[axis])) for axis in range(2, x.dim())]


def _resize(call: Call) -> Result:
    x = call.tensor(0)
    old = call.step.operator == "Upsample" or call.opset < 11
    axes = _axes(call, x, *((1, 9) if old else (2, 3)))
    largest: dict[int, int] = {a.axis: max(a.before, a.after) for a in axes}  # one after another
    check_elements([largest.get(axis, size) for axis, size in enumerate(x.shape)])
    mode = call.attribute("mode", "nearest")
    coordinates = call.attribute(
        "coordinate_transformation_mode", "asymmetric" if old else "half_pixel"
    )
    if call.attribute("antialias", 0) or call.attribute("exclude_outside", 0):
        raise InputError("got antialias or exclude_outside; expected plain interpolation")
    if not axes:
        return x
    if min(a.after for a in axes) < 1:
        raise InputError(f"it would make the shape {[a.after for a in axes]}")
    if mode == "nearest":
        return _resize_nearest(call, x, axes, coordinates)
    if mode == "linear":
        return _resize_linear(call, x, axes, coordinates)
    if mode == "cubic" and x.dim() == 4 and _is_spatial(x, axes):
        corners = coordinates == "align_corners"
        exact = all(a.after == a.before * a.scale for a in axes)
        cubic = call.attribute("cubic_coeff_a", -0.75) == -0.75
        if cubic and (corners or (exact and coordinates in ("half_pixel", "pytorch_half_pixel"))):
            return F.interpolate(
                x, size=_spatial_size(x, axes), mode="bicubic", align_corners=corners
            )
    raise InputError(f"got mode {mode!r} with {coordinates!r}, which torch does not have")


RESIZING: dict[str, Callable[[Call], Result]] = {"Resize": _resize, "Upsample": _resize}

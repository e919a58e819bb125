"""Resizing with torch's own coordinates, and reading at computed places.

Where a scale was given that is not the quotient of the sizes, torch computes with the scale: ONNX's
Resize would take the quotient, so that a product along every axis says it instead.
"""

from collections.abc import Sequence

import numpy as np
import torch

from mpsearch.exporters.onnx.call import Call, Tensor, Writer
from mpsearch.exporters.onnx.pooling import along_axes

_MODES = {
    "nearest": "nearest", "nearest_exact": "nearest", "linear": "linear", "bilinear": "linear",
    "trilinear": "linear", "bicubic": "cubic",
}  # fmt: skip


def _resized(call: Call) -> str:
    word = call.operator.removeprefix("_").removeprefix("upsample_").removesuffix("_aa")
    dimensions, mode = int(word[-2]), _MODES[word[:-2]]
    smoothed = call.operator.endswith("_aa")
    source = call.tensor("self" if call.given("self") is not None else "input")
    before, after = (row[2:] for row in (source.sizes, call.result.sizes))
    if not all(size.is_fixed for size in (*before, *after)):
        raise call.refuse("resizes the batch")
    sizes = [(a.fixed, b.fixed) for a, b in zip(before, after, strict=True)]
    corners = call.flag("align_corners")
    scales = _scales(call, dimensions)
    by_scale = not corners and any(
        scale is not None and scale * n != out
        for scale, (n, out) in zip(scales, sizes, strict=True)
    )
    exact = "exact" in word
    if mode == "nearest" and (exact or by_scale or any(out % n for n, out in sizes)):
        return _picked(call, source, sizes, scales)
    if by_scale or smoothed or dimensions == 1:
        matrices = [
            _matrix(mode, n, out, corners, scale, smoothed)
            for scale, (n, out) in zip(scales, sizes, strict=True)
        ]
        return along_axes(call, source, matrices)
    coordinates = "asymmetric" if mode == "nearest" else "half_pixel"
    attributes = {"nearest_mode": "floor"} if mode == "nearest" else {}
    if mode == "cubic":
        attributes["cubic_coeff_a"] = -0.75  # type: ignore[assignment]
    target = call.whole_list([out for _, out in sizes])
    return call.add(
        "Resize", [source, "", "", target], mode=mode, axes=list(range(2, dimensions + 2)),
        coordinate_transformation_mode="align_corners" if corners else coordinates, **attributes,
    )  # fmt: skip


def _picked(
    call: Call, source: Tensor, sizes: Sequence[tuple[int, int]], scales: Sequence[float | None]
) -> str:
    """Which elements are the nearest, as torch rounds it: runtimes divide where it multiplies."""
    name = source.name
    for place, (scale, (n, out)) in enumerate(zip(scales, sizes, strict=True)):
        line = torch.arange(n, dtype=torch.float32)
        others = len(sizes) - 1  # torch's kernels of 1, 2 and 3 dimensions round differently
        image = line.reshape(1, 1, n, *[1] * others)
        word = "_upsample_nearest_exact" if "exact" in call.operator else "upsample_nearest"
        resize = getattr(torch.ops.aten, f"{word}{others + 1}d").default
        places = resize(image, [out, *[1] * others], scale, *[None] * others).flatten()
        name = call.add("Gather", [name, call.constant(places.long().numpy())], axis=place + 2)
    return name


def _scales(call: Call, dimensions: int) -> list[float | None]:
    if call.has("scale_factors"):
        return [float(factor) for factor in call.given("scale_factors")]
    names = ["scales"] if dimensions == 1 else ["scales_d", "scales_h", "scales_w"][-dimensions:]
    return [call.given(name) for name in names]


def _matrix(
    mode: str, before: int, after: int, corners: bool, scale: float | None, smoothed: bool
) -> np.ndarray:
    """[after, before]: what torch itself makes of every single element of a line."""
    lines, aten = torch.eye(before).reshape(1, before, before), torch.ops.aten
    if smoothed:
        resize = aten._upsample_bicubic2d_aa if mode == "cubic" else aten._upsample_bilinear2d_aa
        image = lines.reshape(1, before, 1, before)
        made = resize.default(image, [1, after], corners, None, scale)[0, :, 0]
    elif mode == "linear":
        made = aten.upsample_linear1d(lines, [after], corners, scale)[0]
    else:
        image = lines.reshape(1, before, 1, before)
        made = aten.upsample_bicubic2d(image, [1, after], corners, None, scale)[0, :, 0]
    found: np.ndarray = made.T.contiguous().numpy()
    return found


def _sampled(call: Call) -> str:
    mode = ("linear", "nearest", "cubic")[call.whole("interpolation_mode")]
    padding = ("zeros", "border", "reflection")[call.whole("padding_mode")]
    return call.add(
        "GridSample", [call.tensor("input"), call.tensor("grid")], mode=mode,
        padding_mode=padding, align_corners=int(call.flag("align_corners")),
    )  # fmt: skip


_RESIZED = (
    "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d "
    "_upsample_bilinear2d_aa _upsample_bicubic2d_aa "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d "
    "upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d"
)
WRITERS: dict[str, Writer] = {
    **dict.fromkeys(_RESIZED.split(), _resized),
    **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), _sampled),
}

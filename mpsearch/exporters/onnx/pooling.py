"""Pooling over any number of dimensions: ONNX's own operators where they mean the same.

Runtimes disagree about windows that reach over the edge (ceil_mode, padding that does not count,
another divisor), and ONNX has no adaptive pooling of any size. Sums over windows are products with
matrices of zeros and ones along every axis, divided by how much each window counts.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch

from mpsearch.exporters.onnx.call import Call, Operand, Writer
from mpsearch.exporters.onnx.graph_builder import spread
from mpsearch.exporters.onnx.sizes import Sizes

Window = tuple[int, int]


def _lengths(call: Call) -> tuple[int, list[int], list[int]]:
    """(number of dimensions, their sizes before, and after)."""
    name = call.operator.removesuffix("_with_indices")
    dimensions = int(name[-2])
    sizes: list[Sizes] = [call.tensor("self").sizes, call.result.sizes]
    if not all(size.is_fixed for row in sizes for size in row[-dimensions:]):
        raise call.refuse("pools over the batch")
    before, after = ([size.fixed for size in row[-dimensions:]] for row in sizes)
    return dimensions, before, after


def _with_batch(call: Call, dimensions: int) -> tuple[str, bool]:
    """The source with a batch and channels in front, and whether it was without."""
    source = call.tensor("self")
    bare = source.form.rank == dimensions + 1
    return (call.add("Unsqueeze", [source, call.whole_list([0])]) if bare else source.name), bare


def _finished(call: Call, made: str, bare: bool) -> str:
    return call.add("Squeeze", [made, call.whole_list([0])]) if bare else made


def _max_pool(call: Call) -> str | list[str]:
    """MaxPool whose padding at the end gives the recorded shape, whatever torch's ceil_mode did."""
    dimensions, sizes, outputs = _lengths(call)
    kernel = spread(call.wholes("kernel_size"), dimensions)
    strides = spread(call.wholes("stride"), dimensions) if call.given("stride") else kernel
    begins, dilations = (spread(call.wholes(name), dimensions) for name in ("padding", "dilation"))
    ends = [
        max(0, (o - 1) * s + d * (k - 1) + 1 - n - b)
        for o, s, d, k, n, b in zip(outputs, strides, dilations, kernel, sizes, begins, strict=True)
    ]
    source, bare = _with_batch(call, dimensions)
    several = call.operator.endswith("_with_indices")
    made = call.several(
        "MaxPool", [source], 2 if several else 1, kernel_shape=kernel, strides=strides,
        dilations=dilations, pads=begins + ends,
    )  # fmt: skip
    if not several:
        return _finished(call, made[0], bare)
    # ONNX counts places in the whole tensor, torch in a channel
    place = call.add("Mod", [made[1], call.scalar(math.prod(sizes), torch.int64)])
    return [_finished(call, made[0], bare), _finished(call, place, bare)]


def adaptive_windows(size: int, outputs: int) -> list[Window]:
    """Window i of o over n elements: floor(i·n/o) to ceil((i + 1)·n/o), as torch has it."""
    return [(i * size // outputs, -((i + 1) * size // -outputs)) for i in range(outputs)]


def _even(sizes: Sequence[int], outputs: Sequence[int]) -> list[int] | None:
    """The kernel of adaptive windows that are all alike and do not overlap."""
    if any(n % o for n, o in zip(sizes, outputs, strict=True)):
        return None
    return [n // o for n, o in zip(sizes, outputs, strict=True)]


def _adaptive_max(call: Call) -> list[str | None] | str:
    dimensions, sizes, outputs = _lengths(call)
    source, bare = _with_batch(call, dimensions)
    kernel = _even(sizes, outputs)
    if kernel is not None:
        made = call.add("MaxPool", [source], kernel_shape=kernel, strides=kernel)
    else:
        made = source
        for place, (n, o) in enumerate(zip(sizes, outputs, strict=True)):
            axis = place + 2
            rows = [
                call.add(
                    "ReduceMax",
                    [call.slice(made, axis, start, end), call.whole_list([axis])],
                    keepdims=1,
                )
                for start, end in adaptive_windows(n, o)
            ]
            made = call.add("Concat", rows, axis=axis)
    return [_finished(call, made, bare), None]


def _average_pool(call: Call) -> str:
    dimensions, sizes, outputs = _lengths(call)
    source, bare = _with_batch(call, dimensions)
    if call.operator.startswith("adaptive"):
        kernel = _even(sizes, outputs)
        if set(outputs) == {1}:
            made = call.add("GlobalAveragePool", [source])
        elif kernel is not None:
            made = call.add("AveragePool", [source], kernel_shape=kernel, strides=kernel)
        else:
            windows = [adaptive_windows(n, o) for n, o in zip(sizes, outputs, strict=True)]
            made = _averaged(call, source, sizes, windows, _counted(windows))
        return _finished(call, made, bare)
    kernel = spread(call.wholes("kernel_size"), dimensions)
    strides = spread(call.wholes("stride"), dimensions) if call.given("stride") else kernel
    padding = spread(call.wholes("padding"), dimensions)
    divisor = call.given("divisor_override")
    if not any(padding) and not call.flag("ceil_mode") and divisor is None:
        made = call.add("AveragePool", [source], kernel_shape=kernel, strides=strides)
        return _finished(call, made, bare)
    windows, padded = [], []
    for n, o, k, s, p in zip(sizes, outputs, kernel, strides, padding, strict=True):
        starts = [i * s - p for i in range(o)]
        windows.append([(max(0, a), min(n, a + k)) for a in starts])
        padded.append([(a, min(n + p, a + k)) for a in starts])
    counts = _counted(padded if call.flag("count_include_pad") else windows)
    if divisor is not None:
        counts = np.full_like(counts, call.whole("divisor_override"))
    return _finished(call, _averaged(call, source, sizes, windows, counts), bare)


def _counted(windows: Sequence[Sequence[Window]]) -> np.ndarray:
    lengths = [np.array([end - start for start, end in row]) for row in windows]
    found: np.ndarray = functools.reduce(np.multiply.outer, lengths).astype(np.float32)
    return found


def _averaged(
    call: Call, source: Operand, sizes: Sequence[int], windows: Sequence[Sequence[Window]],
    counts: np.ndarray,
) -> str:  # fmt: skip
    """Sums over the windows along one axis after the other, divided by the counts."""
    matrices = [
        np.array([[a <= i < b for i in range(n)] for a, b in row], dtype=np.float32)
        for n, row in zip(sizes, windows, strict=True)
    ]
    return call.add("Div", [along_axes(call, source, matrices), call.constant(counts)])


def along_axes(call: Call, source: Operand, matrices: Sequence[np.ndarray | None]) -> str:
    """Multiply each of the last axes by its matrix [after, before]; None leaves an axis."""
    rank = len(matrices) + 2
    made = source if isinstance(source, str) else source.name
    for place, matrix in enumerate(matrices):
        if matrix is None:
            continue
        axis = place + 2
        if axis == rank - 1:
            made = call.add("MatMul", [made, call.constant(np.ascontiguousarray(matrix.T))])
            continue
        order = [*(i for i in range(rank) if i not in (axis, rank - 1)), axis, rank - 1]
        back = [order.index(i) for i in range(rank)]
        made = call.transpose(made, order)
        made = call.transpose(call.add("MatMul", [call.constant(matrix), made]), back)
    return made


WRITERS: dict[str, Writer] = {
    **{f"max_pool{d}d": _max_pool for d in (1, 2, 3)},
    **{f"max_pool{d}d_with_indices": _max_pool for d in (1, 2, 3)},
    **{f"avg_pool{d}d": _average_pool for d in (1, 2, 3)},
    **{f"adaptive_avg_pool{d}d": _average_pool for d in (1, 2, 3)},
    **{f"_adaptive_avg_pool{d}d": _average_pool for d in (2, 3)},
    **{f"adaptive_max_pool{d}d": _adaptive_max for d in (1, 2, 3)},
}

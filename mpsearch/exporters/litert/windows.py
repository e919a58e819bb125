"""Paddings and windows of torch in LiteRT's terms: VALID, SAME, or a PAD of its own before.

What a step clips to, as LiteRT's fused activation where it has one, else as MAXIMUM, MINIMUM.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mpsearch.exporters.litert.layouts import Tensors, scales_of, stored_shape
from mpsearch.integer.arithmetic import Multiply
from mpsearch.integer.graph import Add, AveragePool, IntegerTensor, Pair
from mpsearch.quantization.quantizer import ActivationQuantizer

SAME, VALID = 0, 1


@dataclass(frozen=True)
class Padding:
    """`scheme` of the operator, and what a PAD before it adds: ((top, bottom), (left, right))."""

    scheme: int
    pads: tuple[Pair, Pair] = ((0, 0), (0, 0))


def padding_for(
    size: Sequence[int],
    output: Sequence[int],
    kernel: Pair,
    stride: Pair,
    dilation: Pair,
    before: Pair,
) -> Padding:
    """How LiteRT computes the `output` places of windows that start `before` the image.

    SAME pads max(0, (ceil(n/s) - 1)·s + d·(k - 1) + 1 - n) in all, the smaller half before.
    """
    reach = (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)
    pads = pads_for(size, output, reach, stride, before)
    if not any(map(any, pads)):
        return Padding(VALID)
    same = [
        o == -(n // -s) and b == max(0, (o - 1) * s + r - n) // 2
        for n, o, s, r, b in zip(size, output, stride, reach, before, strict=True)
    ]
    if all(same):
        return Padding(SAME)
    return Padding(VALID, pads)


def pads_for(
    size: Sequence[int], output: Sequence[int], reach: Pair, stride: Pair, before: Pair
) -> tuple[Pair, Pair]:
    """What windows over `reach` elements read beyond the image: ((top, bottom), (left, right))."""
    rows, columns = (
        (b, max(0, (o - 1) * s + r - n - b))
        for n, o, s, r, b in zip(size, output, stride, reach, before, strict=True)
    )
    return rows, columns


@dataclass(frozen=True)
class RegularPool:
    """Average over equal windows; `counted`: padded places count as zeros."""

    kernel: Pair
    stride: Pair
    before: Pair
    counted: bool


def regular(step: AveragePool, size: Pair) -> RegularPool | None:
    """The equal windows of an average pool, None where they are not equal (adaptive pools) or the
    divisor is another number."""
    found = [_regular(rows, n) for rows, n in zip((step.rows, step.columns), size, strict=True)]
    for one in found[0]:
        for two in found[1]:
            kernel, stride, before = zip(one, two, strict=True)
            places = [
                [b - a for a, b in rows] for rows in (step.rows, step.columns)
            ]  # what lies inside the image
            inside = all(
                step.counts[i][j] == h * w
                for i, h in enumerate(places[0])
                for j, w in enumerate(places[1])
            )
            whole = bool((step.counts == kernel[0] * kernel[1]).all())
            if inside or whole:
                pool = RegularPool(
                    (kernel[0], kernel[1]), (stride[0], stride[1]), (before[0], before[1]), whole
                )
                if whole or padding_for(
                    size, (len(step.rows), len(step.columns)), pool.kernel, pool.stride, (1, 1),
                    pool.before,
                ).scheme == SAME:  # fmt: skip
                    return pool
    return None


def _regular(windows: Sequence[Pair], size: int) -> list[tuple[int, int, int]]:
    """All (kernel, stride, before) that give these windows when cut to [0, size)."""
    widest = max(b - a for a, b in windows)
    strides = [size] if len(windows) == 1 else range(1, size + 1)
    return [
        (kernel, stride, before)
        for stride in strides
        for kernel in range(widest, 2 * widest + 1)
        for before in range(kernel)
        if all(
            (max(0, i * stride - before), min(size, i * stride - before + kernel)) == tuple(window)
            for i, window in enumerate(windows)
        )
    ]


NONE, RELU, RELU6 = 0, 1, 3
_LOWEST, _HIGHEST = -128, 127


@dataclass(frozen=True)
class Clip:
    """The smallest and largest int8 that may come out, and the fused activation that does it.

    `rest` is true where no fused activation clips to exactly these ends.
    """

    low: int
    high: int
    fused: int
    rest: bool


def clip_of(
    low: int, high: int, tensor: IntegerTensor, quantizer: ActivationQuantizer, fusable: bool = True
) -> Clip:
    """The clip of a step of the integer graph, whose result LiteRT keeps at `quantizer`."""
    zero = quantizer.zero_point - 128
    ends = [_code(end, tensor, quantizer) for end in (low, high)]
    six = min(_HIGHEST, zero + round(6 / quantizer.scale))
    known = {(_LOWEST, _HIGHEST): NONE}
    if fusable:
        known = {(zero, six): RELU6, (zero, _HIGHEST): RELU, **known}
    fused = known.get((ends[0], ends[1]))
    return Clip(ends[0], ends[1], NONE if fused is None else fused, fused is None)


def _code(end: int, tensor: IntegerTensor, quantizer: ActivationQuantizer) -> int:
    """The int8 code of an end that is given in the integer graph's own units."""
    if not tensor.signed:
        return end - 128
    if end in (tensor.low, tensor.high):  # the graph's own saturation, which ours takes over
        return _LOWEST if end == tensor.low else _HIGHEST
    zero = quantizer.zero_point - 128
    return int(np.clip(round(end * tensor.scale / quantizer.scale) + zero, _LOWEST, _HIGHEST))


def write_clipped(
    tensors: Tensors, output: IntegerTensor, layout: str, clip: Clip, write: Callable[[int], None]
) -> None:
    """`write` gets the tensor for an operator's result; MAXIMUM and MINIMUM follow if needed."""
    name, quantizer = output.name, tensors.quantizers[output.name]
    target = tensors.new(name, output.shape, quantizer, layout)
    if not clip.rest:
        write(target)
        return
    stored = stored_shape(output.shape, layout)
    result = tensors.scratch(f"{name} unclipped", stored, quantizer)
    write(result)
    between = tensors.scratch(f"{name} raised", stored, quantizer)
    for operator, end, source, into in (
        ("MAXIMUM", clip.low, result, between),
        ("MINIMUM", clip.high, between, target),
    ):
        limit = tensors.file.tensor(
            f"{name} {operator}", (1,), "INT8", scales_of(quantizer), np.array([end])
        )
        tensors.file.operator(operator, 2, [source, limit], [into], "MaximumMinimumOptions")


def of_two(
    tensors: Tensors, step: Add | Multiply, layout: str, operator: str, options: str
) -> None:
    """An operator of two tensors, number by number, and what the step clips to."""
    sources = [tensors.read(name, layout) for name in step.sources]
    clip = clip_of(step.low, step.high, step.output, tensors.quantizers[step.output.name])

    def write(target: int) -> None:
        tensors.file.operator(
            operator, 2, sources, [target], options, fusedActivationFunction=clip.fused
        )

    write_clipped(tensors, step.output, layout, clip, write)

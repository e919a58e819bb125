"""Paddings and windows of torch in LiteRT's terms: VALID, SAME, or a PAD of its own before."""

from collections.abc import Sequence
from dataclasses import dataclass

from mpsearch.integer.graph import AveragePool, Pair

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

"""Which points are not dominated: vectorised, exact, for two or three coordinates, else partial."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

PAIRWISE = 256


def nondominated(points: NDArray[Any]) -> NDArray[np.int64]:
    """Indices of the non-dominated columns of points [D, n], sorted by the last coordinate.

    A point is dominated if another one is no larger in every coordinate; of equal points one is
    kept. Exact for D <= 3. For D >= 4 and more than 256 points, dominated points may remain:
    neighbours in sorted order are compared in blocks, which keeps the cost near-linear.
    """
    coordinates = len(points)
    if points.shape[1] == 0:
        return np.zeros(0, dtype=np.int64)
    order = np.lexsort(points)  # by the last coordinate, ties by the one before, …
    if coordinates == 1:
        return order[:1]
    if coordinates == 2:
        return order[_is_record(points[0][order])]
    if coordinates == 3:
        return order[_staircase(points[0][order], points[1][order])]
    return order[_pairwise(points[:, order])]


def _is_record(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value is below all values before it."""
    record = np.ones(len(values), dtype=bool)
    record[1:] = values[1:] < np.minimum.accumulate(values)[:-1]
    return record


def _staircase(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.bool_]:
    """Points in order of their third coordinate: keep those that no earlier one dominates.

    Divide and conquer over positions, bottom up and without recursion: at each level the left half
    of every block hands the right half its least `second` among points with `first` no larger.
    """
    n = len(first)
    small = n < 1 << 16  # numpy sorts 16-bit integers by radix
    by_first: NDArray[Any] = np.lexsort((second, first)).astype(np.uint16 if small else np.int64)
    _, rank = np.unique(second, return_inverse=True)
    rank = rank.astype(np.int64)
    keep = np.ones(n, dtype=bool)
    for level in range(max(n - 1, 1).bit_length()):
        blocks = by_first >> (level + 1)
        by_block = np.argsort(blocks, kind="stable")
        order, blocks = by_first[by_block], blocks[by_block].astype(np.int64)
        left = (order >> level) & 1 == 0
        offset = (int(blocks[-1]) - blocks) * (n + 1)  # later blocks lie lower: no minimum leaks
        own = rank[order] + offset
        least = np.minimum.accumulate(np.where(left, own, n + offset))
        keep[order[~left & (least <= own)]] = False
    return keep


def _pairwise(points: NDArray[Any]) -> NDArray[np.bool_]:
    """Compare all pairs within blocks of sorted points; the earlier of two may dominate."""
    n = points.shape[1]
    keep = np.ones(n, dtype=bool)
    for start in range(0, n, PAIRWISE):
        block = points[:, start : start + PAIRWISE]
        size = block.shape[1]
        dominated = np.tri(size, k=-1, dtype=bool).T  # row i may dominate column j > i
        for values in block:
            dominated &= values[:, None] <= values[None, :]
        keep[start : start + size] = ~dominated.any(axis=0)
    return keep

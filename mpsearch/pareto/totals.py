"""Exact totals of many assignments at once: int64 sums, limbs where they do not fit."""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.tables.exact import IntArray, to_float

LIMB = 40
ENTRIES = 4096  # layers are looked up together while their joint table has at most so many


def totals(
    matrices: list[IntArray], digits: list[int], chosen: NDArray[np.int8]
) -> list[NDArray[Any]]:
    """Matrices [L, C] of integers in units of 10**-digits, chosen [L, P] -> their totals [P].

    int64 without decimals, else the doubles nearest to the exact sums.
    """
    limbs = [_limbs(matrix) for matrix in matrices]
    sums = iter(_sums([limb for parts in limbs for limb in parts], chosen))
    answers: list[NDArray[Any]] = []
    for parts, places in zip(limbs, digits, strict=True):
        found = [next(sums) for _ in parts]
        if places:
            answers.append(nearest_doubles(found, places))
        else:
            answers.append(found[0] if len(found) == 1 else _whole(found))
    return answers


def nearest_doubles(limbs: list[NDArray[np.int64]], digits: int) -> NDArray[np.float64]:
    """The double nearest to (limbs[0] + limbs[1] * 2**40 + …) / 10**digits, of each [P].

    In pairs of doubles (Dekker, 1971) the quotient is known to about 100 bits. Where that does not
    decide the rounding, and where doubles end, the exact fraction does.
    """
    carried = [limb.copy() for limb in limbs]
    for lower, upper in pairwise(carried):
        upper += lower >> LIMB
        lower &= (1 << LIMB) - 1
    divisor = 10**digits
    if digits > 250 or len(limbs) > 5:
        return _by_fractions(carried, digits)
    high, low = np.zeros(len(limbs[0])), np.zeros(len(limbs[0]))
    for position in range(len(carried) - 1, -1, -1):
        for part in (carried[position] >> 32 << 32, carried[position] & (1 << 32) - 1):
            high, error = _two_sum(high, np.ldexp(part.astype(np.float64), LIMB * position))
            low += error
    high, low = _two_sum(high, low)
    by_high = float(divisor)
    by_low = float(divisor - int(by_high))
    quotient = high / by_high
    product, error = _two_product(quotient, by_high)
    rest = ((high - product) - error) + (low - quotient * by_low)
    answer: NDArray[np.float64]
    answer, tail = _two_sum(quotient, rest / by_high)
    ulp = np.spacing(answer)
    tie = np.abs(np.abs(tail) / ulp - 0.5) < 2.0**-30
    unsure = tie | (np.frexp(answer)[0] == 0.5) | (answer < 1e-280) | (answer > 1e280)
    unsure &= high != 0
    if unsure.any():
        answer[unsure] = _by_fractions([part[unsure] for part in carried], digits)
    return answer


def _by_fractions(limbs: list[NDArray[np.int64]], digits: int) -> NDArray[np.float64]:
    values = [to_float(total, digits) for total in _whole(limbs).tolist()]
    return np.array(values, dtype=np.float64)


def _two_sum(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[Any, Any]:
    """The rounded sum and its exact error (Knuth)."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def _two_product(a: NDArray[np.float64], b: float) -> tuple[Any, Any]:
    """The rounded product and its exact error (Veltkamp and Dekker); no overflow below 1e290."""
    product = a * b
    a_high, b_high = _upper_half(a), _upper_half(np.float64(b))
    a_low, b_low = a - a_high, b - b_high
    return product, a_low * b_low - (
        ((product - a_high * b_high) - a_low * b_high) - a_high * b_low
    )


def _upper_half(value: Any) -> Any:
    scaled = value * 134217729.0  # 2**27 + 1
    return scaled - (scaled - value)


def _limbs(matrix: IntArray) -> list[NDArray[np.int64]]:
    """Non-negative integers as 40-bit parts, lowest first, whose sums fit int64."""
    if matrix.dtype != object:
        return [matrix]
    highest = max(int(value).bit_length() for value in matrix.ravel())
    mask = (1 << LIMB) - 1
    return [((matrix >> shift) & mask).astype(np.int64) for shift in range(0, highest, LIMB)]


def _whole(limbs: list[NDArray[np.int64]]) -> NDArray[Any]:
    """The limbs as one array: int64 where all fit, else Python integers."""
    total = sum(limb.astype(object) << (LIMB * k) for k, limb in enumerate(limbs))
    values: NDArray[Any] = np.asarray(total, dtype=object)
    fits = all(int(value) < 1 << 63 for value in values.tolist())
    return values.astype(np.int64) if fits else values


def _sums(matrices: list[NDArray[np.int64]], chosen: NDArray[np.int8]) -> list[NDArray[np.int64]]:
    """Sums [P] of every matrix [L, C]; several layers are looked up in one joint table."""
    layers, count = chosen.shape
    choices = matrices[0].shape[1]
    together = 1
    while together < layers and choices ** (together + 1) <= min(ENTRIES, 16 + count):
        together += 1
    sums = [np.zeros(count, dtype=np.int64) for _ in matrices]
    for start in range(0, layers, together):
        rows = chosen[start : start + together]
        position = rows[0].astype(np.intp)
        for row in rows[1:]:
            position *= choices
            position += row
        for matrix, total in zip(matrices, sums, strict=True):
            joint = np.zeros(1, dtype=np.int64)
            for row in matrix[start : start + together]:
                joint = (joint[:, None] + row[None, :]).ravel()
            total += joint.take(position)
    return sums

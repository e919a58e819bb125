"""Exact arithmetic on table columns: decimals become integers in units of a power of ten.

A table is text, so the numbers that it means are the decimals that stand in it: three times `0.1`
is `0.3`, although the doubles disagree. Every double is therefore read as its shortest decimal
(`repr`), and a column as integers times `10**-digits`. Sums of such integers are exact.
"""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from math import inf, nextafter
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[Any]  # int64 where every sum fits, Python integers (dtype object) otherwise

_SAFE = 1 << 62


def to_integers(values: NDArray[Any]) -> tuple[IntArray, int]:
    """`[0.5, 0.25]` -> (`[50, 25]`, 2): integers n and digits d with value = n / 10**d, exactly."""
    if values.dtype == np.int64:
        return values, 0
    decimals = [Decimal(repr(value)) for value in values.tolist()]
    digits = max((-int(d.as_tuple().exponent) for d in decimals if d), default=0)
    digits = max(digits, 0)
    integers = [int(d.scaleb(digits)) for d in decimals]
    return as_narrow(np.array(integers, dtype=object)), digits


def as_narrow(values: IntArray) -> IntArray:
    """int64 where the sum of all magnitudes fits, unchanged (Python integers) otherwise."""
    if values.dtype == object and sum(map(abs, values.ravel().tolist())) < _SAFE:
        return values.astype(np.int64)
    return values


def to_float(integer: int, digits: int) -> float:
    """The double nearest to integer / 10**digits."""
    return float(Fraction(integer, 10**digits))


def to_number(integer: int, digits: int) -> int | float:
    """An exact int where there are no decimals, else the nearest double."""
    return integer if digits == 0 else to_float(integer, digits)


def float_below(value: Fraction) -> float:
    """The largest double that is not above `value`: how a lower bound is rounded."""
    nearest = float(value)
    return nearest if Fraction(nearest) <= value else nextafter(nearest, -inf)


def exact_sum(values: Sequence[int] | Sequence[float]) -> int | float:
    """The sum, exact for ints; for floats the double nearest to the exact sum of the decimals."""
    if all(isinstance(value, int) for value in values):
        return sum(values)
    integers, digits = to_integers(np.array(values, dtype=np.float64))
    return to_float(sum(integers.tolist()), digits)


def largest_allowed(limit: float | Fraction, digits: int) -> int:
    """The largest integer n whose total n / 10**digits, as it is printed, is within `limit`.

    Printed means rounded to the nearest double, so that a total copied from one answer and given
    as the limit of the next one admits the same answer.
    """
    if digits == 0 or isinstance(limit, Fraction | int):
        return int(Fraction(limit) * 10**digits // 1)
    middle = (Fraction(limit) + Fraction(nextafter(limit, inf))) / 2
    largest = int(middle * 10**digits // 1)
    return largest if to_float(largest, digits) <= limit else largest - 1


def smallest_allowed(limit: float | Fraction, digits: int) -> int:
    """The smallest integer n whose total n / 10**digits, as it is printed, is at least `limit`."""
    if digits == 0 or isinstance(limit, Fraction | int):
        return int(-(-Fraction(limit) * 10**digits // 1))
    middle = (Fraction(limit) + Fraction(nextafter(limit, -inf))) / 2
    smallest = int(-(-middle * 10**digits // 1))
    return smallest if to_float(smallest, digits) >= limit else smallest + 1

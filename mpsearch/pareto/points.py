"""Which points of a front to look at: spread over its length, or named by what they take."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError
from mpsearch.pareto.front import Front
from mpsearch.tables.units import format_amount, parse_amount, whole_number


def spread(amounts: NDArray[np.float64], count: int) -> list[int]:
    """At most `count` positions of rising `amounts` [P], the two ends first, then between them.

    Each further one is the point nearest to the middle, in the logarithm, of the widest gap that is
    left: [1, 2, 4, 8, 16] and 3 -> [0, 2, 4]. What is chosen for a smaller count is chosen for a
    larger one too. Where an amount is not positive the gaps are those of the amounts themselves.
    """
    if count < 2:
        raise InputError(f"got {count} points of the front; expected at least 2, its ends")
    place = np.log(amounts) if amounts[0] > 0 else amounts
    chosen = sorted({0, len(amounts) - 1})
    while len(chosen) < min(count, len(amounts)):
        # A gap without points inside cannot be halved.
        gaps = [
            (place[right] - place[left], -left, left, right)
            for left, right in pairwise(chosen)
            if right - left > 1
        ]
        _, _, left, right = max(gaps)
        inside = np.arange(left + 1, right)
        middle = (place[left] + place[right]) / 2
        chosen = sorted([*chosen, int(inside[np.argmin(np.abs(place[inside] - middle))])])
    return chosen


def points_of(front: Front, count: str, amounts: Iterable[str] = ()) -> list[int]:
    """`"12"` or `"all"`, or instead of them the points of least Ω within amounts such as `"145KB"`.

    Raises InputError for what is none of these, and for an amount that no point is within.
    """
    if not len(front):
        raise InputError("the front has no points; are its limits infeasible?")
    named = sorted({_within(front, text) for text in amounts})
    if named:
        return named
    if count == "all":
        return list(range(len(front)))
    points = whole_number(count)
    if points is None:
        raise InputError(f"got --points {count!r}; expected a number such as 12, or all")
    return spread(front.totals[front.resource].astype(np.float64), points)


def _within(front: Front, text: str) -> int:
    column = front.resource
    amount = parse_amount(column, text)
    if not isinstance(amount, Fraction):
        raise InputError(f"got --point {text!r}; expected an absolute {column}, as 145KB is a size")
    point = front.best_within(float(amount))
    if point is None:
        least = format_amount(column, float(front.totals[column][0]))
        raise InputError(
            f"no point of the front is within {text}; its smallest {column} is {least}"
        )
    return point

"""Functions of one number as integer steps: a table of knots, and straight lines between them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpsearch.integer.fixed_point import Integers, saturate, shift_round
from mpsearch.integer.graph import ComputedStep, IntegerTensor, reciprocal

Floats = npt.NDArray[np.float64]

_SEGMENTS = (8, 7, 6, 5)  # log2 of the codes between two knots: 256 to 2048 segments
# Errors in steps of an 8-bit result: below the first, few knots are enough; the last is the most.
FINE, LARGEST_ERROR = 1 / 16, 0.5
_MOST_FRACTION = 15
_LARGEST_KNOT = 32767
_TRIED = 3  # every third code is enough to see the largest error


@dataclass(frozen=True)
class Lookup(ComputedStep):
    """A function of one number. Knot i of `table` (int16) is its value at code 2^segment·i - 2^15,
    in units of 2^-fraction of an output code.

    Code q of the source (signed, 16 bits, zero point 0) lies on segment k = (q + 2^15) >> segment
    at r = (q + 2^15) mod 2^segment. The result is (table[k]·2^segment + (table[k+1] - table[k])·r)
    / 2^(segment + fraction), half to even, plus the output's zero point, clipped to [low, high].
    """

    function: str
    table: Integers
    segment: int
    fraction: int
    low: int
    high: int

    def compute(self, *sources: Integers) -> Integers:
        """Integers only."""
        result = shift_round(self.line(sources[0]), self.segment + self.fraction)
        return saturate(result + self.output.zero_point, self.low, self.high)

    def line(self, codes: Integers) -> Integers:
        """The values between knots, in units of 2^-(segment + fraction) of an output code."""
        place = codes.astype(np.int64) + 2**15
        knot, rest = place >> self.segment, place & (2**self.segment - 1)
        knots = self.table.astype(np.int64)
        left, right = knots[knot], knots[knot + 1]
        between: Integers = (left << self.segment) + (right - left) * rest
        return between


def lookup(
    name: str,
    function: Callable[[Floats], Floats],
    source: IntegerTensor,
    output: IntegerTensor,
    within: tuple[float, float],
) -> tuple[Lookup, float]:
    """The table of fewest knots that is fine enough for inputs `within` a range, and its largest
    error in steps of an 8-bit result (codes of the output, if it has fewer bits)."""
    low = max(source.low, math.floor(within[0] / source.scale))
    high = min(source.high, math.ceil(within[1] / source.scale))
    codes = np.arange(low, high + 1, max(1, min(_TRIED, high - low)), dtype=np.int64)
    ends = [(end - output.zero_point) * output.scale for end in (output.low, output.high)]
    wanted = np.clip(_evaluated(function, codes, source), ends[0], ends[1])
    step = _eight_bit_step(wanted, output)
    for segment in _SEGMENTS:
        knots = np.arange(2 ** (16 - segment) + 1) * 2**segment - 2**15
        table, fraction = _table(_evaluated(function, knots, source), output)
        made = Lookup(
            (source.name,), output, name, table, segment, fraction, output.low, output.high
        )
        lines = np.ldexp(made.line(codes).astype(np.float64), -(segment + fraction))
        got = np.clip(lines + output.zero_point, output.low, output.high) - output.zero_point
        error = float(np.max(np.abs(got * output.scale - wanted))) / step
        if error <= FINE:
            break
    return made, error if np.isfinite(wanted).all() else math.inf


def _evaluated(
    function: Callable[[Floats], Floats], codes: Integers, source: IntegerTensor
) -> Floats:
    return function(codes.astype(np.float64) * source.scale)


def _eight_bit_step(values: Floats, output: IntegerTensor) -> float:
    if not output.signed:
        return output.scale * float(2 ** max(0, output.bits - 8))
    finite = values[np.isfinite(values)]
    span = float(finite.max(initial=0.0)) - float(finite.min(initial=0.0))
    return max(span / 255, output.scale)


def _table(values: Floats, output: IntegerTensor) -> tuple[Integers, int]:
    """Knots in 16 bits, as fine as they fit: knots beyond the output's range matter only beside
    one that is within it."""
    exact = np.nan_to_num(values * reciprocal(output), nan=0.0)
    low, high = output.low - output.zero_point, output.high - output.zero_point
    inside = (exact >= low) & (exact <= high)
    near = inside.copy()
    near[1:] |= inside[:-1]
    near[:-1] |= inside[1:]
    codes = np.where(near, np.clip(exact, 8 * low, 8 * high), np.clip(exact, low, high))
    largest = float(np.max(np.abs(codes)))
    fraction = min(math.floor(math.log2(_LARGEST_KNOT / max(largest, 1.0))), _MOST_FRACTION)
    knots = np.clip(np.rint(np.ldexp(codes, fraction)), -_LARGEST_KNOT, _LARGEST_KNOT)
    return knots.astype(np.int16), fraction

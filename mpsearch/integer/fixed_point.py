"""Fixed-point arithmetic in integers, with one rounding: half to even.

Everything here is exact on int64 and is meant to be written again in C99, bit for bit. A real
factor M > 0 is stored as an int32 multiplier M0 in [2^30, 2^31) and a right shift n in [1, 62],
M ≈ M0·2^-n with a relative error of at most 2^-31 (Jacob et al., arXiv 1712.05877, who round
otherwise). docs/integer.md has the same definitions in C.

Softmax in integers: differences to the maximum, powers of two from a table, one division.

With codes v of scale S: t = round((max v - v)·S·log2(e)·2^20), p = 2^(-t/2^20) / Σ 2^(-t/2^20). The
power is table[k] for the upper 8 bits of t's fraction, interpolated linearly over the lower 12, in
units of 2^-30, shifted right by t's whole part. The result counts units of 2^-15, rounded half to
even. Its error is below 2^-16 + 3·10^-6 + K·2^-30 for K classes: rounding of the result; of t
(2^-21·ln 2) and of the interpolation (9.2·10^-7, relative) in numerator and denominator; the bits
that the shift drops.
"""

from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mpsearch.errors import InputError

# np.ndarray of an integer dtype; subclasses pass through every function of this module.
Integers = npt.NDArray[Any]

MULTIPLIER_BITS = 31
LARGEST_SHIFT = 62
LARGEST_PRODUCT_INPUT = 2**31  # |x| below this times M0 < 2^31 leaves room for the rounding


def shift_round(x: Integers, shift: Integers | int) -> Integers:
    """x / 2^shift rounded half to even, for int64 `x` with |x| <= 2^62 and shift in [1, 62].

    = floor((x + 2^(shift-1) - 1 + (floor(x / 2^shift) mod 2)) / 2^shift), floors being arithmetic
    right shifts. (x = 5, 1) -> 2, (x = 7, 1) -> 4, (x = -5, 1) -> -2.
    """
    amount = np.asarray(shift, dtype=np.int64)
    result: Integers = (x >> amount) & 1
    result += (np.int64(1) << (amount - 1)) - 1
    result += x
    result >>= amount
    return result


def divide_round(numerator: Integers, divisor: Integers | int) -> Integers:
    """numerator / divisor rounded half to even, int64, divisor in [1, 2^31).

    With q = floor(numerator / divisor) and r = numerator - q·divisor it is q, and q + 1 when
    2r > divisor, or when 2r = divisor and q is odd. (7, 2) -> 4, (-7, 2) -> -4, (5, 2) -> 2.
    """
    divisor = np.asarray(divisor, dtype=np.int64)
    quotient = numerator // divisor
    twice = 2 * (numerator - quotient * divisor)
    up = (twice > divisor) | ((twice == divisor) & (quotient % 2 == 1))
    rounded: Integers = quotient + up.astype(np.int64)
    return rounded


def saturate(x: Integers, low: int, high: int) -> Integers:
    """x clipped into [low, high]."""
    return np.clip(x, low, high)


@dataclass(frozen=True)
class Rescale:
    """Multiplication by positive real factors, one for the tensor or one per channel.

    `multipliers` (int32) and `shifts` (int8) are [channels] or [1]; factor = multiplier·2^-shift.
    `pre_shift` divides the input by 2^pre_shift first (rounded half to even): accumulators that
    need more than 32 bits are brought to 32 that way, 0 elsewhere.
    """

    multipliers: Integers
    shifts: Integers
    pre_shift: int = 0

    @property
    def factors(self) -> npt.NDArray[np.float64]:
        """What the integers stand for, in float64."""
        exponents = -self.shifts.astype(np.int32) - self.pre_shift
        return np.ldexp(self.multipliers.astype(np.float64), exponents)


def rescale_of(factors: npt.ArrayLike, pre_shift: int = 0) -> Rescale:
    """The `Rescale` closest to real factors >= 0.

    A factor below 2^-33 becomes multiplier 0 (its results round to 0 for every int32 input); from
    2^30 on it becomes the largest one, whose results are beyond every output range but for input 0.
    Raises InputError for a factor that is negative, infinite or NaN.
    """
    wanted = np.atleast_1d(np.asarray(factors, dtype=np.float64)) * 2.0**pre_shift
    if not bool(np.all(np.isfinite(wanted) & (wanted >= 0))):
        raise InputError("got a scale that is negative or not finite; expected positive scales")
    mantissas, exponents = np.frexp(wanted)  # wanted = mantissa·2^exponent, mantissa in [0.5, 1)
    multipliers = np.rint(np.ldexp(mantissas, MULTIPLIER_BITS)).astype(np.int64)
    shifts = MULTIPLIER_BITS - exponents.astype(np.int64)
    carried = multipliers == 2**MULTIPLIER_BITS
    multipliers = np.where(carried, 2 ** (MULTIPLIER_BITS - 1), multipliers)
    shifts = np.where(carried, shifts - 1, shifts)
    tiny = (shifts > LARGEST_SHIFT) | (wanted == 0)
    huge = ~tiny & (shifts < 1)
    multipliers = np.where(tiny, 0, np.where(huge, 2**MULTIPLIER_BITS - 1, multipliers))
    shifts = np.where(tiny | huge, 1, shifts)
    return Rescale(multipliers.astype(np.int32), shifts.astype(np.int8), pre_shift)


def rescale(x: Integers, by: Rescale, axis: int | None = None) -> Integers:
    """round(x · factor), half to even, as int64; channels along `axis` where there are several.

    `x`, after the pre-shift, must lie in [-2^31, 2^31): the product then fits int64.
    """
    wide = x.astype(np.int64)
    if by.pre_shift:
        wide = shift_round(wide, by.pre_shift)
    multipliers, shifts = by.multipliers, by.shifts
    if axis is not None and len(multipliers) > 1:
        shape = [1] * x.ndim
        shape[axis] = len(multipliers)
        multipliers, shifts = multipliers.reshape(shape), shifts.reshape(shape)
    wide *= multipliers
    return shift_round(wide, shifts)


OUTPUT_BITS = 15  # probabilities are counted in 2^-15, so that 1 fits 16 bits unsigned
FRACTION_BITS = 20
POWER_BITS = 30
_TABLE_BITS = 8
_INTERPOLATED_BITS = FRACTION_BITS - _TABLE_BITS
_LARGEST_DIFFERENCE = 2**31 - 1
LARGEST_EXPONENT = 31 << FRACTION_BITS  # beyond it the power is below 2^-30: zero


@cache
def power_table() -> tuple[int, ...]:
    """round(2^30 · 2^(-i/256)) for i = 0 … 256, from decimals: the same on every machine."""
    context = Context(prec=40)
    entries = 2**_TABLE_BITS
    return tuple(
        int((context.power(Decimal(2), Decimal(-i) / entries) * 2**POWER_BITS).to_integral_value())
        for i in range(entries + 1)
    )


def softmax(codes: Integers, axis: int, to_log2: Rescale) -> Integers:
    """Probabilities in 2^-15 (int64) along `axis` of signed `codes`."""
    wide = codes.astype(np.int64)
    differences = np.minimum(wide.max(axis=axis, keepdims=True) - wide, _LARGEST_DIFFERENCE)
    exponents = np.minimum(rescale(differences, to_log2), LARGEST_EXPONENT)
    parts = powers(exponents)
    return divide_round(parts << OUTPUT_BITS, parts.sum(axis=axis, keepdims=True))


def powers(exponents: Integers) -> Integers:
    """2^30 · 2^(-exponent / 2^20)."""
    table = np.array(power_table(), dtype=np.int64)
    fraction = exponents & (2**FRACTION_BITS - 1)
    entry = fraction >> _INTERPOLATED_BITS
    position = fraction & (2**_INTERPOLATED_BITS - 1)
    left, right = table[entry], table[entry + 1]
    result: Integers = left - shift_round((left - right) * position, _INTERPOLATED_BITS)
    result >>= exponents >> FRACTION_BITS
    return result

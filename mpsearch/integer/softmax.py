"""Softmax in integers: differences to the maximum, powers of two from a table, one division.

With codes v of scale S: t = round((max v - v)·S·log2(e)·2^20), p = 2^(-t/2^20) / Σ 2^(-t/2^20). The
power is table[k] for the upper 8 bits of t's fraction, interpolated linearly over the lower 12, in
units of 2^-30, shifted right by t's whole part. The result counts units of 2^-15, rounded half to
even. Its error is below 2^-16 + 3·10^-6 + K·2^-30 for K classes: rounding of the result; of t
(2^-21·ln 2) and of the interpolation (9.2·10^-7, relative) in numerator and denominator; the bits
that the shift drops.
"""

from decimal import Context, Decimal
from functools import cache

import numpy as np

from mpsearch.integer.fixed_point import Integers, Rescale, divide_round, rescale, shift_round

OUTPUT_BITS = 15  # probabilities are counted in 2^-15, so that 1 fits 16 bits unsigned
FRACTION_BITS = 20
_TABLE_BITS, _POWER_BITS = 8, 30
_INTERPOLATED_BITS = FRACTION_BITS - _TABLE_BITS
_LARGEST_DIFFERENCE = 2**31 - 1
_LARGEST_EXPONENT = 31 << FRACTION_BITS  # beyond it the power is below 2^-30: zero


@cache
def power_table() -> tuple[int, ...]:
    """round(2^30 · 2^(-i/256)) for i = 0 … 256, from decimals: the same on every machine."""
    context = Context(prec=40)
    entries = 2**_TABLE_BITS
    return tuple(
        int((context.power(Decimal(2), Decimal(-i) / entries) * 2**_POWER_BITS).to_integral_value())
        for i in range(entries + 1)
    )


def softmax(codes: Integers, axis: int, to_log2: Rescale) -> Integers:
    """Probabilities in 2^-15 (int64) along `axis` of signed `codes`."""
    wide = codes.astype(np.int64)
    differences = np.minimum(wide.max(axis=axis, keepdims=True) - wide, _LARGEST_DIFFERENCE)
    exponents = np.minimum(rescale(differences, to_log2), _LARGEST_EXPONENT)
    powers = _powers(exponents)
    return divide_round(powers << OUTPUT_BITS, powers.sum(axis=axis, keepdims=True))


def _powers(exponents: Integers) -> Integers:
    """2^30 · 2^(-exponent / 2^20)."""
    table = np.array(power_table(), dtype=np.int64)
    fraction = exponents & (2**FRACTION_BITS - 1)
    entry = fraction >> _INTERPOLATED_BITS
    position = fraction & (2**_INTERPOLATED_BITS - 1)
    left, right = table[entry], table[entry + 1]
    powers: Integers = left - shift_round((left - right) * position, _INTERPOLATED_BITS)
    powers >>= exponents >> FRACTION_BITS
    return powers

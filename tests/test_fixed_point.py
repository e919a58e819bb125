"""Fixed-point arithmetic equals exact fractions rounded half to even."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpsearch.errors import InputError
from mpsearch.integer.fixed_point import (
    FRACTION_BITS,
    Rescale,
    divide_round,
    power_table,
    rescale,
    rescale_of,
    shift_round,
    softmax,
)

WHOLE = st.integers(-(2**62), 2**62)
INT32 = st.integers(-(2**31), 2**31 - 1)
FACTOR = st.floats(2.0**-80, 2.0**29, allow_nan=False)


def _int64(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@given(WHOLE, st.integers(1, 62))
def test_shifts_round_half_to_even(x: int, shift: int) -> None:
    assert int(shift_round(_int64(x), shift)[0]) == round(Fraction(x, 2**shift))


@given(st.integers(-50, 50), st.integers(1, 4))
def test_shifts_round_ties_to_even(x: int, shift: int) -> None:
    tie = (2 * x + 1) * 2 ** (shift - 1)
    rounded = int(shift_round(_int64(tie), shift)[0])
    assert rounded % 2 == 0
    assert abs(Fraction(tie, 2**shift) - rounded) == Fraction(1, 2)


@given(WHOLE, st.integers(1, 2**31 - 1) | st.integers(1, 8))
def test_division_rounds_half_to_even(x: int, divisor: int) -> None:
    assert int(divide_round(_int64(x), divisor)[0]) == round(Fraction(x, divisor))


@given(FACTOR)
def test_a_factor_becomes_a_31_bit_multiplier_and_a_shift(factor: float) -> None:
    by = rescale_of(factor)
    multiplier, shift = int(by.multipliers[0]), int(by.shifts[0])
    assert 1 <= shift <= 62
    if factor < 2.0**-33:
        assert multiplier == 0 or 2**30 <= multiplier < 2**31
        assert round(Fraction(factor) * 2**31) == 0
        return
    assert 2**30 <= multiplier < 2**31
    error = abs(Fraction(multiplier, 2**shift) - Fraction(factor))
    assert error <= Fraction(factor) / 2**31
    assert by.factors[0] == multiplier / 2.0**shift


@given(st.lists(FACTOR, min_size=3, max_size=3), st.lists(INT32, min_size=3, max_size=3))
def test_rescaling_is_the_rounded_exact_product_per_channel(
    factors: list[float], values: list[int]
) -> None:
    by = rescale_of(factors)
    got = rescale(_int64(*values).reshape(1, 3, 1), by, axis=1).reshape(-1)
    for value, multiplier, shift, result in zip(
        values, by.multipliers, by.shifts, got, strict=True
    ):
        assert int(result) == round(Fraction(value * int(multiplier), 2 ** int(shift)))


@given(st.integers(-(2**50), 2**50), st.floats(2.0**-40, 2.0**-10))
def test_long_accumulators_are_brought_to_32_bits_first(value: int, factor: float) -> None:
    by = rescale_of(factor, pre_shift=20)
    got = int(rescale(_int64(value), by)[0])
    short = round(Fraction(value, 2**20))
    assert got == round(Fraction(short * int(by.multipliers[0]), 2 ** int(by.shifts[0])))
    # Half a step of the pre-shift, the multiplier's own rounding (one part in 2^31), the last one.
    exact = Fraction(value) * Fraction(factor)
    assert abs(got - exact) <= Fraction(factor) * 2**19 + abs(exact) / 2**30 + 1


def test_factors_out_of_range() -> None:
    by = rescale_of([0.0, 2.0**-100, 2.0**40])
    values = _int64(2**31 - 1, 2**31 - 1, 1)
    zero, tiny, huge = rescale(values, by, axis=0)
    assert (int(zero), int(tiny)) == (0, 0)
    assert int(huge) == 2**30  # beyond every output range
    assert int(rescale(_int64(0, 0, 0), by, axis=0)[2]) == 0
    just_below_one = rescale_of(1 - 2.0**-40)  # the mantissa rounds up to the next power of two
    assert (int(just_below_one.multipliers[0]), int(just_below_one.shifts[0])) == (2**30, 30)
    for wrong in (-1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="negative or not finite"):
            rescale_of(wrong)


def test_the_extreme_product_does_not_overflow() -> None:
    by = Rescale(np.array([2**31 - 1], np.int32), np.array([1], np.int8))
    for value in (-(2**31), 2**31 - 1):
        assert int(rescale(_int64(value), by)[0]) == round(Fraction(value * (2**31 - 1), 2))


def test_the_table_of_powers() -> None:
    table = power_table()
    assert len(table) == 257
    assert (table[0], table[128], table[256]) == (2**30, round(2**29.5), 2**29)


@given(
    st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=1, max_size=40),
    st.sampled_from([1e-10, 3e-9, 1e-8, 1e-6]),
)
def test_softmax_keeps_its_documented_error(codes: list[int], scale: float) -> None:
    factor = rescale_of(scale * math.log2(math.e) * 2**FRACTION_BITS)
    got = softmax(np.array([codes], dtype=np.int32), 1, factor)[0] / 2**15
    largest = max(codes)
    powers = [math.exp((code - largest) * scale) for code in codes]
    # differences of 2^31 and more are cut: with these scales only where both are far below 2^-15
    # or where the cut is part of the input's own saturation
    if max(codes) - min(codes) < 2**31:
        expected = np.array(powers) / math.fsum(powers)
        assert np.abs(got - expected).max() < 2**-16 + 3e-6 + len(codes) * 2**-30
    assert abs(got.sum() - 1) <= len(codes) * 2**-16

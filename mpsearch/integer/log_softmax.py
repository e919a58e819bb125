"""Logarithms of probabilities in integers: the sum of the softmax, and its binary logarithm.

With t and p as in the softmax (t not limited to 31), Σ p = 2^e·m with m in [1, 2) has the logarithm
e + log2(m): a table of 256 parts of [1, 2) with straight lines between, in units of 2^-20. Then
log p_i = -(t_i + log2 Σ p)·ln 2. The error is below 1.3·10^-5 + K·2^-30 for K classes, and half a
step of the output.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from mpsearch.integer.fixed_point import (
    FRACTION_BITS,
    LARGEST_EXPONENT,
    POWER_BITS,
    Integers,
    Rescale,
    powers,
    rescale,
    rescale_of,
    saturate,
    shift_round,
)
from mpsearch.integer.graph import ComputedStep, IntegerTensor, reciprocal

_LARGEST = 2**31 - 1
_PLACE_BITS = POWER_BITS - 8  # below the 8 bits that pick an entry


@cache
def logarithm_table() -> tuple[int, ...]:
    """round(2^20 · log2(1 + i/256)) for i = 0 … 256; none lies near the middle of two integers."""
    return tuple(round(2**FRACTION_BITS * math.log2(1 + i / 256)) for i in range(257))


@dataclass(frozen=True)
class LogSoftmax(ComputedStep):
    """Log-softmax along `axis`; `to_log2` as in `Softmax`, `from_log2` turns log2 units at 2^-20
    into steps of the output: zero point - round((t + log2 Σ p)·factor), clipped to [low, high]."""

    axis: int
    to_log2: Rescale
    from_log2: Rescale
    low: int
    high: int

    def compute(self, *sources: Integers) -> Integers:
        """Integers only."""
        codes, axis = sources[0].astype(np.int64), self.axis + 1
        t = rescale(codes.max(axis=axis, keepdims=True) - codes, self.to_log2)
        total = powers(np.minimum(t, LARGEST_EXPONENT)).sum(axis=axis, keepdims=True)
        exact = np.minimum(t + _logarithm(total), _LARGEST)
        return saturate(
            self.output.zero_point - rescale(exact, self.from_log2), self.low, self.high
        )


def _logarithm(total: Integers) -> Integers:
    """log2(total / 2^30)·2^20 for total >= 2^30."""
    whole = np.zeros_like(total)
    while bool(np.any(total >= 2 << POWER_BITS)):
        more = (total >= 2 << POWER_BITS).astype(np.int64)
        whole, total = whole + more, total >> more
    table = np.array(logarithm_table(), dtype=np.int64)
    rest = total - (1 << POWER_BITS)
    entry, place = rest >> _PLACE_BITS, rest & ((1 << _PLACE_BITS) - 1)
    left, right = table[entry], table[entry + 1]
    between: Integers = left + shift_round((right - left) * place, _PLACE_BITS)
    return (whole << FRACTION_BITS) + between


def log_softmax(source: IntegerTensor, axis: int, output: IntegerTensor) -> LogSoftmax:
    """The step along `axis` of one sample."""
    return LogSoftmax(
        (source.name,),
        output,
        axis,
        rescale_of(source.scale * math.log2(math.e) * 2**FRACTION_BITS),
        rescale_of(math.log(2) * 2.0**-FRACTION_BITS * reciprocal(output)),
        output.low,
        output.high,
    )

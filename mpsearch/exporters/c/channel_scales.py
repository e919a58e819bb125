"""Four bytes per output channel: the weight scale as stored, from which C makes the factor.

A layer's factors are s_w·K with one K = s_x/s_out for the layer and the float32 weight scales s_w,
of which the table predicts 4 bytes each. C takes the bits of s_w as a 24-bit integer, multiplies by
a 64-bit K and rounds to the 31-bit multiplier (`mps_factor` in integers.h). That is exact to 2^-63,
while the reference rounds its float64 products, so every channel is computed here as C will and
compared; a layer in which one differs stores its multipliers instead (about one channel in 10^6).
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mpsearch.integer.fixed_point import LARGEST_SHIFT, Integers, Rescale

_FRACTION_BITS, _BIAS = 23, 150  # float32: value = mantissa · 2^(exponent - 150), mantissa 24 bits
# The reference's two roundings move a factor by 2^-52 at most; K has 64 bits.
_NUDGES = (0, *(sign << bits for bits in (10, 11, 12) for sign in (1, -1)))


@dataclass(frozen=True)
class ChannelScales:
    """`bits` [channels] (uint32) are float32 patterns; K = factor·2^-exponent, a 64-bit factor."""

    bits: Integers
    factor: int
    exponent: int


def channel_scales(scales: np.ndarray, ratio: Fraction, rescale: Rescale) -> ChannelScales | None:
    """The compact form of `rescale`, whose factors are scales·ratio; None where there is none.

    `scales` are float32 [channels], `ratio` the exact s_x/s_out of the layer.
    """
    bits = np.ascontiguousarray(scales, dtype=np.float32).view(np.uint32)
    patterns = [int(pattern) for pattern in bits]
    wanted = list(zip(rescale.multipliers.tolist(), rescale.shifts.tolist(), strict=True))
    normal = all(0 < pattern >> _FRACTION_BITS < 255 for pattern in patterns)
    if not normal or ratio <= 0 or len(wanted) != len(patterns):
        return None
    scaled = ratio * 2**rescale.pre_shift
    exponent = 64 - (scaled.numerator.bit_length() - scaled.denominator.bit_length())
    if scaled * Fraction(2) ** exponent >= 2**64:
        exponent -= 1
    nearest = round(scaled * Fraction(2) ** exponent)
    for nudge in _NUDGES:
        factor = nearest + nudge
        if not 2**63 <= factor < 2**64:
            continue
        if [channel_factor(pattern, factor, exponent) for pattern in patterns] == wanted:
            return ChannelScales(bits, factor, exponent)
    return None


def channel_factor(pattern: int, factor: int, exponent: int) -> tuple[int, int]:
    """(multiplier, shift) of one channel, as `mps_factor` computes them."""
    mantissa = pattern & (2**_FRACTION_BITS - 1) | 2**_FRACTION_BITS
    product = mantissa * factor >> 32  # 55 or 56 bits
    drop = product.bit_length() - 31
    multiplier = (product + (1 << (drop - 1)) - 1 + (product >> drop & 1)) >> drop
    shift = _BIAS + exponent - (pattern >> _FRACTION_BITS) - 32 - drop
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift - 1
    if shift > LARGEST_SHIFT:
        return 0, 1
    if shift < 1:
        return 2**31 - 1, 1
    return multiplier, shift

"""Norms over the numbers of one sample in integers: exact sums, an integer root, one rounding each.

Layer norm, group and instance norm: (x - mean)/sqrt(variance + eps)·weight + bias. RMS norm has no
mean; x/|x| is an RMS norm with the weight 1/sqrt(length).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpsearch.integer.arithmetic import affine
from mpsearch.integer.fixed_point import Integers, divide_round, saturate, shift_round
from mpsearch.integer.graph import ComputedStep, IntegerTensor

Floats = npt.NDArray[np.float64]

# Fraction bits of a variance, a difference to the mean, and a normalized number.
VARIANCE_BITS, DIFFERENCE_BITS, NORMAL_BITS = 8, 12, 18
LARGEST_LENGTH = 2**22  # elements of a row: its sum of squares, times 2^8, stays below 2^61
_LARGEST_ADDED = 2.0**60


@dataclass(frozen=True)
class Normalize(ComputedStep):
    """Rows of `length` neighbours of the source (signed, 16 bits), each normalized by itself.

    With a row's sums S of its codes q and T of q·q, both exact:

        a = floor(S / length), r = S - a·length                 (0, 0 where not `centred`)
        v = round((T - a·(S + r))·2^8 / length) - round(floor(r·2^16 / length)^2 / 2^24)
        v = max(v + added, 1)                                   variance and eps in 2^-8
        m = v / 2^(2j), rounded down, in [2^30, 2^32)
        g = floor(sqrt(m·2^30)), p = min(floor(2^61 / g), 2^31 - 1)
        z = round(((q - a)·2^12 - round(r·2^12 / length))·p / 2^(36 + j))     units of 2^-18
        y = round((z·multiplier + offset·2^raised) / 2^shift) + the output's zero point

    clipped to [low, high]; all rounded half to even. `multipliers` and `offsets` (int32) are those
    of channel (i // inner) mod channels for element i of the sample. `eps` is what `added` stands
    for, for exports that compute norms in floating point.
    """

    length: int
    inner: int
    centred: bool
    eps: float
    added: int
    multipliers: Integers
    offsets: Integers
    raised: int
    shift: int
    low: int
    high: int

    def compute(self, *sources: Integers) -> Integers:
        """Integers only."""
        (codes,) = sources
        rows = codes.reshape(len(codes), -1, self.length).astype(np.int64)
        normal = self.normal(rows).reshape(len(codes), -1)
        channel = np.arange(normal.shape[1]) // self.inner % len(self.multipliers)
        sums = normal * self.multipliers[channel].astype(np.int64)
        sums += self.offsets[channel].astype(np.int64) << self.raised
        result = shift_round(sums, self.shift) + self.output.zero_point
        return saturate(result, self.low, self.high).reshape(len(codes), *self.output.shape)

    def factors(self) -> tuple[Floats, Floats]:
        """(weight, bias) as real numbers, [channels]."""
        unit = self.output.scale * 2.0**-self.shift
        weight = self.multipliers * (unit * 2.0**NORMAL_BITS)
        return weight, np.ldexp(self.offsets * unit, self.raised)

    def normal(self, rows: Integers) -> Integers:
        """Normalized numbers in 2^-18, for codes [..., length]."""
        squares = (rows * rows).sum(axis=-1, keepdims=True)
        whole, rest = np.zeros_like(squares), np.zeros_like(squares)
        if self.centred:
            total = rows.sum(axis=-1, keepdims=True)
            whole = total // self.length
            rest = total - whole * self.length
            squares = squares - whole * (total + rest)
        part = (rest << 16) // self.length
        variance = divide_round(squares << VARIANCE_BITS, self.length)
        variance = variance - shift_round(part * part, 32 - VARIANCE_BITS)
        inverse, exponent = inverse_root(np.maximum(variance + self.added, 1))
        differences = (rows - whole) << DIFFERENCE_BITS
        differences -= divide_round(rest << DIFFERENCE_BITS, self.length)
        return shift_round(differences * inverse, 36 + exponent)


def inverse_root(values: Integers) -> tuple[Integers, Integers]:
    """(p, j) with p·2^(-46 - j) within 2^-29 (relative) of 1/sqrt(value), p in [2^30, 2^31).

    `values` (int64) are in [1, 2^61].
    """
    length, rest = np.zeros_like(values), values.copy()
    for bits in (32, 16, 8, 4, 2, 1):
        larger = (rest >> bits > 0).astype(np.int64) * bits
        length += larger
        rest >>= larger
    exponent = (length - 30) >> 1
    mantissa = (values >> np.maximum(2 * exponent, 0)) << np.maximum(-2 * exponent, 0)
    root = np.zeros_like(values)
    for bit in reversed(range(31)):
        tried = root + (1 << bit)
        root = np.where(tried * tried <= mantissa << 30, tried, root)
    return np.minimum((np.int64(1) << 61) // root, 2**31 - 1), exponent


@dataclass(frozen=True)
class Norm:
    """What a norm divides by: the root of `eps` and the mean square of `length` neighbours, or,
    `centred`, of their distance to their mean."""

    length: int
    eps: float
    centred: bool = True


def normalize(
    source: IntegerTensor, norm: Norm, weight: Floats, bias: Floats, inner: int,
    output: IntegerTensor,
) -> Normalize:  # fmt: skip
    """The step; `weight` and `bias` are [channels], `inner` elements of a channel side by side."""
    normal = IntegerTensor("normal", output.shape, 32, True, 2.0**-NORMAL_BITS, 0)
    line = affine([normal], [weight], bias, output)
    eps = min(norm.eps / source.scale**2 * 2**VARIANCE_BITS, _LARGEST_ADDED)
    return Normalize(
        (source.name,),
        output,
        norm.length,
        inner,
        norm.centred,
        norm.eps,
        round(eps),
        line.multipliers[0],
        line.offset,
        line.raised,
        line.shift,
        output.low,
        output.high,
    )

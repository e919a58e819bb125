"""Sums, products and factors of tensors at scales of their own, rounded once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

from mpsearch.integer.fixed_point import Integers, Rescale, rescale, saturate, shift_round
from mpsearch.integer.graph import ComputedStep, IntegerTensor, reciprocal

Floats = npt.NDArray[np.float64]

# With codes of 16 bits, multipliers of 31 and a shift of 45, two products and an offset fit int64.
_MULTIPLIER_BITS, _LARGEST_SHIFT, _LARGEST_OFFSET = 31, 45, 2.0**60


@dataclass(frozen=True)
class Affine(ComputedStep):
    """Σ multiplier·q over the sources + offset·2^raised, / 2^shift, half to even, plus the output's
    zero point, clipped to [low, high].

    Sources, `multipliers` (int32, one array for every source) and `offset` (int32) are broadcast
    to the output's shape: axes of length 1 are repeated. int64 sums.
    """

    multipliers: tuple[Integers, ...]
    offset: Integers
    raised: int
    shift: int
    low: int
    high: int

    def compute(self, *sources: Integers) -> Integers:
        """Integers only."""
        terms = [q.astype(np.int64) * m for q, m in zip(sources, self.multipliers, strict=True)]
        sums = reduce(np.add, terms) + (self.offset.astype(np.int64) << self.raised)
        return saturate(shift_round(sums, self.shift) + self.output.zero_point, self.low, self.high)


@dataclass(frozen=True)
class Multiply(ComputedStep):
    """Product of two sources, broadcast to the output's shape, rescaled, plus the output's zero
    point, clipped to [low, high]."""

    rescale: Rescale
    low: int
    high: int

    def compute(self, *sources: Integers) -> Integers:
        """Integers only."""
        product = sources[0].astype(np.int64) * sources[1]
        return saturate(
            rescale(product, self.rescale) + self.output.zero_point, self.low, self.high
        )


@dataclass(frozen=True)
class Prelu(ComputedStep):
    """q times `positive`, where q < 0 times `negative` (int32, broadcast to the output's shape);
    / 2^shift, half to even, plus the output's zero point, clipped to [low, high]."""

    positive: int
    negative: Integers
    shift: int
    low: int
    high: int

    def compute(self, *sources: Integers) -> Integers:
        """Integers only."""
        (q,) = sources
        product = q.astype(np.int64) * np.where(q < 0, self.negative, np.int64(self.positive))
        result = shift_round(product, self.shift) + self.output.zero_point
        return saturate(result, self.low, self.high)


def affine(
    sources: Sequence[IntegerTensor],
    factors: Sequence[Floats],
    constant: Floats,
    output: IntegerTensor,
) -> Affine:
    """Σ factor·x + constant, in real numbers; arrays have as many axes as the output, or none.

    Zero points of the sources are part of the offset.
    """
    inverse = reciprocal(output)
    scaled = [f * s.scale * inverse for f, s in zip(factors, sources, strict=True)]
    multipliers, shift = _fixed(scaled)
    exact = np.ldexp(constant * inverse, shift)
    for multiplier, source in zip(multipliers, sources, strict=True):
        exact = exact - multiplier.astype(np.float64) * source.zero_point
    exact = np.clip(exact, -_LARGEST_OFFSET, _LARGEST_OFFSET)
    largest = float(np.max(np.abs(exact), initial=0.0))
    raised = max(0, int(np.frexp(largest)[1]) - (_MULTIPLIER_BITS - 1))
    offset = np.rint(np.ldexp(exact, -raised)).astype(np.int32)
    return Affine(
        tuple(source.name for source in sources), output, multipliers, offset, raised, shift,
        output.low, output.high,
    )  # fmt: skip


def prelu(source: IntegerTensor, slopes: Floats, output: IntegerTensor) -> Prelu:
    """x, and slope·x where x < 0; `slopes` have as many axes as the output, or none."""
    factor = np.array(source.scale * reciprocal(output))
    (positive, negative), shift = _fixed([factor, slopes * factor])
    return Prelu((source.name,), output, int(positive), negative, shift, output.low, output.high)


def _fixed(factors: Sequence[Floats]) -> tuple[tuple[Integers, ...], int]:
    """int32 multipliers and the one shift with which the largest has 31 bits."""
    largest = max(float(np.max(np.abs(f), initial=0.0)) for f in factors)
    exponent = int(np.frexp(largest)[1])  # largest < 2^exponent
    shift = min(max(_MULTIPLIER_BITS - exponent, 1), _LARGEST_SHIFT)
    ends = (-(2.0**31) + 1, 2.0**31 - 1)
    fixed = [np.rint(np.clip(np.ldexp(f, shift), *ends)).astype(np.int32) for f in factors]
    return tuple(fixed), shift

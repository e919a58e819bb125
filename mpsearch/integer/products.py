"""Products of two activations: exact sums, rescaled once."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mpsearch.integer.fixed_point import Integers, Rescale, rescale, rescale_of, saturate
from mpsearch.integer.graph import ComputedStep, IntegerTensor, reciprocal


@dataclass(frozen=True)
class MatMul(ComputedStep):
    """Matrix product over the last two axes, [..., R, K] x [..., K, C] -> [..., R, C].

    Σ (left - zero point)·(right - zero point), rescaled, plus the output's zero point, clipped to
    [low, high]. `bound`: the largest magnitude that a sum, or a part of it in any order, can reach.
    """

    zero_points: tuple[int, int]
    bound: int
    rescale: Rescale
    low: int
    high: int

    @property
    def accumulator_bits(self) -> int:
        """32 where that is proven to be enough, else 64."""
        return 32 if self.bound < 2**31 else 64

    def compute(self, *sources: Integers) -> Integers:
        """Integers only."""
        return self.output_codes(self.sums(sources, np.int64))

    def by_blas(self, *sources: Integers) -> Integers:
        """The same through floating-point BLAS: exact, for every partial sum is an integer below
        2^53."""
        if self.bound >= 2**53:
            return self.compute(*sources)
        kind = np.float32 if self.bound < 2**24 else np.float64
        return self.output_codes(self.sums(sources, kind).astype(np.int64))

    def sums(self, sources: tuple[Integers, ...], kind: type[Any]) -> Integers:
        """Of products of numbers of this type."""
        left, right = (
            codes.astype(kind) - kind(zero)
            for codes, zero in zip(sources, self.zero_points, strict=True)
        )
        result: Integers = np.matmul(left, right)
        return result

    def output_codes(self, sums: Integers) -> Integers:
        """Rescaled and clipped."""
        scaled = rescale(sums, self.rescale) + self.output.zero_point
        return saturate(scaled, self.low, self.high)


def matrix_product(left: IntegerTensor, right: IntegerTensor, output: IntegerTensor) -> MatMul:
    """The step for operands at any scales and zero points."""
    reach = [max(t.zero_point - t.low, t.high - t.zero_point) for t in (left, right)]
    bound = left.shape[-1] * reach[0] * reach[1]
    factor = left.scale * right.scale * reciprocal(output)
    return MatMul(
        (left.name, right.name),
        output,
        (left.zero_point, right.zero_point),
        bound,
        rescale_of(factor, max(0, bound.bit_length() - 31)),
        output.low,
        output.high,
    )

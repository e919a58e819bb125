"""Which way of rescaling is exact for a step: proofs about its multipliers and its sums."""

from dataclasses import dataclass

from mpsearch.integer.fixed_point import Rescale

_SMALLEST_SHIFT = 33  # the upper 32 bits of a product, and one more to round


@dataclass(frozen=True)
class Rounding:
    """`way` is MPS_HALF_UP or MPS_EXACT; sums are multiplied by 2^raise before, shifts get it."""

    way: str
    raised: int = 0

    @property
    def fields(self) -> dict[str, object]:
        """As fields of a C struct."""
        return {"rounding": self.way, "raise": self.raised}


EXACT = Rounding("MPS_EXACT")


def rounding(rescale: Rescale, bound: int) -> Rounding:
    """`MPS_HALF_UP` where rounding half up from the product's upper 32 bits gives what half to even
    gives, for every |x| <= bound; `MPS_EXACT` elsewhere.

    x·m / 2^n is a tie only if x·m is an odd multiple of 2^(n-1), so if x is a multiple of
    2^(n-1-v), where 2^v is the largest power of two in m: impossible for 0 < |x| < 2^(n-1-v), and
    x = 0 gives 0 both ways. Without ties floor(x·m / 2^n + 1/2) is the result, and equals
    (floor(x·m / 2^a) + 2^(n-a-1)) >> (n - a) for every a < n: the upper half of the product, a = 32
    with AVX2 and 31 with NEON (doubled), is all that it needs. A smaller n is raised with x, as far
    as x·2^raise fits 32 bits.
    """
    if rescale.pre_shift or bound >= 2**31:
        return EXACT
    multipliers, shifts = rescale.multipliers.tolist(), rescale.shifts.tolist()
    for multiplier, shift in zip(multipliers, shifts, strict=True):
        if multiplier and bound * (multiplier & -multiplier) >= 1 << (shift - 1):
            return EXACT
    raised = max(0, _SMALLEST_SHIFT - min(shifts))
    if bound << raised >= 2**31 or max(shifts) + raised > 62:
        return EXACT
    return Rounding("MPS_HALF_UP", raised)

"""Which way of rescaling is exact for a step: proofs about its multipliers and its sums."""

from mpsearch.integer.fixed_point import Rescale

EXACT, HALF_UP = "MPS_EXACT", "MPS_HALF_UP"


def rounding(rescale: Rescale, bound: int) -> str:
    """`MPS_HALF_UP` where rounding half up from the product's upper 32 bits gives what half to even
    gives, for every |x| <= bound; `MPS_EXACT` elsewhere.

    x·m / 2^n is a tie only if x·m is an odd multiple of 2^(n-1), so if x is a multiple of
    2^(n-1-v), where 2^v is the largest power of two in m: impossible for 0 < |x| < 2^(n-1-v), and
    x = 0 gives 0 both ways. Without ties floor(x·m / 2^n + 1/2) is the result, and equals
    (floor(x·m / 2^a) + 2^(n-a-1)) >> (n - a) for every a < n: the upper half of the product, a = 32
    with AVX2 and 31 with NEON (doubled), is all that it needs.
    """
    if rescale.pre_shift or bound >= 2**31:
        return EXACT
    for multiplier, shift in zip(
        rescale.multipliers.tolist(), rescale.shifts.tolist(), strict=True
    ):
        if shift < 33:
            return EXACT
        power = multiplier & -multiplier
        if multiplier and bound * power >= 1 << (shift - 1):
            return EXACT
    return HALF_UP

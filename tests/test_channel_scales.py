"""Factors made in C from the bits of float32 scales equal the reference's multipliers."""

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mpsearch.exporters.c.constants import channel_scales
from mpsearch.integer.fixed_point import Rescale, rescale_of

CORE = Path(__file__).parent.parent / "mpsearch" / "exporters" / "c"
MAIN = """
#include <inttypes.h>
#include <stdio.h>
#include "integers.h"
int main(void) {
    uint32_t bits;
    uint64_t factor;
    int exponent;
    while (scanf("%" SCNu32 " %" SCNu64 " %d", &bits, &factor, &exponent) == 3) {
        const mps_scale scale = mps_factor(bits, factor, exponent);
        printf("%ld %d\\n", (long)scale.multiplier, scale.shift);
    }
    return 0;
}
"""


def _case(seed: int, span: float) -> tuple[np.ndarray, Fraction, Rescale]:
    """Scales over `span` powers of two, a ratio of two scales, and the reference's multipliers."""
    source = np.random.default_rng(seed)
    scales = np.exp2(source.uniform(-span, span, 50)).astype(np.float32)
    scales[:2] = 2.0**-7, np.nextafter(np.float32(1), np.float32(0))  # 1, and 1 - 2^-24
    s_x, inverse = source.uniform(1e-4, 1), float(np.float32(source.uniform(1, 1e4)))
    rescale = rescale_of(scales.astype(np.float64) * s_x * inverse, pre_shift=7 * (seed % 2))
    return scales, Fraction(s_x) * Fraction(inverse), rescale


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler (gcc)")
def test_c_gives_the_multipliers_of_the_reference(tmp_path: Path) -> None:
    """12,000 channels, also factors too small or too large for 31 bits and a shift."""
    lines, expected = [], []
    for seed in range(240):
        scales, ratio, rescale = _case(seed, 10 if seed % 3 else 70)
        compact = channel_scales(scales, ratio, rescale)
        assert compact is not None
        lines += [f"{bits} {compact.factor} {compact.exponent}" for bits in compact.bits]
        expected += list(zip(rescale.multipliers, rescale.shifts, strict=True))
    (tmp_path / "main.c").write_text(MAIN)
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsanitize=undefined"]
    subprocess.run(
        ["gcc", *strict, "-fno-sanitize-recover=all", f"-I{CORE}", "-o", "main", "main.c"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    done = subprocess.run(
        [tmp_path / "main"], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    got = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert got == [(int(m), int(s)) for m, s in expected]
    multipliers = [m for m, _ in got]
    assert 0 in multipliers
    assert 2**31 - 1 in multipliers


def test_other_multipliers_and_denormal_scales_have_no_compact_form() -> None:
    scales, ratio, rescale = _case(1, 5)
    assert channel_scales(scales, ratio, rescale) is not None
    rescale.multipliers[7] ^= 1
    assert channel_scales(scales, ratio, rescale) is None
    scales[3] = 1e-42
    factors = scales.astype(np.float64) * float(ratio)
    assert channel_scales(scales, ratio, rescale_of(factors)) is None

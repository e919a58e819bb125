"""docs/integer.md: its Python runs, and its C computes what the package computes."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mpsearch.integer.fixed_point import Rescale, divide_round, rescale

TEXT = (Path(__file__).parent.parent / "docs" / "integer.md").read_text()
MAIN = """
#include <stdio.h>
#include <inttypes.h>
DEFINITIONS
int main(void) {
    int64_t x, d;
    int multiplier, shift, pre_shift;
    while (scanf("%" SCNd64 " %" SCNd64 " %d %d %d", &x, &d, &multiplier, &shift, &pre_shift) == 5)
        printf("%" PRId64 " %" PRId64 "\\n",
               rescale(x, multiplier, shift, pre_shift), divide_round(x, d));
    return 0;
}
"""


def _block(language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)
    assert isinstance(block, str)
    return block


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(_block("python"), "docs/integer.md", "exec"), {})
    difference, *steps = capsys.readouterr().out.strip().splitlines()
    assert float(difference.removeprefix("tensor(").removesuffix(")")) < 1
    assert steps[0].startswith("Convolution ('inputs_0',) -> relu 8 bits")


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)")
def test_the_c_definitions_equal_the_package(tmp_path: Path) -> None:
    source, program = tmp_path / "fixed.c", tmp_path / "fixed"
    source.write_text(MAIN.replace("DEFINITIONS", _block("c")))
    strict = ["cc", "-std=c99", "-Wall", "-Werror", "-Wno-parentheses", "-o", str(program)]
    subprocess.run([*strict, str(source)], check=True)
    random = np.random.default_rng(0)
    count = 4000
    pre_shifts = random.choice([0, 7], count)
    x = random.integers(-(2**31), 2**31, count) << pre_shifts
    x[::4] >>= random.integers(0, 31, count // 4)  # small ones, too: they meet ties
    divisors = random.choice([1, 2, 3, 4, 64, 1000, 2**31 - 1], count)
    multipliers = random.choice([2**30, 2**31 - 1, 3 * 2**29, 1234567891], count)
    shifts = random.integers(1, 63, count)
    rows = zip(x, divisors, multipliers, shifts, pre_shifts, strict=True)
    lines = "\n".join(" ".join(map(str, row)) for row in rows)
    done = subprocess.run([str(program)], input=lines, capture_output=True, text=True, check=True)
    got = np.array([line.split() for line in done.stdout.splitlines()], dtype=np.int64)
    for place in range(count):
        by = Rescale(
            multipliers[place : place + 1].astype(np.int32),
            shifts[place : place + 1].astype(np.int8),
            int(pre_shifts[place]),
        )
        expected = rescale(x[place : place + 1], by)[0]
        assert got[place, 0] == expected
    np.testing.assert_array_equal(got[:, 1], divide_round(x, divisors))

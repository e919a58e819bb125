"""AVX2, NEON and plain C give the same integers; aarch64 runs under qemu as a Cortex-A72."""

import random
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import integer_networks
import numpy as np
import pytest
import torch

from mpsearch.c_export.folder import export_c
from mpsearch.calibration import calibrate
from mpsearch.choice import Choice
from mpsearch.data import Data
from mpsearch.models.registry import architecture, build
from mpsearch.network import Network
from mpsearch.packing import unpack
from mpsearch.quantized import quantize

CORE = Path(__file__).parent.parent / "mpsearch" / "c_export"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2")
CPU = Path("/proc/cpuinfo")
HAS_AVX2 = CPU.is_file() and " avx2" in CPU.read_text()
ARM, QEMU = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"
MAIN = """
#include <stdio.h>
#include "products.h"
int main(void) {
    static int8_t w[512], x[4 * 512], unpacked[512];
    int count, value;
    while (scanf("%d", &count) == 1) {
        int32_t sums[4] = {1, 2, 3, 4};
        long check = 0;
        for (int i = 0; i < 5 * count; i++) {
            if (scanf("%d", &value) != 1) return 1;
            if (i < count) w[i] = (int8_t)value;
            else x[i - count] = (int8_t)value;
        }
        four_products(w, x, count, count, sums);
        value = unpack_4((const uint8_t *)w, count, unpacked);
        if (value < count / 32 * 32) return 1;
        for (int i = 0; i < count / 32 * 32; i++) check = (check * 31 + unpacked[i] + 8) % 1000003;
        for (int p = 0; p < 4; p++)
            printf("%ld %ld ", (long)sums[p], (long)product(w, x + p * count, count));
        printf("%ld %s\\n", check, VARIANT);
    }
    return 0;
}
"""


@dataclass(frozen=True)
class Variant:
    """How to compile and run one variant, and the macro that only it defines."""

    compiler: str
    flags: tuple[str, ...]
    launch: tuple[str, ...] = ()


VARIANTS = {
    "portable": Variant("gcc", ("-DMPS_PORTABLE",)),
    "avx2": Variant("gcc", ("-mavx2",)),
    "neon": Variant(ARM, ("-static", "-mcpu=cortex-a72"), (QEMU, "-cpu", "cortex-a72")),
    "arm-portable": Variant(ARM, ("-static", "-DMPS_PORTABLE"), (QEMU, "-cpu", "cortex-a72")),
}


def _variant(name: str) -> Variant:
    """The variant; skips where its compiler, emulator or processor is missing."""
    variant = VARIANTS[name]
    for program in (variant.compiler, *variant.launch[:1]):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    if name == "avx2" and not HAS_AVX2:
        pytest.skip("this processor has no AVX2")
    return variant


def _build(variant: Variant, program: Path, *sources: Path, define: str = "") -> None:
    flags = [*variant.flags, define] if define else variant.flags
    command = [variant.compiler, *STRICT, *flags, f"-I{CORE}", "-o", program, *sources, "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]


@pytest.mark.parametrize("name", VARIANTS)
def test_products_equal_those_of_python(name: str, tmp_path: Path) -> None:
    variant = _variant(name)
    source = np.random.default_rng(0)
    lines, expected = [], []
    for case in range(60):
        count = 16 * int(source.integers(1, 33))
        w = source.integers(-127, 128, count)
        x = source.integers(-128, 128, (4, count))
        if case < 4:  # the largest pairs of products, of both signs
            w[:], x[:] = (127 if case % 2 else -127), (-128 if case < 2 else 127)
        lines.append(" ".join(map(str, (count, *w, *x.ravel()))))
        sums = [int(sum(int(a) * int(b) for a, b in zip(w, row, strict=True))) for row in x]
        check = 0
        for code in unpack(w[: count // 2].astype(np.int8).view(np.uint8), 4, count)[
            : count // 32 * 32
        ]:
            check = (check * 31 + int(code) + 8) % 1000003
        expected.append([v for p, total in enumerate(sums) for v in (total + p + 1, total)])
        expected[-1].append(check)
    (tmp_path / "main.c").write_text(MAIN)
    _build(variant, tmp_path / "main", tmp_path / "main.c", define=f'-DVARIANT="{name}"')
    done = subprocess.run(
        [*variant.launch, tmp_path / "main"], input="\n".join(lines), capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    rows = [line.split() for line in done.stdout.splitlines()]
    assert all(row[-1] == name for row in rows)
    assert [list(map(int, row[:-1])) for row in rows] == expected


@cache
def _networks() -> list[tuple[Network, Data]]:
    generator = torch.Generator().manual_seed(0)
    shapes = architecture("tinym2net-battlefield").inputs.values()
    inputs = tuple(torch.randn(3, *shape, generator=generator) for shape in shapes)
    pairs = [(build("tinym2net-battlefield"), inputs)]
    pairs.append(integer_networks.build("option-a", 4))
    return [(Network.from_module(m, x), Data("random", x, None)) for m, x in pairs]


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "portable"])
def test_networks_give_the_integers_of_the_reference(name: str, tmp_path: Path) -> None:
    variant = _variant(name)
    source = random.Random(5)
    # test_c_export.py has more networks, compiled without AVX2: the portable variant
    for place, (network, data) in enumerate(_networks()):
        choices = {
            layer.name: Choice(source.choice((2, 3, 4, 5, 6, 7, 8, 16)), source.randint(2, 8))
            for layer in network.layers
        }
        folder = tmp_path / str(place)
        quantized = quantize(network, choices, calibrate(network, data))
        offsets = export_c(quantized, data, folder).document["arena"]["offsets"]
        assert any(buffer.startswith("patches of") for buffer in offsets)
        _build(variant, folder / "program", *sorted(folder.glob("*.c")))
        samples = folder / "check" / "input.f32"
        done = subprocess.run(
            [*variant.launch, folder / "program", "--input", samples, "--integers"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == (folder / "check" / "output.txt").read_text()

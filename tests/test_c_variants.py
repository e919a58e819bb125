"""AVX2, NEON and plain C give the same integers; aarch64 runs under qemu as a Cortex-A72."""

import random
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import integer_networks
import numpy as np
import pytest
import small_shapes
import torch
from tight_graphs import build_tight, random_codes

from mpsearch.data import Data
from mpsearch.exporters.c.arena import Arena, Buffer
from mpsearch.exporters.c.constants import EXACT, rounding
from mpsearch.exporters.c.folder import export_c, kernel_sources, templates
from mpsearch.exporters.c.source import generate
from mpsearch.exporters.c.targets import ANY, TARGETS, Target
from mpsearch.graph.network import Network
from mpsearch.integer.fixed_point import Rescale, rescale_of
from mpsearch.integer.inference import quantize_input
from mpsearch.integer.inference import run as infer
from mpsearch.integer.lowering import lower
from mpsearch.models.registry import architecture, build
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.packing import pack
from mpsearch.quantization.quantized import QuantizedNetwork, quantize
from mpsearch.tables.choice import Choice

CORE = Path(__file__).parent.parent / "mpsearch" / "exporters" / "c"
MAIN = Path(__file__).parent / "kernel_cases.c"  # a line of numbers in, a line of results out
GUARDED = Path(__file__).parent / "guarded_memory.c"  # codes in, integers out
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
CPU = Path("/proc/cpuinfo")
FLAGS = CPU.read_text().split() if CPU.is_file() else []
NEEDS = {"avx2": "avx2", "vnni": "avx512_vnni"}  # what the processor must have
TIGHT = 3  # seeds of graphs whose tensors share memory
ARM, QEMU = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"


@dataclass(frozen=True)
class Variant:
    """How to compile and run one variant, and the macro that only it defines."""

    compiler: str
    flags: tuple[str, ...]
    launch: tuple[str, ...] = ()
    target: Target = ANY


VARIANTS = {
    "portable": Variant("gcc", ("-DMPS_PORTABLE",)),
    "avx2": Variant("gcc", ("-mavx2",)),
    "vnni": Variant("gcc", ("-mavx512vnni", "-mavx512vl")),
    "neon": Variant(ARM, ("-static", "-mcpu=cortex-a72"), (QEMU, "-cpu", "cortex-a72")),
    "sdot": Variant(ARM, ("-static", "-mcpu=cortex-a76"), (QEMU, "-cpu", "cortex-a76")),
    "arm-portable": Variant(ARM, ("-static", "-DMPS_PORTABLE"), (QEMU, "-cpu", "cortex-a72")),
}
CORTEX_M = {"cortex-m": Variant("gcc", ("-DMPS_DSP_TWIN",), target=TARGETS["cortex-m4"])}


def _variant(name: str) -> Variant:
    """The variant; skips where its compiler, emulator or processor is missing."""
    variant = (VARIANTS | CORTEX_M)[name]
    for program in (variant.compiler, *variant.launch[:1]):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    if name in NEEDS and NEEDS[name] not in FLAGS:
        pytest.skip(f"this processor has no {NEEDS[name]}")
    return variant


def _build(variant: Variant, program: Path, *sources: Path, define: str = "") -> None:
    flags = [*variant.flags, define] if define else variant.flags
    _compile(variant, *STRICT, "-O2", *flags, f"-I{CORE}", "-o", program, *sources, "-lm")


def _compile(variant: Variant, *arguments: str | Path) -> None:
    done = subprocess.run([variant.compiler, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]


Case = tuple[list[int], list[int]]  # the numbers of a line of input, and what must come back


def _products(source: np.random.Generator, case: int) -> Case:
    """Weights and codes at and within their limits; all orders of channels and positions."""
    bits = int(source.integers(2, 9))
    offset, most = (128, 128) if bits == 8 else (0, 2**bits - 1)
    largest = (7, 31, 63, 127)[case % 4]
    groups, more = int(source.integers(1, 60)), int(source.integers(2))
    positions = int(source.integers(1, 17))
    w = source.integers(-largest, largest + 1, (groups, 8, 4))
    codes = source.integers(0, 2**bits, (positions, groups, 4))
    if case < 16:
        w[:], codes[:] = (largest, -largest)[case // 4 % 2], (0, 2**bits - 1)[case // 8]
    sums = np.einsum("gct,pgt->pc", w, codes - offset).reshape(-1) + more * np.arange(8 * positions)
    run = 32767 // (largest * most)
    return [0, run, offset, groups, positions, more, *w.ravel(), *codes.ravel()], sums.tolist()


def _taps(source: np.random.Generator, case: int) -> Case:
    largest = (7, 127)[case % 2]
    count = 9 if case % 3 == 0 else int(source.integers(1, 65))
    positions = int(source.integers(1, 17))
    w = source.integers(-largest, largest + 1, (count, 16))
    x = source.integers(-128, 128, (count + positions, 16))
    if case < 4:
        w[:], x[:] = -largest, -128
    sums = [(w * x[p : p + count]).sum(axis=0) for p in range(positions)]
    run = 32767 // (largest * 128)
    return [1, run, count, positions, *w.ravel(), *(x + 128).ravel()], np.concatenate(sums).tolist()


def _rescaling(source: np.random.Generator, case: int) -> Case:
    """Exact Python integers; many sums lie at ties, at the ends of 32 bits and beside both."""
    wide = case % 2 == 1
    zero, low, high = (0, -(2**31) + 1, 2**31 - 1) if wide else (17, 3, 250)
    multipliers = [
        int(source.integers(2**30, 2**31)) >> (k := int(source.integers(0, 31))) << k
        for _ in range(8)
    ]
    multipliers = [max(m, 2**30) for m in multipliers]
    shifts = [int(source.integers(1, 63)) for _ in range(8)]
    largest = 2**31 - 1 - 1000
    if case % 4 == 0:  # ties beside small sums, where only they forbid to round half up
        multipliers = [int(source.integers(4, 8)) << 28 for _ in range(8)]
        shifts, largest = [int(n) for n in source.integers(33, 45, 8)], 2**20
    base = [int(b) for b in source.integers(-1000, 1000, 8)]
    sums, results = [], []
    for _ in range(5):
        for m, n, b in zip(multipliers, shifts, base, strict=True):
            tie = 1 << max(0, n - 1 - ((m & -m).bit_length() - 1))
            x = int(source.choice((1, -1))) * int(source.choice((
                tie, 3 * tie, tie + 1, tie - 1, largest, 0,
                int(source.integers(0, 1 << int(source.integers(1, 31)))),
            )))  # fmt: skip
            x = min(max(x, -largest), largest)
            sums.append(x - b)
            results.append(min(max(round(Fraction(x * m, 2**n)) + zero, low), high))
    bound = max(abs(s + b) for s, b in zip(sums, base * 5, strict=True))
    scale = Rescale(np.array(multipliers), np.array(shifts))
    way = EXACT if wide else rounding(scale, bound)
    raised = [n + way.raised for n in shifts]
    constants = [v for row in zip(base, multipliers, raised, strict=True) for v in row]
    head = [2, int(way != EXACT), way.raised, int(wide), zero, low, high]
    return [*head, *constants, *sums], results


def _half_up(source: np.random.Generator, case: int) -> Case:
    """What the export calls free of ties: odd multipliers, and shifts from 33 on."""
    multipliers = [int(m) | 1 for m in source.integers(2**30, 2**31, 8)]
    shifts = [int(n) for n in source.integers(33, 63, 8)]
    shifts[0], base = 33, [int(b) for b in source.integers(-(2**20), 2**20, 8)]
    bound = 2**32 - 1 if case % 2 else 2**16
    sums, results = [], []
    for _ in range(5):
        for m, n, b in zip(multipliers, shifts, base, strict=True):
            code = int(source.integers(-300, 300))
            near = round(
                (2 * code + 1) * Fraction(2 ** (n - 1), m)
            )  # beside a boundary of rounding
            x = near + int(source.integers(-1, 2))
            limit = min(bound, 2**31 - 1 - 2**20)
            x = min(max(x, -limit), limit)
            sums.append(x - b)
            results.append(min(max(round(Fraction(x * m, 2**n)) + 100, 0), 255))
    biggest = max(abs(s + b) for s, b in zip(sums, base * 5, strict=True))
    scale = Rescale(np.array(multipliers), np.array(shifts))
    way = rounding(scale, biggest)
    assert way != EXACT or biggest >= 2**31 or biggest >= 2 ** (min(shifts) - 1)
    raised = [n + way.raised for n in shifts]
    constants = [v for row in zip(base, multipliers, raised, strict=True) for v in row]
    return [2, int(way != EXACT), way.raised, 0, 100, 0, 255, *constants, *sums], results


def _scale(
    source: np.random.Generator, sums: np.ndarray
) -> tuple[list[int], list[int], np.ndarray]:
    """(way … high, base, multiplier and shift of every channel, codes) for sums [position, channel]
    whose codes spread over the range."""
    zero, low, high = ((0, 0, 255), (7, 0, 15), (100, 3, 250))[int(source.integers(3))]
    channels = sums.shape[1]
    base = [int(source.integers(-(2**12), 2**12)) for _ in range(channels)]
    reach = int(np.abs(sums + np.array(base)).max()) + 1
    factors = source.uniform(0.2, 1, channels) * 2 * (high - low) / reach
    scale = rescale_of(factors)
    way = rounding(scale, reach)
    multipliers, shifts = scale.multipliers.tolist(), scale.shifts.tolist()
    rows: list[list[int]] = (sums + np.array(base)).tolist()
    codes = [
        [
            min(max(round(Fraction(x * m, 2**n)) + zero, low), high)
            for x, m, n in zip(row, multipliers, shifts, strict=True)
        ]
        for row in rows
    ]
    raised = [n + way.raised for n in shifts]
    constants = [int(v) for row in zip(base, multipliers, raised, strict=True) for v in row]
    return [int(way != EXACT), way.raised, zero, low, high], constants, np.array(codes)


def _with_gaps(codes: np.ndarray, gap: int) -> list[int]:
    return np.pad(codes, ((0, 0), (0, gap)), constant_values=77).reshape(-1).tolist()


def _products_to_bytes(source: np.random.Generator, case: int) -> Case:
    (_, run, offset, groups, positions, _, *numbers), _ = _products(source, case)
    w = np.array(numbers[: 32 * groups]).reshape(groups, 8, 4)
    codes = np.array(numbers[32 * groups :]).reshape(positions, groups, 4)
    way, constants, expected = _scale(source, np.einsum("gct,pgt->pc", w, codes - offset))
    head = [4, run, offset, groups, positions, *way, *constants]
    return [*head, *numbers], _with_gaps(expected, 3)


def _nine_taps_to_bytes(source: np.random.Generator, case: int) -> Case:
    largest = (20, 127)[case % 2]
    positions = int(source.integers(1, 33))
    w = source.integers(-largest, largest + 1, (9, 16))
    x = source.integers(-128, 128, (9 + positions, 16))
    sums = np.stack([(w * x[p : p + 9]).sum(axis=0) for p in range(positions)])
    way, constants, expected = _scale(source, sums)
    head = [5, 32767 // (largest * 128), positions, *way, *constants]
    return [*head, *w.ravel(), *(x + 128).ravel()], _with_gaps(expected, 1)


def _unpacking(source: np.random.Generator, case: int) -> Case:
    bits, count = 2 + case % 7, int(source.integers(1, 200))
    start = int(source.integers(0, 9)) * (8 if case % 2 else 1)
    codes = source.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), start + count)
    return [3, bits, start, count, *pack(codes, bits).tolist()], codes[start:].tolist()


def _spreading(source: np.random.Generator, case: int) -> Case:
    bits, count = (2, 4)[case % 2], int(source.integers(1, 120))
    codes = source.integers(0, 2**bits, count)
    return [6, bits, count, *pack(codes, bits).tolist()], codes.tolist()


@pytest.mark.parametrize("name", VARIANTS)
def test_kernels_equal_python(name: str, tmp_path: Path) -> None:
    variant = _variant(name)
    source = np.random.default_rng(0)
    kinds = (
        _products, _taps, _rescaling, _half_up, _unpacking, _products_to_bytes, _nine_taps_to_bytes,
        _spreading,
    )  # fmt: skip
    cases = [kind(source, case) for kind in kinds for case in range(60)]
    _build(variant, tmp_path / "main", MAIN, define=f'-DVARIANT="{name}"')
    text = "\n".join(" ".join(map(str, numbers)) for numbers, _ in cases)
    done = subprocess.run(
        [*variant.launch, tmp_path / "main"], input=text, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    rows = [line.split() for line in done.stdout.splitlines()]
    assert all(row[-1] == name for row in rows)
    for row, (numbers, expected) in zip(rows, cases, strict=True):
        assert list(map(int, row[:-1])) == expected, numbers[:6]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two networks at random bits; test_c_export.py has more, compiled without AVX2."""
    generator = torch.Generator().manual_seed(0)
    shapes = architecture("tinym2net-battlefield").inputs.values()
    inputs = tuple(torch.randn(3, *shape, generator=generator) for shape in shapes)
    source, folders = random.Random(5), []
    for model, x in (
        (build("tinym2net-battlefield"), inputs),
        integer_networks.build("option-a", 4),
    ):
        network, data = Network.from_module(model, x), Data("random", x, None)
        choices = {
            layer.name: Choice(source.choice((2, 3, 4, 5, 6, 7, 8, 16)), source.randint(2, 8))
            for layer in network.layers
        }
        folders.append(tmp_path_factory.mktemp("exported") / "network")
        quantized = quantize(network, choices, calibrate(network, data))
        offsets = export_c(quantized, data, folders[-1]).document["arena"]["offsets"]
        assert any(buffer.startswith("patches of") for buffer in offsets)
    return folders


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "portable"])
def test_networks_give_the_integers_of_the_reference(
    name: str, exported: list[Path], tmp_path: Path
) -> None:
    variant = _variant(name)
    for folder in exported:
        _build(variant, tmp_path / "program", *sorted(folder.glob("*.c")))
        samples = folder / "check" / "input.f32"
        done = subprocess.run(
            [*variant.launch, tmp_path / "program", "--input", samples, "--integers"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == (folder / "check" / "output.txt").read_text()


@dataclass(frozen=True)
class Guarded:
    """Generated source, with gaps.h; the codes that it reads, and the integers that it gives."""

    files: Mapping[str, str]
    codes: bytes
    expected: np.ndarray


@cache
def _small_shapes() -> tuple[QuantizedNetwork, Data]:
    """Many small networks; every pair of 2 to 8 bits is that of some layer."""
    model, inputs = small_shapes.build_small_shapes(3, branches=36, samples=5)
    network, data = Network.from_module(model, inputs), Data("random", inputs, None)
    pairs = [Choice(w, a) for w in range(2, 9) for a in range(2, 9)]
    random.Random(2).shuffle(pairs)
    assert len(network.layers) >= len(pairs)
    choices = {layer.name: pairs[i % len(pairs)] for i, layer in enumerate(network.layers)}
    return quantize(network, choices, calibrate(network, data)), data


@cache
def _guarded(target: Target) -> list[Guarded]:
    """Networks with guards behind every buffer: small shapes with sums in 16 bits and in 32, then
    what shares memory."""
    gaps: list[tuple[int, int]] = []

    def apart(buffers: Sequence[Buffer]) -> Arena:
        """Whatever may lie over another one does; guards lie between the others."""
        regions: list[dict[str, tuple[int, int]]] = []  # of buffers that lie over each other
        region_of: dict[str, dict[str, tuple[int, int]]] = {}
        for buffer in sorted(buffers, key=lambda buffer: buffer.first):
            begin = 0
            region: dict[str, tuple[int, int]] = {}
            if buffer.over is None:
                regions.append(region)
            else:
                region = region_of[buffer.over]
                begin = region[buffer.over][0] - buffer.before
            region_of[buffer.name] = region
            region[buffer.name] = (begin, begin + buffer.size)
        offsets: dict[str, int] = {}
        at = 0
        for region in regions:
            lowest = min(begin for begin, _ in region.values())
            offsets |= {name: at + begin - lowest for name, (begin, _) in region.items()}
            end = at + max(end for _, end in region.values()) - lowest
            at = (end + 64) // 8 * 8
            gaps.append((end, at - end))
        return Arena(offsets, at, at)

    quantized, data = _small_shapes()
    cases = [(lower(quantized, data, wide_bits=wide), quantized) for wide in (16, 32)]
    codes = [
        [quantize_input(1.5 * data.inputs[e.index].numpy(), e.tensor) for e in graph.inputs]
        for graph, _ in cases
    ]
    for seed in range(TIGHT):
        cases.append(build_tight(seed))
        codes.append(random_codes(cases[-1][0], 3, seed))
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mpsearch.exporters.c.storage.plan", apart)
        for (graph, network), given in zip(cases, codes, strict=True):
            gaps.clear()
            files = dict(generate(graph, network, target).files)
            files["gaps.h"] = ",\n".join(f"{{{at}, {size}}}" for at, size in gaps)
            raw = b"".join(x[row].tobytes() for row in range(len(given[0])) for x in given)
            made.append(Guarded(files, raw, infer(graph, *given).reshape(-1)))
    return made


@pytest.mark.parametrize(
    "name", [*(name for name in VARIANTS if name != "arm-portable"), *CORTEX_M]
)
def test_small_shapes_give_the_integers_within_their_memory(name: str, tmp_path: Path) -> None:
    """A kernel that writes beyond its memory spoils integers only where something else lies there:
    here every buffer has guards behind it, and each way of compiling runs the same networks."""
    variant = _variant(name)
    flags = [*STRICT, "-O1", *variant.flags]
    if not variant.launch:  # the emulator has no sanitizers
        flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    flags += [f"-I{CORE}"]
    kernels = [templates(variant.target)[name] for name in kernel_sources(variant.target)]
    objects = [tmp_path / f"{Path(kernel).stem}.o" for kernel in kernels]
    for kernel, path in zip(kernels, objects, strict=True):
        _compile(variant, *flags, "-c", CORE / kernel, "-o", path)
    for place, case in enumerate(_guarded(variant.target)):
        folder = tmp_path / str(place)
        folder.mkdir()
        for file, text in case.files.items():
            (folder / file).write_text(text)
        here = [*flags, "-O0", f"-I{folder}", f"-I{CORE}"]
        _compile(variant, *here, GUARDED, *objects, "-o", folder / "program")
        program = [*variant.launch, str(folder / "program")]
        done = subprocess.run(program, input=case.codes, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()[:3000]
        got = np.array(done.stdout.split(), dtype=np.int64)
        np.testing.assert_array_equal(got, case.expected)

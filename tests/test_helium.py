"""Layers for Helium (Cortex-M55) give the integers of the reference, within their memory, in an
emulated processor: many layers of odd shapes in one program."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from mpsearch.exporters.c.constants import array, rounding, struct
from mpsearch.exporters.c.families import HELIUM
from mpsearch.exporters.c.folder import kernel_sources
from mpsearch.exporters.c.kernels import Kernel, geometry, products_in_16_bits
from mpsearch.exporters.c.targets import TARGETS
from mpsearch.integer.arithmetic import Affine, affine
from mpsearch.integer.fixed_point import Integers, rescale_of
from mpsearch.integer.graph import Convolution, IntegerTensor, Linear, Weights
from mpsearch.integer.inference import convolution, linear
from mpsearch.quantization.packing import pack

CORE = Path(__file__).parent.parent / "mpsearch" / "exporters" / "c"
HERE = Path(__file__).parent
TARGET = TARGETS["cortex-m55"]
EMULATOR = "qemu-system-arm"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
KINDS = {
    (Convolution, Kernel.PATCHES): "CONVOLVE_PATCHES",
    (Convolution, Kernel.DEPTHWISE): "CONVOLVE_DEPTHWISE",
    (Linear, Kernel.PATCHES): "MULTIPLY_PATCHES",
}
NUMPY = {
    "MPS_U8": "u1", "MPS_U16": "<u2", "MPS_I16": "<i2", "MPS_I32": "<i4",
    "MPS_U4": "u1", "MPS_U2": "u1",
}  # fmt: skip


@dataclass(frozen=True)
class Shapes:
    """A layer in short; a linear one has no kernel, and `height` rows of `channels` terms."""

    channels: int
    outputs: int
    height: int
    width: int
    kernel: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)
    padding: int = 0
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bits: tuple[int, int] | None = None  # of weights and codes, where these matter


CHANNELS = (1, 2, 3, 5, 8, 16, 17, 40)
SHAPES = [
    *(Shapes(c, o, 4, 5, (1, 1)) for c, o in zip(CHANNELS, reversed(CHANNELS), strict=True)),
    *(Shapes(c, c + 1, 5, 6, (3, 3), padding=1) for c in (1, 3, 5, 16, 17)),
    *(Shapes(c, 4, 7, 3, (5, 1), stride=(2, 1), padding=1) for c in (2, 8, 40)),
    Shapes(3, 16, 9, 8, (3, 3), stride=(2, 2), padding=1),
    Shapes(8, 6, 9, 9, (3, 2), padding=2, dilation=(2, 3)),
    Shapes(4, 8, 6, 6, (3, 3), padding=1, groups=2),
    Shapes(6, 18, 5, 5, (2, 2), groups=3, dilation=(1, 2)),
    Shapes(3, 6, 4, 4, (3, 3), groups=3),  # two outputs for every channel
    Shapes(60, 5, 4, 4, (3, 3), padding=1),  # 540 terms: more than are unpacked at once
    Shapes(2, 4, 3, 3, (3, 3), padding=3),  # whole patches of padding
    Shapes(8, 8, 8, 9, (1, 1), stride=(2, 2)),
    *(Shapes(c, c, 6, 7, (3, 3), padding=1, groups=c) for c in (1, 2, 5, 16, 17, 40)),
    Shapes(16, 16, 9, 8, (3, 3), stride=(2, 2), padding=1, groups=16),
    Shapes(17, 17, 7, 5, (5, 1), padding=2, groups=17),
    Shapes(8, 8, 8, 8, (3, 3), padding=2, dilation=(2, 2), groups=8),
    Shapes(4, 4, 9, 9, (7, 7), padding=3, groups=4),
    *(Shapes(c, o, r, 1) for c, o, r in ((1, 1, 1), (17, 5, 1), (64, 10, 2), (40, 8, 7))),
    Shapes(700, 3, 1, 1),
    Shapes(540, 5, 4, 1, bits=(4, 8)),  # rows begin in the midst of words
    *(Shapes(96, 7, rows, 1, bits=(4, a)) for rows, a in ((1, 8), (2, 5))),
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A layer, its codes, and what must come; C types may be packed where tensors are not."""

    step: Convolution | Linear
    source: IntegerTensor
    codes: Integers
    input_type: str
    output_type: str
    expected: Integers
    affine: Affine | None = None
    addend: Integers | None = None
    addend_type: str = ""
    in_place: bool = False


def _made(
    source: np.random.Generator, shapes: Shapes, w_bits: int, a_bits: int, number: int
) -> Case:
    """Weights and codes at their limits now and then; results spread over their range."""
    sizes = (shapes.outputs, shapes.channels // shapes.groups, *(shapes.kernel or ()))
    most = 2 ** (w_bits - 1) - 1
    codes = source.integers(-most, most + 1, sizes)
    image = (
        (shapes.channels, shapes.height, shapes.width)
        if shapes.kernel
        else (shapes.height, shapes.channels)
    )
    x = source.integers(0, 2**a_bits, (1, *image))
    if number % 7 == 3 or (number >= 3 * len(SHAPES) and shapes.groups == shapes.channels):
        codes[:], x[:] = most, 2**a_bits - 1
    zero = int(source.integers(0, 2**a_bits)) if number % 3 else 0
    bias = source.integers(-500, 500, shapes.outputs) * (number % 4 > 0)
    read = IntegerTensor("x", image, a_bits, False, 0.1, zero)
    reach = np.abs(codes).reshape(shapes.outputs, -1).sum(axis=1) * max(zero, 2**a_bits - 1 - zero)
    bound = int((reach + np.abs(bias)).max())
    weights = Weights("layer", w_bits, codes.astype(np.int16), bias.astype(np.int32), zero, bound)
    summed = number % 4 == 2
    written, kind = _output(source, number, summed, shapes)
    spread = (
        (written.high - written.low) / np.maximum(reach, 8) / source.uniform(0.3, 4, len(reach))
    )
    scale = rescale_of(2.0 ** np.floor(np.log2(spread)) if number % 5 == 4 else spread)
    low, high = written.low, written.high
    if number % 2 and not summed:
        low = written.zero_point  # a ReLU
    common = (("x",), written, weights, scale, low, high)
    step: Convolution | Linear
    if shapes.kernel is None:
        step = Linear(("x",), replace(written, shape=(shapes.height, shapes.outputs)), *common[2:])
        results = linear(step, x, False)
    else:
        pads = (shapes.padding, shapes.padding, shapes.padding, shapes.padding)
        step = Convolution(*common, shapes.stride, pads, shapes.dilation, shapes.groups)
        results = convolution(step, x, False)
        step = replace(step, output=replace(written, shape=results.shape[1:]))
    packed = a_bits <= 4 and number % 3 > 0
    input_type = "MPS_U8"
    if packed and shapes.channels % (per := 2 if a_bits > 2 else 4) == 0:
        input_type = f"MPS_U{8 // per}"
    case = Case(step, read, x, input_type, kind, results)
    return _summed(source, case, number) if summed else case


def _output(
    source: np.random.Generator, number: int, summed: bool, shapes: Shapes
) -> tuple[IntegerTensor, str]:
    """What the layer writes, and its C type."""
    signed = IntegerTensor("y", (), 16, True, 0.02, 0)
    if summed or number % 11 == 5:
        return signed, "MPS_I16"
    if number % 11 == 7:
        return replace(signed, bits=32), "MPS_I32"
    if number % 11 == 9:
        return IntegerTensor("y", (), 16, False, 0.02, 300), "MPS_U16"
    bits = (8, 8, 4, 8, 2)[number % 5]
    zero = int(source.integers(0, 2**bits))
    per = {4: 2, 2: 4}.get(bits, 1)
    name = f"MPS_U{bits}" if shapes.outputs % per == 0 else "MPS_U8"
    return IntegerTensor("y", (), bits, False, 0.02, zero), name


def _summed(source: np.random.Generator, case: Case, number: int) -> Case:
    """The layer's 16 bits and another tensor, added to codes or 16 bits."""
    kinds = ("MPS_U8", "MPS_I16", "MPS_U4", "MPS_U16", "MPS_I32")
    kind = kinds[number // 4 % 5]
    shape, outputs = case.step.output.shape, len(case.step.weights.codes)
    if kind == "MPS_U4" and outputs % 2:
        kind = "MPS_U8"
    bits, signed = int(kind[5:]), kind[4] == "I"
    zero = 0 if signed else int(source.integers(0, 2**bits))
    other = IntegerTensor(
        "b", shape, bits, signed, float(source.uniform(0.5, 2)) * 640 / 2**bits, zero
    )
    low, high = (other.low, other.high)
    addend = source.integers(low, high, (1, *shape), endpoint=True)
    result = IntegerTensor(
        "z", shape, 8, False, float(source.uniform(2, 8)), int(source.integers(0, 256))
    )
    if number % 3 == 0:
        result = IntegerTensor("z", shape, 16, True, 0.03, 0)
    if number % 8 == 2:  # ties
        result = replace(result, scale=4.0)
        other = replace(other, scale=2.0)
        case = replace(case, step=replace(case.step, output=replace(case.step.output, scale=0.5)))
    factor = np.array(1.0)
    constant = np.array(-other.zero_point * other.scale)
    step = affine((case.step.output, other), (factor, factor), constant, result)
    step = replace(step, low=result.low, high=result.high)
    kind_out = "MPS_I16" if result.signed else "MPS_U8"
    return replace(
        case, affine=step, addend=addend, addend_type=kind, output_type=kind_out,
        expected=step.compute(case.expected, addend), in_place=kind == kind_out,
    )  # fmt: skip


def _stored(values: Integers, kind: str) -> bytes:
    """One sample as it lies in memory: images channels last, packed codes side by side."""
    (sample,) = values
    flat = (np.moveaxis(sample, 0, -1) if sample.ndim == 3 else sample).reshape(-1)
    if kind in ("MPS_U4", "MPS_U2"):
        bits = int(kind[5:])
        flat = (flat.reshape(-1, 8 // bits) << (bits * np.arange(8 // bits))).sum(axis=1)
    return bytes(flat.astype(NUMPY[kind]).tobytes())


def _written(case: Case, number: int) -> tuple[str, str]:
    """C of one case, and its row of the table."""
    step, source = case.step, case.source
    kernel = HELIUM.kernel(step, source)
    assert kernel is not Kernel.PLAIN
    weights, text = step.weights, []
    taken = HELIUM.offset(kernel, source, weights.zero_point)
    sums = weights.codes.astype(np.int64).reshape(len(weights.codes), -1).sum(axis=1)
    base = weights.bias + (taken - weights.zero_point) * sums
    packed = pack(HELIUM.order(step, kernel, None), weights.bits)
    data: Mapping[str, tuple[str, Integers]] = {
        "weights": ("uint8_t", packed),
        "base": ("int32_t", base),
        "multipliers": ("int32_t", step.rescale.multipliers),
        "shifts": ("int8_t", step.rescale.shifts),
    }
    layer: dict[str, object] = {}
    for name, (kind, values) in data.items():
        layer[name] = f"{name}_{number}" if values.any() else "NULL"
        if values.any():
            text.append(array(kind, f"{name}_{number}", values.tolist()))
    layer |= {
        "bits": weights.bits, "run": products_in_16_bits(step, source),
        **rounding(step.rescale, weights.bound).fields,
        "input_type": case.input_type,
        "output_type": "MPS_I16" if case.affine else case.output_type,
        "input_zero": weights.zero_point, "offset": taken,
        "output_zero": step.output.zero_point, "low": step.low, "high": step.high,
    }  # fmt: skip
    if case.affine:
        step_sum = case.affine
        text.append(struct("mps_sum", f"sum_{number}", {
            "addend_type": case.addend_type, "output_type": case.output_type,
            "multiplier": int(step_sum.multipliers[0]), "other": int(step_sum.multipliers[1]),
            "offset": int(step_sum.offset), "raise": step_sum.raised, "shift": step_sum.shift,
            "output_zero": step_sum.output.zero_point, "low": step_sum.low, "high": step_sum.high,
        }))  # fmt: skip
        layer["sum"] = f"&sum_{number}"
    needed = HELIUM.scratch(step, kernel, source)
    fields: dict[str, object] = {"layer": layer, "block": needed.positions}
    if isinstance(step, Convolution):
        text.append(
            struct("mps_convolution", f"step_{number}", fields | asdict(geometry(step, source)))
        )
    else:
        outputs, inputs = weights.codes.shape
        rows = {"rows": step.output.shape[0], "inputs": inputs, "outputs": outputs}
        text.append(struct("mps_linear", f"step_{number}", fields | rows))
    contents = {
        "input": _stored(case.codes, case.input_type),
        "expected": _stored(case.expected, case.output_type),
    }
    if case.addend is not None:
        contents["addend"] = _stored(case.addend, case.addend_type)
    for name, content in contents.items():
        text.append(array("unsigned char", f"{name}_{number}", content))
    row = {
        "kernel": KINDS[type(step), kernel], "step": f"&step_{number}",
        "scratch_size": needed.size, "output_size": len(contents["expected"]),
        "input_size": len(contents["input"]), "addend_size": len(contents.get("addend", b"")),
        "in_place": int(case.in_place), **{name: f"{name}_{number}" for name in contents},
    }  # fmt: skip
    return "".join(text), "{" + ", ".join(f".{k} = {v}" for k, v in row.items()) + "}"


def cases() -> list[Case]:
    """Every shape at several widths; every pair of 2 to 8 bits is that of some layer."""
    source = np.random.default_rng(5)
    pairs = list(product(range(2, 9), range(2, 9)))
    source.shuffle(pairs)
    return [
        _made(source, shapes, *(shapes.bits or pairs[i % len(pairs)]), i)
        for i, shapes in enumerate(4 * SHAPES)
    ]


def _compile(program: Path, *arguments: str | Path) -> None:
    done = subprocess.run(
        [TARGET.compiler, *TARGET.flags, *STRICT, *arguments, "-o", program],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:3000]


def _emulate(program: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [EMULATOR, "-M", "mps3-an547", "-nographic", "-monitor", "none", "-serial", "none",
         "-semihosting-config", "enable=on,target=native", "-kernel", program],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip


@pytest.mark.parametrize("optimize", ["-O2", "-O0"])
def test_layers_give_the_integers_within_their_memory(optimize: str, tmp_path: Path) -> None:
    for program in (TARGET.compiler, EMULATOR):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    texts, rows = zip(*(_written(case, i) for i, case in enumerate(cases())), strict=True)
    table = ",\n".join(rows)
    (tmp_path / "cases.h").write_text(
        "".join(texts) + f"static const layer_case cases[] = {{\n{table}\n}};\n"
    )
    files = {Path(name).name: CORE / name for name in TARGET.family.sources}
    assert set(files) <= set(kernel_sources(TARGET))
    _compile(
        tmp_path / "program", optimize, f"-I{CORE}", f"-I{tmp_path}", "-nostartfiles",
        "-T", HERE / "mps3_an547.ld", HERE / "mps3_an547.c", HERE / "layer_cases.c",
        *files.values(),
    )  # fmt: skip
    done = _emulate(tmp_path / "program")
    assert done.returncode == 0, done.stderr[:1000]
    assert f"{len(rows)} cases" in done.stderr

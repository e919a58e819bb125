"""Random layers for kernels of Cortex-M as text of C, with what they read and must give: every pair
of bits, odd sizes, codes that share bytes, sums, extremes and ties."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpsearch.exporters.c import pairs
from mpsearch.exporters.c.constants import array, rounding, struct
from mpsearch.exporters.c.families import CORTEX_M
from mpsearch.exporters.c.kernels import Kernel, Scratch, geometry
from mpsearch.exporters.c.storage import c_type
from mpsearch.integer.arithmetic import Affine
from mpsearch.integer.fixed_point import Integers, rescale_of
from mpsearch.integer.graph import (
    Convolution,
    IntegerGraph,
    IntegerInput,
    IntegerTensor,
    Linear,
    Step,
    Weights,
)
from mpsearch.integer.inference import run
from mpsearch.quantization.packing import pack


@dataclass(frozen=True)
class Case:
    """C text with the names of `number`, and the entry of the table."""

    text: str
    entry: Mapping[str, object]
    memory: int
    about: str


def _unsigned(name: str, shape: tuple[int, ...], bits: int, zero: int) -> IntegerTensor:
    return IntegerTensor(name, shape, bits, False, 0.1, zero)


def _signed(name: str, shape: tuple[int, ...], bits: int) -> IntegerTensor:
    return IntegerTensor(name, shape, bits, True, 0.1, 0)


def _layer(source: np.random.Generator, case: int) -> tuple[Step, IntegerTensor]:
    """A convolution or linear layer of odd sizes, in which every pair of bits comes up."""
    w_bits, a_bits = 2 + case % 7, 2 + case // 7 % 7
    pick = source.choice
    zero = int(source.integers(0, 2**a_bits))
    linear, depthwise = case % 5 == 0, case % 5 == 1
    if linear:
        inputs, outputs = (
            int(pick((1, 3, 4, 17, 64, 99, 1100 if case == 30 else 36))),
            int(pick((1, 2, 3, 8, 10))),
        )
        rows = int(pick((1, 1, 2, 5)))
        shape: tuple[int, ...] = (rows, inputs) if rows > 1 else (inputs,)
        to: tuple[int, ...] = (rows, outputs) if rows > 1 else (outputs,)
        codes_shape: tuple[int, ...] = (outputs, inputs)
    else:
        channels = int(pick((1, 2, 3, 4, 5, 8, 16, 17, 20)))
        groups = channels if depthwise else int(pick((1, 1, 1, channels)))
        outputs = groups * (1 if depthwise else int(pick((1, 2, 3, 4, 8))))
        kernel = tuple(map(int, pick(((1, 1), (1, 1), (3, 3), (3, 3), (5, 1), (2, 2), (1, 4)))))
        if depthwise and case % 40 == 1:
            kernel = (9, 8)  # more taps than depthwise.c takes
        down, across = map(int, pick(((1, 1), (1, 1), (2, 2), (2, 1))))
        dilation = int(pick((1, 1, 2)))
        top, left, bottom, right = (int(source.integers(0, k + 1)) for k in (*kernel, *kernel))
        height, width = (int(source.integers(1, 8)) + dilation * (k - 1) for k in kernel)
        shape = (channels, height, width)
        out_h = (height + top + bottom - dilation * (kernel[0] - 1) - 1) // down + 1
        out_w = (width + left + right - dilation * (kernel[1] - 1) - 1) // across + 1
        to, codes_shape = (outputs, out_h, out_w), (outputs, channels // groups, *kernel)
    limit = 2 ** (w_bits - 1)
    codes = source.integers(-limit, limit, codes_shape)
    if case % 9 == 0:
        codes[:] = -limit if case % 2 else limit - 1
    bias = source.integers(-(2**10), 2**10, len(codes)).astype(np.int32)
    rows_of = np.abs(codes).reshape(len(codes), -1).sum(axis=1)
    bound = int((rows_of * 2**a_bits + np.abs(bias)).max())
    weights = Weights("layer", w_bits, codes.astype(np.int16), bias, zero, bound)
    kind = case % 6
    if kind < 4:
        bits = (8, 8, 4, 2)[kind]
        output = _unsigned("output", to, bits, int(source.integers(0, 2**bits)))
        low, high = (0, 2**bits - 1) if case % 4 else (1, 2**bits - 1 - (bits > 2))
    else:
        output = _signed("output", to, (16, 32)[kind - 4])
        low, high = output.low, output.high
    spread = 2.0 ** (case % 8 + (output.bits if output.signed else 6) - 6) / max(
        1, rows_of.max() * 2 ** (a_bits - 3)
    )
    factors = source.uniform(0.2, 1, len(codes)) * spread
    if case % 11 == 0:
        factors = 2.0 ** np.round(np.log2(factors))  # ties
    rescale = rescale_of(factors)
    tensor = _unsigned("source", shape, a_bits, zero)
    if linear:
        return Linear(("source",), output, weights, rescale, low, high), tensor
    convolution = Convolution(
        ("source",), output, weights, rescale, low, high, (down, across),
        (top, left, bottom, right), (dilation, dilation), groups,
    )  # fmt: skip
    return convolution, tensor


def _stored(values: Integers, tensor: IntegerTensor) -> Integers:
    """In the order and the type of the C export: channels last."""
    image = np.moveaxis(values, 0, -1) if len(tensor.shape) == 3 else values
    return image.reshape(-1).astype(tensor.dtype)


def _bytes(values: Integers, bits: int | None) -> Integers:
    """As bytes; packed where `bits` are given."""
    return pack(values.astype(np.int64), bits) if bits else values.view(np.uint8)


def make_case(source: np.random.Generator, case: int) -> Case:
    step, tensor = _layer(source, case)
    assert isinstance(step, Convolution | Linear)
    codes = source.integers(0, 2**tensor.bits, (1, *tensor.shape))
    if case % 13 == 0:
        codes[:] = tensor.high
    kernel = CORTEX_M.kernel(step, tensor)
    assert kernel is not Kernel.PLAIN
    # a row of channels must fill whole bytes where codes share them
    row = tensor.shape[0] if len(tensor.shape) == 3 else tensor.shape[-1]
    packs = tensor.bits in (2, 4) and row * tensor.bits % 8 == 0 and case % 2 == 0
    out, summed = step.output, case % 3 == 0
    steps: list[Step] = [step]
    fields: dict[str, Any] = {}
    extra: list[IntegerTensor] = []
    if summed:
        step = _with_output(step, _signed("output", out.shape, 16))
        extra = [
            _unsigned("addend", out.shape, 8, 7) if case % 2 else _signed("addend", out.shape, 16)
        ]
        result = _unsigned("sum", out.shape, 8, int(source.integers(0, 200)))
        if case % 5 == 2:
            result = _signed("sum", out.shape, 16)
        numbers = [int(v) for v in source.integers(2**20, 2**24, 2)]
        raised, shift = int(source.integers(0, 9)), int(source.integers(24, 31))
        offset = int(source.integers(-(2**20), 2**20))
        if case % 4 == 3:  # ties
            numbers, offset = [1 << (shift - 1), 1 << (shift - 2)], 0
        affine = Affine(
            ("output", "addend"), result, tuple(np.full((1,) * len(out.shape), v) for v in numbers),
            np.full((1,) * len(out.shape), offset), raised, shift, result.low, result.high,
        )  # fmt: skip
        steps = [step, affine]
        fields = {
            "addend_type": c_type(extra[0]), "output_type": c_type(result),
            "multiplier": numbers[0], "other": numbers[1], "offset": offset, "raise": raised,
            "shift": shift, "output_zero": result.zero_point, "low": result.low,
            "high": result.high,
        }  # fmt: skip
        out = result
    inputs = tuple(IntegerInput(i, t) for i, t in enumerate((tensor, *extra)))
    addend = [source.integers(t.low, t.high + 1, (1, *t.shape)).astype(t.dtype) for t in extra]
    graph = IntegerGraph(inputs, tuple(steps), out, 1.0)
    expected = np.asarray(run(graph, codes.astype(tensor.dtype), *addend))[0]
    row = out.shape[0] if len(out.shape) == 3 else out.shape[-1]
    packs_out = not out.signed and out.bits in (2, 4) and row * out.bits % 8 == 0 and case % 4 < 2
    fields |= {"output_type": f"MPS_U{out.bits}"} if packs_out and summed else {}
    place = pairs.blocks(step, kernel, tensor, packed=packs)
    text, name = _text(case, step, tensor, kernel, place, fields, packs, packs_out)
    given = _bytes(_stored(codes[0], tensor), tensor.bits if packs else None)
    wanted = _bytes(_stored(expected, out), out.bits if packs_out else None)
    added = _bytes(_stored(addend[0][0], extra[0]), None) if extra else np.zeros(0, np.uint8)
    in_place = bool(extra) and extra[0].dtype == out.dtype and not packs_out
    for kind, values in (("input", given), ("addend", added), ("expected", wanted)):
        text += array("uint8_t", f"{kind}_{case}", values.tolist() or [0])
    linear = isinstance(step, Linear)
    entry = {
        "convolution": "NULL" if linear else f"&{name}", "linear": f"&{name}" if linear else "NULL",
        "depthwise": int(kernel is Kernel.DEPTHWISE), "input": f"input_{case}",
        "addend": f"addend_{case}", "expected": f"expected_{case}", "input_bytes": len(given),
        "addend_bytes": len(added), "output_bytes": len(wanted), "scratch_bytes": place.size,
        "in_place": int(in_place),
    }  # fmt: skip
    about = (
        f"{step.weights.codes.shape} {tensor} -> {out}; packed {packs}, {packs_out}; sum {summed}"
    )
    return Case(text, entry, len(given) + len(added) + len(wanted) + place.size, about)


def _with_output(step: Convolution | Linear, output: IntegerTensor) -> Convolution | Linear:
    return replace(step, output=output, low=output.low, high=output.high)


def _text(
    case: int, step: Convolution | Linear, tensor: IntegerTensor, kernel: Kernel, place: Scratch,
    summed: Mapping[str, object], packs: bool, packs_out: bool,
) -> tuple[str, str]:  # fmt: skip
    weights, rescale = step.weights, step.rescale
    taken = CORTEX_M.offset(kernel, tensor, weights.zero_point)
    sums = weights.codes.astype(np.int64).reshape(len(weights.codes), -1).sum(axis=1)
    text = array(
        "uint8_t", f"weights_{case}", pack(CORTEX_M.order(step, kernel, None), weights.bits)
    )
    text += array("int32_t", f"base_{case}", weights.bias + (taken - weights.zero_point) * sums)
    text += array("int32_t", f"multipliers_{case}", rescale.multipliers)
    text += array("int8_t", f"shifts_{case}", rescale.shifts)
    if summed:
        text += struct("mps_sum", f"sum_{case}", summed)
    written = f"MPS_U{step.output.bits}" if packs_out and not summed else c_type(step.output)
    layer = {
        "weights": f"weights_{case}", "base": f"base_{case}", "multipliers": f"multipliers_{case}",
        "shifts": f"shifts_{case}", "bits": weights.bits, **rounding(rescale, weights.bound).fields,
        "input_type": f"MPS_U{tensor.bits}" if packs else c_type(tensor),
        "output_type": written,
        "input_zero": weights.zero_point, "offset": taken, "output_zero": step.output.zero_point,
        "low": step.low, "high": step.high, "sum": f"&sum_{case}" if summed else "NULL",
    }  # fmt: skip
    fields: dict[str, object] = {"layer": layer, "block": place.positions}
    name = f"case_{case}"
    if isinstance(step, Convolution):
        shapes = geometry(step, tensor).__dict__
        return text + struct("mps_convolution", name, fields | shapes), name
    outputs, inputs = weights.codes.shape
    rows = int(np.prod(step.output.shape)) // outputs
    return text + struct(
        "mps_linear", name, fields | {"rows": rows, "inputs": inputs, "outputs": outputs}
    ), name

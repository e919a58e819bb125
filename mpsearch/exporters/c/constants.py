"""Constant arrays and structs of the generated C, and the bytes that they take.

Python values as C source text.

Four bytes per output channel: the weight scale as stored, from which C makes the factor.

A layer's factors are s_w·K with one K = s_x/s_out for the layer and the float32 weight scales s_w,
of which the table predicts 4 bytes each. C takes the bits of s_w as a 24-bit integer, multiplies by
a 64-bit K and rounds to the 31-bit multiplier (`mps_factor` in integers.h). That is exact to 2^-63,
while the reference rounds its float64 products, so every channel is computed here as C will and
compared; a layer in which one differs stores its multipliers instead (about one channel in 10^6).

Which way of rescaling is exact for a step: proofs about its multipliers and its sums.

The `mps_layer` of a convolution or linear layer: packed weights, constants, factors.
"""

import builtins
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from mpsearch.exporters.c.families import Family
from mpsearch.exporters.c.kernels import Kernel, products_in_16_bits
from mpsearch.exporters.c.storage import c_type
from mpsearch.integer.fixed_point import LARGEST_SHIFT, Integers, Rescale
from mpsearch.integer.graph import Convolution, IntegerTensor, Linear, Shape, reciprocal
from mpsearch.quantization.packing import pack
from mpsearch.quantization.quantized import QuantizedLayer


def array(kind: str, name: str, values: Iterable[int]) -> str:
    """A constant array: ("int8_t", "s", [1, 2]) -> "static const int8_t s[] = {\\n    1,2\\n};"."""
    text = ",".join(str(int(value)) for value in values)
    # Break after commas only; lines of 100 keep the file readable and small.
    lines = textwrap.fill(text.replace(",", ", "), 96, break_long_words=False).replace(", ", ",")
    return f"static const {kind} {name}[] = {{\n{textwrap.indent(lines, '    ')}\n}};\n"


def struct(kind: str, name: str, fields: Mapping[str, object]) -> str:
    """A constant struct with named fields; mappings are structs in it, tuples are arrays."""
    return f"static const {kind} {name} = {_value(fields)};\n"


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f".{key} = {_value(v)}" for key, v in value.items()) + "}"
    if isinstance(value, tuple):
        return "{" + ", ".join(_value(v) for v in value) + "}"
    return str(value)


@dataclass
class Constants:
    """C text so far; `bytes` counts what the arrays take, by account (weights, tables, …)."""

    text: list[str] = field(default_factory=list)
    bytes: dict[str, int] = field(default_factory=dict)
    shared: dict[tuple[str, builtins.bytes], str] = field(default_factory=dict)

    def array(self, kind: str, name: str, values: np.ndarray, account: str = "tables") -> str:
        """Add an array and count its bytes; its name."""
        flat = values.reshape(-1)
        self.text.append(array(kind, name, flat.tolist()))
        size = len(flat) * np.dtype(kind.removesuffix("_t")).itemsize
        self.bytes[account] = self.bytes.get(account, 0) + size
        return name

    def shared_array(self, kind: str, name: str, values: np.ndarray) -> str:
        """The name of an array with these numbers, which is added unless there is one."""
        key = (kind, values.astype(np.int64).tobytes())
        if key not in self.shared:
            self.shared[key] = self.array(kind, name, values)
        return self.shared[key]

    def struct(self, kind: str, number: int | str, fields: Mapping[str, object]) -> None:
        """Add the struct step_NUMBER."""
        self.text.append(struct(kind, f"step_{number}", fields))


_FRACTION_BITS, _BIAS = 23, 150  # float32: value = mantissa · 2^(exponent - 150), mantissa 24 bits
# The reference's two roundings move a factor by 2^-52 at most; K has 64 bits.
_NUDGES = (0, *(sign << bits for bits in (10, 11, 12) for sign in (1, -1)))


@dataclass(frozen=True)
class ChannelScales:
    """`bits` [channels] (uint32) are float32 patterns; K = factor·2^-exponent, a 64-bit factor."""

    bits: Integers
    factor: int
    exponent: int


def channel_scales(scales: np.ndarray, ratio: Fraction, rescale: Rescale) -> ChannelScales | None:
    """The compact form of `rescale`, whose factors are scales·ratio; None where there is none.

    `scales` are float32 [channels], `ratio` the exact s_x/s_out of the layer.
    """
    bits = np.ascontiguousarray(scales, dtype=np.float32).view(np.uint32)
    patterns = [int(pattern) for pattern in bits]
    wanted = list(zip(rescale.multipliers.tolist(), rescale.shifts.tolist(), strict=True))
    normal = all(0 < pattern >> _FRACTION_BITS < 255 for pattern in patterns)
    if not normal or ratio <= 0 or len(wanted) != len(patterns):
        return None
    scaled = ratio * 2**rescale.pre_shift
    exponent = 64 - (scaled.numerator.bit_length() - scaled.denominator.bit_length())
    if scaled * Fraction(2) ** exponent >= 2**64:
        exponent -= 1
    nearest = round(scaled * Fraction(2) ** exponent)
    for nudge in _NUDGES:
        factor = nearest + nudge
        if not 2**63 <= factor < 2**64:
            continue
        if [channel_factor(pattern, factor, exponent) for pattern in patterns] == wanted:
            return ChannelScales(bits, factor, exponent)
    return None


def channel_factor(pattern: int, factor: int, exponent: int) -> tuple[int, int]:
    """(multiplier, shift) of one channel, as `mps_factor` computes them."""
    mantissa = pattern & (2**_FRACTION_BITS - 1) | 2**_FRACTION_BITS
    product = mantissa * factor >> 32  # 55 or 56 bits
    drop = product.bit_length() - 31
    multiplier = (product + (1 << (drop - 1)) - 1 + (product >> drop & 1)) >> drop
    shift = _BIAS + exponent - (pattern >> _FRACTION_BITS) - 32 - drop
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift - 1
    if shift > LARGEST_SHIFT:
        return 0, 1
    if shift < 1:
        return 2**31 - 1, 1
    return multiplier, shift


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


@dataclass
class LayerWriter:
    """The layers of a network with their kernels; `bytes` is what each has stored, by account."""

    layers: Mapping[str, QuantizedLayer]
    kernels: Mapping[str, Kernel]
    family: Family
    bytes: dict[str, dict[str, int]] = field(default_factory=dict)
    stored: dict[str, dict[str, str]] = field(default_factory=dict)

    def kernel(self, step: Convolution | Linear) -> Kernel:
        """What computes the step."""
        return self.kernels[step.weights.layer]

    def write(
        self,
        constants: Constants,
        number: int,
        step: Convolution | Linear,
        source: IntegerTensor,
        flattened: Shape | None,
    ) -> dict[str, object]:
        """Add the constants of one use of a layer; the fields of its `mps_layer`.

        A layer that is used again is stored once, but for constants that depend on the input.
        """
        weights, rescale = step.weights, step.rescale
        kernel = self.kernel(step)
        fast = kernel is not Kernel.PLAIN
        taken = self.family.offset(kernel, source, weights.zero_point)
        if weights.layer not in self.stored:
            packed = pack(self.family.order(step, kernel, flattened), weights.bits)
            self.stored[weights.layer] = {
                "weights": constants.array("uint8_t", f"weights_{number}", packed, "weights")
            }
            self.bytes[weights.layer] = {"weights": len(packed), "biases": 0, "scales": 0}
        return {
            "weights": self.stored[weights.layer]["weights"],
            "base": self._base(constants, number, step, taken),
            **self._factors(constants, number, step, source),
            "bits": weights.bits,
            "pre_shift": rescale.pre_shift,
            "wide_sums": int(weights.accumulator_bits == 64),
            "run": products_in_16_bits(step, source) if fast else 0,
            **rounding(rescale, weights.bound).fields,
            "input_type": c_type(source),
            "output_type": c_type(step.output),
            "input_zero": weights.zero_point,
            "offset": taken,
            "output_zero": step.output.zero_point,
            "low": step.low,
            "high": step.high,
        }

    def _base(
        self, constants: Constants, number: int, step: Convolution | Linear, taken: int
    ) -> str:
        """bias + (offset - zero point)·Σ w: kernels sum w·(code - offset), padding included."""
        weights, name = step.weights, step.weights.layer
        sums = weights.codes.astype(np.int64).reshape(len(weights.codes), -1).sum(axis=1)
        base: Integers = weights.bias + (taken - weights.zero_point) * sums
        if not base.any():
            return "NULL"
        stored, key = self.stored[name], f"base {base.tolist()}"
        if key not in stored:
            has_room = self.layers[name].bias_codes is not None and not self.bytes[name]["biases"]
            account = "biases" if has_room else "tables"
            stored[key] = constants.array("int32_t", f"base_{number}", base, account)
            if has_room:
                self.bytes[name]["biases"] = 4 * len(base)
        return stored[key]

    def _factors(
        self, constants: Constants, number: int, step: Convolution | Linear, source: IntegerTensor
    ) -> dict[str, object]:
        name, rescale = step.weights.layer, step.rescale
        stored, weight = self.stored[name], self.layers[name].weight
        assert weight is not None
        ratio = Fraction(source.scale) * Fraction(reciprocal(step.output))
        scales = weight.channel_scales().cpu().numpy()[: len(rescale.multipliers)]
        compact = channel_scales(scales, ratio, rescale)
        if compact is None:
            multipliers, shifts = rescale.multipliers, rescale.shifts
            return {
                "multipliers": constants.array("int32_t", f"multipliers_{number}", multipliers),
                "shifts": constants.array("int8_t", f"shifts_{number}", shifts),
            }
        if "scales" not in stored:
            stored["scales"] = constants.array(
                "uint32_t", f"scales_{number}", compact.bits, "scales"
            )
            self.bytes[name]["scales"] = 4 * len(compact.bits)
        return {
            "scales": stored["scales"],
            "factor": f"UINT64_C({compact.factor})",
            "exponent": compact.exponent,
        }

"""The `mps_layer` of a convolution or linear layer: packed weights, constants, factors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from mpsearch.exporters.c.channel_scales import channel_scales
from mpsearch.exporters.c.constants import Constants
from mpsearch.exporters.c.kernels import Kernel, offset, ordered_codes, products_in_16_bits
from mpsearch.exporters.c.rounding import rounding
from mpsearch.exporters.c.storage import c_type
from mpsearch.integer.fixed_point import Integers
from mpsearch.integer.graph import Convolution, IntegerTensor, Linear, Shape
from mpsearch.integer.layers import reciprocal
from mpsearch.quantization.packing import pack
from mpsearch.quantization.quantized import QuantizedLayer


@dataclass
class LayerWriter:
    """The layers of a network with their kernels; `bytes` is what each has stored, by account."""

    layers: Mapping[str, QuantizedLayer]
    kernels: Mapping[str, Kernel]
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
        fast = self.kernel(step) is not Kernel.PLAIN
        taken = offset(source) if fast else weights.zero_point
        if weights.layer not in self.stored:
            packed = pack(ordered_codes(step, self.kernel(step), flattened), weights.bits)
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
        compact = channel_scales(weight.channel_scales().cpu().numpy(), ratio, rescale)
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

"""Every step of an `IntegerGraph` as C: constants, and the call that computes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod

import numpy as np

from mpsearch.c_export import strides
from mpsearch.c_export.c_text import array, comment, struct
from mpsearch.c_export.channel_scales import channel_scales
from mpsearch.c_export.storage import Storage, c_type, element_bytes, elements
from mpsearch.integer.graph import (
    Add,
    ArgMax,
    AveragePool,
    Clamp,
    Concatenate,
    Convolution,
    IntegerTensor,
    Linear,
    MaxPool,
    Mean,
    Pad,
    Permute,
    Requantize,
    Reshape,
    Shape,
    Slice,
    Softmax,
    Step,
)
from mpsearch.integer.layers import reciprocal
from mpsearch.integer.softmax import power_table
from mpsearch.packing import pack
from mpsearch.quantized import QuantizedLayer

# Field names that the structs of kernels.h share.
_WINDOW = "kernel_height kernel_width stride_y stride_x".split()


@dataclass
class StepWriter:
    """Constants and calls so far; `constant_bytes` counts what the constants take, by kind."""

    tensors: Mapping[str, IntegerTensor]
    storage: Storage
    layers: Mapping[str, QuantizedLayer]
    constants: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    constant_bytes: dict[str, int] = field(default_factory=dict)
    layer_bytes: dict[str, dict[str, int]] = field(default_factory=dict)
    has_power_table: bool = False
    stored: dict[str, dict[str, str]] = field(default_factory=dict)

    def write(self, number: int, step: Step) -> None:
        """Add one step; its constants are called NAME_number."""
        shape = "x".join(map(str, step.output.shape)) or "scalar"
        layer = f" {step.weights.layer}" if isinstance(step, Convolution | Linear) else ""
        note = f"{type(step).__name__}{layer} -> {step.output.name} [{shape}]"
        self.calls.append(f"    {comment(note)}")
        match step:
            case Convolution():
                self._struct("mps_convolution", number, self._convolution(number, step))
                self._call("mps_convolve", number, step, self._patches(step))
            case Linear():
                inputs = step.weights.codes.shape[1]
                fields = {
                    "layer": self._layer(number, step),
                    "rows": elements(step.output) // len(step.weights.codes),
                    "inputs": inputs,
                    "outputs": len(step.weights.codes),
                }
                self._struct("mps_linear", number, fields)
                self._call("mps_multiply", number, step, self._patches(step))
            case Requantize():
                self._struct("mps_requantization", number, _requantization(step, self._in(step)))
                self._call("mps_requantize", number, step)
            case Clamp() | Add():
                fields = {
                    "type": c_type(step.output), "count": elements(step.output),
                    "low": step.low, "high": step.high,
                }  # fmt: skip
                self._struct("mps_elementwise", number, fields)
                self._call("mps_add" if isinstance(step, Add) else "mps_clamp", number, step)
            case MaxPool():
                names = [*_WINDOW, "top", "left", "dilation_y", "dilation_x"]
                values = (*step.kernel, *step.stride, *step.padding, *step.dilation)
                window = dict(zip(names, values, strict=True))
                lowest = {"lowest": self._in(step).low}
                self._struct("mps_max_pooling", number, self._planes(step) | window | lowest)
                self._call("mps_max_pool", number, step)
            case AveragePool():
                tables = {
                    "rows": self._array("int32_t", f"rows_{number}", np.array(step.rows)),
                    "columns": self._array("int32_t", f"columns_{number}", np.array(step.columns)),
                    "counts": self._array("int32_t", f"counts_{number}", step.counts),
                }
                self._struct("mps_average_pooling", number, self._planes(step) | tables)
                self._call("mps_average_pool", number, step)
            case Mean():
                self._struct("mps_means", number, _means(step, self._in(step)))
                self._call("mps_mean", number, step)
            case Concatenate():
                shapes = [self.tensors[name].shape for name in step.sources]
                boxes = strides.concatenated(step, shapes)
                for part, (box, name) in enumerate(zip(boxes, step.sources, strict=True)):
                    self._move(f"{number}_{part}", step, box, name)
            case Permute():
                self._move(str(number), step, strides.permuted(step, self._in(step).shape))
            case Slice():
                self._move(str(number), step, strides.sliced(step, self._in(step).shape))
            case Pad():
                count, kind = elements(step.output), c_type(step.output)
                to = self._at(step.output.name)
                self.calls.append(f"    mps_fill({kind}, {count}, {step.value}, {to});")
                self._move(str(number), step, strides.padded(step, self._in(step).shape))
            case Softmax():
                if "power_table" not in self.constant_bytes:
                    self._array("int32_t", "power_table", np.array(power_table()), "table")
                fields = _along(self._in(step), step.output, step.axis) | {
                    "multiplier": int(step.rescale.multipliers[0]),
                    "shift": int(step.rescale.shifts[0]),
                }
                self._struct("mps_along_axis", number, fields)
                self._call("mps_softmax", number, step, "power_table")
            case ArgMax():
                fields = _along(self._in(step), step.output, step.axis)
                self._struct("mps_along_axis", number, fields)
                self._call("mps_argmax", number, step)
            case Reshape():
                self.calls.append("    /* the same bytes */")
            case _:
                raise AssertionError(f"no C for {type(step).__name__}")

    def _in(self, step: Step) -> IntegerTensor:
        return self.tensors[step.sources[0]]

    def _at(self, name: str) -> str:
        return f"arena.bytes + {self.storage.offset(name)}"

    def _patches(self, step: Step) -> str:
        place = self.storage.patches(step)
        return "NULL" if place is None else f"arena.bytes + {place}"

    def _struct(self, kind: str, number: int | str, fields: Mapping[str, object]) -> None:
        self.constants.append(struct(kind, f"step_{number}", fields))

    def _call(self, function: str, number: int | str, step: Step, *extra: str) -> None:
        arguments = [f"&step_{number}", *extra]
        arguments += [self._at(name) for name in (*step.sources, step.output.name)]
        self.calls.append(f"    {function}({', '.join(arguments)});")

    def _array(self, kind: str, name: str, values: np.ndarray, account: str = "tables") -> str:
        """Add a constant array and count its bytes; its name."""
        flat = values.reshape(-1)
        self.constants.append(array(kind, name, flat.tolist()))
        size = len(flat) * np.dtype(kind.removesuffix("_t")).itemsize
        self.constant_bytes[account] = self.constant_bytes.get(account, 0) + size
        return name

    def _layer(self, number: int, step: Convolution | Linear) -> dict[str, object]:
        weights, rescale = step.weights, step.rescale
        name, quantized = weights.layer, self.layers[weights.layer]
        source, output = self._in(step), step.output
        if name not in self.stored:  # a layer that is used again is stored once
            packed = pack(weights.codes, weights.bits)
            self.stored[name] = {
                "weights": self._array("uint8_t", f"weights_{number}", packed, "weights"),
                "bias": "NULL",
            }
            self.layer_bytes[name] = {"weights": len(packed), "biases": 0, "scales": 0}
            if quantized.bias_codes is not None:
                bias = self._array("int32_t", f"bias_{number}", weights.bias, "biases")
                self.stored[name]["bias"] = bias
                self.layer_bytes[name]["biases"] = 4 * len(weights.bias)
        assert quantized.weight is not None
        ratio = Fraction(source.scale) * Fraction(reciprocal(output))
        compact = channel_scales(quantized.weight.scales.cpu().numpy(), ratio, rescale)
        if compact is not None:
            if "scales" not in self.stored[name]:
                bits = self._array("uint32_t", f"scales_{number}", compact.bits, "scales")
                self.stored[name]["scales"] = bits
                self.layer_bytes[name]["scales"] = 4 * len(compact.bits)
            factors: dict[str, object] = {
                "scales": self.stored[name]["scales"],
                "factor": f"UINT64_C({compact.factor})",
                "exponent": compact.exponent,
            }
        else:
            multipliers, shifts = rescale.multipliers, rescale.shifts
            factors = {
                "multipliers": self._array("int32_t", f"multipliers_{number}", multipliers),
                "shifts": self._array("int8_t", f"shifts_{number}", shifts),
            }
        return {
            "weights": self.stored[name]["weights"],
            "bias": self.stored[name]["bias"],
            **factors,
            "bits": weights.bits,
            "pre_shift": rescale.pre_shift,
            "wide_sums": int(weights.accumulator_bits == 64),
            "input_type": c_type(source),
            "output_type": c_type(output),
            "input_zero": weights.zero_point,
            "output_zero": output.zero_point,
            "low": step.low,
            "high": step.high,
        }

    def _convolution(self, number: int, step: Convolution) -> dict[str, object]:
        channels, height, width = _image(self._in(step).shape)
        outputs, rows, columns = _image(step.output.shape)
        top, left, _, _ = step.padding
        stride, kernel = step.stride, step.weights.codes.shape[2:]
        if (*kernel, *stride, *step.padding) == (1, 1, 1, 1, 0, 0, 0, 0):
            # Pointwise: one long row fills the tiles best.
            height, width, rows, columns = 1, height * width, 1, rows * columns
        geometry = {
            "channels": channels, "height": height, "width": width,
            "outputs": outputs, "output_height": rows, "output_width": columns,
            "kernel_height": kernel[0], "kernel_width": kernel[1],
            "stride_y": stride[0], "stride_x": stride[1], "top": top, "left": left,
            "dilation_y": step.dilation[0], "dilation_x": step.dilation[1],
            "groups": step.groups,
        }  # fmt: skip
        return {"layer": self._layer(number, step), **geometry}

    def _planes(self, step: Step) -> dict[str, object]:
        """The images of a pooling; a one-dimensional one has height 1."""
        source, output = self._in(step).shape, step.output.shape
        size = source[-2:] if len(source) > 2 else (1, source[-1])
        result = output[-2:] if len(output) > 2 else (1, output[-1])
        return {
            "type": c_type(step.output), "planes": prod(source) // prod(size),
            "height": size[0], "width": size[1],
            "output_height": result[0], "output_width": result[1],
        }  # fmt: skip

    def _move(self, number: str, step: Step, box: strides.Box, source: str | None = None) -> None:
        shape, (from_strides, to_strides) = strides.join(
            box.shape, [box.from_strides, box.to_strides]
        )
        fields = {
            "size": element_bytes(step.output), "from_start": box.start, "to_start": box.to_start,
            "dims": len(shape), "shape": shape, "from_strides": from_strides,
            "to_strides": to_strides,
        }  # fmt: skip
        self._struct("mps_movement", number, fields)
        places = (self._at(source or step.sources[0]), self._at(step.output.name))
        self.calls.append(f"    mps_move(&step_{number}, {', '.join(places)});")


def _image(shape: Shape) -> Shape:
    """(channels, height, width) of a sample; [C, W] has height 1."""
    return shape if len(shape) == 3 else (shape[0], 1, shape[1])


def _requantization(step: Requantize, source: IntegerTensor) -> dict[str, object]:
    return {
        "input_type": c_type(source), "output_type": c_type(step.output),
        "count": elements(source), "multiplier": int(step.rescale.multipliers[0]),
        "shift": int(step.rescale.shifts[0]), "output_zero": step.output.zero_point,
        "low": step.low, "high": step.high,
    }  # fmt: skip


def _means(step: Mean, source: IntegerTensor) -> dict[str, object]:
    (kept, kept_strides), (mean, mean_strides) = strides.mean_axes(step, source.shape)
    return {
        "type": c_type(source), "kept_dims": len(kept), "mean_dims": len(mean),
        "kept_shape": kept, "kept_strides": kept_strides,
        "mean_shape": mean, "mean_strides": mean_strides,
    }  # fmt: skip


def _along(source: IntegerTensor, output: IntegerTensor, axis: int) -> dict[str, object]:
    """Softmax and arg-max: the axis between those before and after it."""
    shape = source.shape
    return {
        "input_type": c_type(source), "output_type": c_type(output),
        "outer": prod(shape[:axis]), "length": shape[axis], "inner": prod(shape[axis + 1 :]),
    }  # fmt: skip

"""Every step of an `IntegerGraph` as C: constants, and the call that computes it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod

import numpy as np

from mpsearch.exporters.c import gathering, layouts, norms, pointwise
from mpsearch.exporters.c.constants import Constants, LayerWriter, rounding, struct
from mpsearch.exporters.c.kernels import Kernel, geometry
from mpsearch.exporters.c.layouts import Arrange, Arranged
from mpsearch.exporters.c.packed import PackedTensor, bits_of, in_bytes
from mpsearch.exporters.c.pointwise import along_axis
from mpsearch.exporters.c.storage import Storage, c_type, elements
from mpsearch.exporters.c.summing import Summed, kind_of, layer_of
from mpsearch.integer.fixed_point import power_table
from mpsearch.integer.graph import (
    Add,
    ArgMax,
    AveragePool,
    Clamp,
    Concatenate,
    Convolution,
    Embedding,
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
    TransposedConvolution,
)
from mpsearch.running.streams import c_comment

# Field names that the structs of kernels.h share.
_WINDOW = "kernel_height kernel_width stride_y stride_x".split()
_CONVOLUTIONS = {
    Kernel.PLAIN: "mps_convolve",
    Kernel.PATCHES: "mps_convolve_patches",
    Kernel.DEPTHWISE: "mps_convolve_depthwise",
}
_PRODUCTS = {Kernel.PLAIN: "mps_multiply", Kernel.PATCHES: "mps_multiply_patches"}


_FAMILIES = {**pointwise.WRITERS, **gathering.WRITERS, **norms.WRITERS}


@dataclass
class StepWriter:
    """Constants and calls so far."""

    arranged: Arranged
    storage: Storage
    layers: LayerWriter
    constants: Constants = field(default_factory=Constants)
    calls: list[str] = field(default_factory=list)

    def write(self, number: int, step: Step) -> None:
        """Add one step; its constants are called NAME_number."""
        shape = "x".join(map(str, step.output.shape)) or "scalar"
        layer = layer_of(step)
        name = f" {layer.weights.layer}" if layer else ""
        note = f"{kind_of(step)}{name} -> {step.output.name} [{shape}]"
        self.calls.append(f"    {c_comment(note)}")
        match step:
            case Summed():
                self._layer_call(number, step, step.layer)
            case TransposedConvolution():
                self.constants.struct("mps_convolution", number, self._fields(number, step, step))
                self.call("mps_convolve_transposed", number, step, *self._scratch(step, step))
            case Embedding():
                outputs, inputs = step.weights.codes.shape
                fields = {
                    "layer": self._layer(number, step, step), "rows": elements(self._in(step)),
                    "inputs": inputs, "outputs": outputs,
                    "block": int(len(step.rescale.multipliers) > 1),
                }  # fmt: skip
                self.constants.struct("mps_linear", number, fields)
                self.call("mps_embed", number, step)
            case Convolution() | Linear():
                self._layer_call(number, step, step)
            case Requantize():
                self.constants.struct(
                    "mps_requantization", number, _requantization(step, self._in(step))
                )
                self.call("mps_requantize", number, step)
            case Clamp() | Add():
                fields = {
                    "type": c_type(step.output), "count": elements(step.output),
                    "low": step.low, "high": step.high,
                }  # fmt: skip
                self.constants.struct("mps_elementwise", number, fields)
                self.call("mps_add" if isinstance(step, Add) else "mps_clamp", number, step)
            case MaxPool():
                names = [*_WINDOW, "top", "left", "dilation_y", "dilation_x"]
                values = (*step.kernel, *step.stride, *step.padding, *step.dilation)
                window = dict(zip(names, values, strict=True))
                lowest = {"lowest": self._in(step).low}
                self.constants.struct(
                    "mps_max_pooling", number, self._planes(step) | window | lowest
                )
                self.call("mps_max_pool", number, step)
            case AveragePool():
                self.constants.struct("mps_average_pooling", number, self._averages(number, step))
                self.call("mps_average_pool", number, step)
            case Mean():
                means = _means(step, self._in(step), self._strides(step)[0])
                self.constants.struct("mps_means", number, means | self._scaling(number, step))
                self.call("mps_mean", number, step)
            case Pad() | Concatenate() | Permute() | Slice() | Arrange():
                if isinstance(step, Pad):
                    count, kind = elements(step.output), c_type(step.output)
                    to = self._at(step.output.name)
                    self.calls.append(f"    mps_fill({kind}, {count}, {step.value}, {to});")
                moved = layouts.boxes(self.arranged, step)
                for part, (box, name) in enumerate(moved):
                    label = f"{number}_{part}" if len(moved) > 1 else str(number)
                    self.move(label, step, box, name)
            case Softmax():
                table = self.constants.shared_array(
                    "int32_t", "power_table", np.array(power_table())
                )
                fields = along_axis(self._in(step), step.output, step.axis, step.rescale)
                self.constants.struct("mps_along_axis", number, fields)
                self.call("mps_softmax", number, step, table)
            case ArgMax():
                fields = along_axis(self._in(step), step.output, step.axis)
                self.constants.struct("mps_along_axis", number, fields)
                self.call("mps_argmax", number, step)
            case Reshape():
                self.calls.append("    /* the same bytes */")
            case _:
                _FAMILIES[type(step)](self, number, step)

    def _in(self, step: Step) -> IntegerTensor:
        return self.arranged.tensors[step.sources[0]]

    def _at(self, name: str) -> str:
        return f"arena.bytes + {self.storage.offset(name)}"

    def _strides(self, step: Step) -> tuple[Shape, Shape]:
        """Of the first source and of the output."""
        return self.arranged.strides(step.sources[0]), self.arranged.strides(step.output.name)

    def _scratch(self, step: Step, layer: Convolution | Linear) -> list[str]:
        transposed = isinstance(layer, TransposedConvolution)
        if self.layers.kernel(layer) is Kernel.PLAIN and not transposed:
            return []
        return [f"arena.bytes + {self.storage.scratch(step) or 0}"]

    def _block(self, step: Convolution | Linear) -> int:
        kernel = self.layers.kernel(step)
        return self.layers.family.scratch(step, kernel, self._in(step)).positions

    def call(self, function: str, number: int | str, step: Step, *extra: str) -> None:
        """The call of a kernel: its constants, further arguments, the sources and the output."""
        names = (*step.sources, step.output.name)
        arguments = [f"&step_{number}", *extra, *(self._at(name) for name in names)]
        self.calls.append(f"    {function}({', '.join(arguments)});")

    def _layer_call(self, number: int, step: Step, layer: Convolution | Linear) -> None:
        """The call of a layer; that of a sum also reads the addend."""
        kind, functions = "mps_linear", _PRODUCTS
        if isinstance(layer, Convolution):
            kind, functions = "mps_convolution", _CONVOLUTIONS
        self.constants.struct(kind, number, self._fields(number, step, layer))
        addend = self._at(step.sources[1]) if isinstance(step, Summed) else "NULL"
        arguments = [*self._scratch(step, layer), self._at(step.sources[0]), addend]
        arguments = [f"&step_{number}", *arguments, self._at(step.output.name)]
        self.calls.append(f"    {functions[self.layers.kernel(layer)]}({', '.join(arguments)});")

    def _fields(self, number: int, step: Step, layer: Convolution | Linear) -> dict[str, object]:
        if isinstance(layer, Convolution):
            shapes = asdict(geometry(layer, self._in(step)))
        else:
            outputs, inputs = layer.weights.codes.shape
            rows = elements(layer.output) // outputs
            shapes = {"rows": rows, "inputs": inputs, "outputs": outputs}
        return {"layer": self._layer(number, step, layer), **shapes, "block": self._block(layer)}

    def _layer(self, number: int, step: Step, layer: Convolution | Linear) -> dict[str, object]:
        flattened = self.arranged.flattened.get(step.sources[0])
        fields = self.layers.write(self.constants, number, layer, self._in(step), flattened)
        if isinstance(step, Summed):
            tensors = self.arranged.tensors
            fields["sum"] = f"&sum_{number}"
            self.constants.text.append(struct("mps_sum", f"sum_{number}", _sum(step, tensors)))
        return fields

    def _averages(self, number: int, step: AveragePool) -> dict[str, object]:
        array, planes = self.constants.array, self._planes(step)
        divided = step.scaling is None
        tables = {
            "rows": array("int32_t", f"rows_{number}", np.array(step.rows)),
            "columns": array("int32_t", f"columns_{number}", np.array(step.columns)),
            "counts": array("int32_t", f"counts_{number}", step.counts) if divided else "NULL",
        }
        return {**planes, "type": c_type(self._in(step)), **tables, **self._scaling(number, step)}

    def _scaling(self, number: int, step: AveragePool | Mean) -> dict[str, object]:
        """The fields of a mean that has a factor; of one that has none."""
        by = step.scaling
        output: dict[str, object] = {"output_type": c_type(step.output)}
        if by is None:
            return output
        multipliers, shifts = by.rescale.multipliers, by.rescale.shifts
        factors = {
            "multipliers": self.constants.array("int32_t", f"multipliers_{number}", multipliers),
            "shifts": self.constants.array("int8_t", f"shifts_{number}", shifts),
            "each": int(multipliers.size > 1), "pre_shift": by.rescale.pre_shift,
            "input_zero": by.source_zero, "output_zero": step.output.zero_point,
            "low": by.low, "high": by.high,
        }  # fmt: skip
        return output | {"scaling": factors}

    def _planes(self, step: Step) -> dict[str, object]:
        """The images of a pooling; a one-dimensional one has height 1."""
        source, output = self._in(step).shape, step.output.shape
        size = source[-2:] if len(source) > 2 else (1, source[-1])
        result = output[-2:] if len(output) > 2 else (1, output[-1])
        return {
            "type": c_type(step.output), "channels": prod(source) // prod(size),
            "height": size[0], "width": size[1],
            "output_height": result[0], "output_width": result[1],
        }  # fmt: skip

    def move(
        self, number: str, step: Step, box: layouts.Box, source: str | None = None,
        constant: str | None = None,
    ) -> None:  # fmt: skip
        """A copy from `source`, or the step's first one, or from the array `constant`, between
        strided boxes."""
        size = bits_of(step.output) // 8
        if isinstance(step.output, PackedTensor):
            whole = in_bytes(box, 8 // step.output.stored_bits)
            assert whole is not None  # else it would not be packed
            box, size = whole, 1
        shape, (from_strides, to_strides) = layouts.inner_longest(
            *layouts.join(box.shape, [box.from_strides, box.to_strides])
        )
        fields = {
            "size": size, "from_start": box.start, "to_start": box.to_start,
            "dims": len(shape), "shape": shape, "from_strides": from_strides,
            "to_strides": to_strides,
        }  # fmt: skip
        self.constants.struct("mps_movement", number, fields)
        places = (constant or self._at(source or step.sources[0]), self._at(step.output.name))
        self.calls.append(f"    mps_move(&step_{number}, {', '.join(places)});")


def _sum(step: Summed, tensors: Mapping[str, IntegerTensor]) -> dict[str, object]:
    own, other = step.factors
    return {
        "addend_type": c_type(tensors[step.sources[1]]), "output_type": c_type(step.output),
        "multiplier": own, "other": other, "offset": int(step.sum.offset),
        "raise": step.sum.raised, "shift": step.sum.shift,
        "output_zero": step.output.zero_point, "low": step.sum.low, "high": step.sum.high,
    }  # fmt: skip


def _requantization(step: Requantize, source: IntegerTensor) -> dict[str, object]:
    return {
        "input_type": c_type(source), "output_type": c_type(step.output),
        "count": elements(source), "multiplier": int(step.rescale.multipliers[0]),
        "shift": int(step.rescale.shifts[0]), "input_zero": step.source_zero,
        "output_zero": step.output.zero_point, "low": step.low, "high": step.high,
        **rounding(step.rescale, source.high).fields,
    }  # fmt: skip


def _means(step: Mean, source: IntegerTensor, source_strides: Shape) -> dict[str, object]:
    (kept, kept_strides), (mean, mean_strides) = layouts.mean_axes(
        step, source.shape, source_strides
    )
    return {
        "type": c_type(source), "kept_dims": len(kept), "mean_dims": len(mean),
        "kept_shape": kept, "kept_strides": kept_strides,
        "mean_shape": mean, "mean_strides": mean_strides,
    }  # fmt: skip

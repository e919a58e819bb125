"""Functions by table, sums, products and slopes as C: their tables, factors and strides."""

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from mpsearch.exporters.c.layouts import join, row_major
from mpsearch.exporters.c.storage import c_type, elements
from mpsearch.integer.arithmetic import Affine, Multiply, Prelu
from mpsearch.integer.comparing import Interval
from mpsearch.integer.fixed_point import Integers, Rescale, power_table
from mpsearch.integer.functions import Lookup
from mpsearch.integer.graph import IntegerTensor, Shape, Step
from mpsearch.integer.log_softmax import LogSoftmax, logarithm_table

if TYPE_CHECKING:
    from mpsearch.exporters.c.steps import StepWriter

_OPERANDS = 6  # MPS_OPERANDS in kernels.h


def _lookup(writer: "StepWriter", number: int, step: Lookup) -> None:
    fields = {
        "output_type": c_type(step.output), "count": elements(step.output),
        "table": writer.constants.shared_array("int16_t", f"table_{number}", step.table),
        "segment": step.segment, "fraction": step.fraction, **_ends(step),
    }  # fmt: skip
    writer.constants.struct("mps_lookup", number, fields)
    writer.call("mps_look_up", number, step)


def _interval(writer: "StepWriter", number: int, step: Interval) -> None:
    fields = {
        "input_type": c_type(writer.arranged.tensors[step.sources[0]]),
        "output_type": c_type(step.output), "count": elements(step.output),
        "first": step.first, "last": step.last, "inside": step.inside, "outside": step.outside,
    }  # fmt: skip
    writer.constants.struct("mps_interval", number, fields)
    writer.call("mps_compare", number, step)


def _affine(writer: "StepWriter", number: int, step: Affine) -> None:
    constants = writer.constants
    factors = [
        constants.shared_array("int32_t", f"factors_{number}_{place}", values)
        for place, values in enumerate(step.multipliers)
    ]
    output = step.output.shape
    read = [_source_strides(writer, name, output) for name in step.sources]
    own = [_constant_strides(values, output) for values in step.multipliers]
    strides = [read[0], own[0], _constant_strides(step.offset, output), *read[1:], *own[1:]]
    fields = {
        "grid": _grid(writer, step.output, strides),
        "types": tuple(c_type(writer.arranged.tensors[name]) for name in step.sources),
        "output_type": c_type(step.output),
        "multipliers": (factors[0], factors[1] if len(factors) > 1 else "NULL"),
        "offset": constants.shared_array("int32_t", f"offset_{number}", step.offset),
        "raise": step.raised, "shift": step.shift, **_ends(step),
    }  # fmt: skip
    constants.struct("mps_affine", number, fields)
    writer.call("mps_combine" if len(step.sources) > 1 else "mps_transform", number, step)


def _multiply(writer: "StepWriter", number: int, step: Multiply) -> None:
    strides = [_source_strides(writer, name, step.output.shape) for name in step.sources]
    fields = {
        "grid": _grid(writer, step.output, strides), "output_type": c_type(step.output),
        "multiplier": int(step.rescale.multipliers[0]), "shift": int(step.rescale.shifts[0]),
        **_ends(step),
    }  # fmt: skip
    writer.constants.struct("mps_product", number, fields)
    writer.call("mps_times", number, step)


def _prelu(writer: "StepWriter", number: int, step: Prelu) -> None:
    output = step.output.shape
    strides = [
        _source_strides(writer, step.sources[0], output),
        _constant_strides(step.negative, output),
    ]
    fields = {
        "grid": _grid(writer, step.output, strides), "output_type": c_type(step.output),
        "positive": step.positive, "shift": step.shift,
        "negative": writer.constants.shared_array("int32_t", f"slopes_{number}", step.negative),
        **_ends(step),
    }  # fmt: skip
    writer.constants.struct("mps_slopes", number, fields)
    writer.call("mps_prelu", number, step)


def _log_softmax(writer: "StepWriter", number: int, step: LogSoftmax) -> None:
    constants, source = writer.constants, writer.arranged.tensors[step.sources[0]]
    tables = [
        constants.shared_array("int32_t", "power_table", np.array(power_table())),
        constants.shared_array("int32_t", "logarithm_table", np.array(logarithm_table())),
    ]
    fields = {
        "axis": along_axis(source, step.output, step.axis, step.to_log2),
        "multiplier": int(step.from_log2.multipliers[0]), "shift": int(step.from_log2.shifts[0]),
        **_ends(step),
    }  # fmt: skip
    constants.struct("mps_log_along_axis", number, fields)
    writer.call("mps_log_softmax", number, step, *tables)


def along_axis(
    source: IntegerTensor, output: IntegerTensor, axis: int, to_log2: Rescale | None = None
) -> dict[str, object]:
    """Softmax and arg-max: the axis between those before and after it."""
    shape = source.shape
    factor = {}
    if to_log2 is not None:
        factor = {"multiplier": int(to_log2.multipliers[0]), "shift": int(to_log2.shifts[0])}
    return {
        "input_type": c_type(source), "output_type": c_type(output),
        "outer": prod(shape[:axis]), "length": shape[axis], "inner": prod(shape[axis + 1 :]),
        **factor,
    }  # fmt: skip


def _ends(step: Lookup | Affine | Multiply | Prelu | LogSoftmax) -> dict[str, object]:
    return {"output_zero": step.output.zero_point, "low": step.low, "high": step.high}


def _grid(writer: "StepWriter", output: IntegerTensor, operands: list[Shape]) -> dict[str, object]:
    """The axes in the order in which the output lies in memory; neighbours are joined."""
    to = writer.arranged.strides(output.name)
    axes = sorted(range(len(to)), key=lambda axis: -to[axis])
    shape, strides = join(
        tuple(output.shape[axis] for axis in axes),
        [tuple(given[axis] for axis in axes) for given in (to, *operands)],
    )
    unused = [(0,) * len(shape)] * (_OPERANDS - len(strides))
    return {"dims": len(shape), "shape": shape, "strides": (*strides, *unused)}


def _source_strides(writer: "StepWriter", name: str, output: Shape) -> Shape:
    shape = writer.arranged.tensors[name].shape
    return _repeated(shape, writer.arranged.strides(name), output)


def _constant_strides(values: Integers, output: Shape) -> Shape:
    if values.ndim == 0:
        return (0,) * len(output)
    return _repeated(values.shape, row_major(values.shape), output)


def _repeated(shape: Shape, strides: Shape, output: Shape) -> Shape:
    """Strides of 0 along the axes that an array is repeated on."""
    return tuple(
        0 if length == 1 and wanted > 1 else stride
        for length, stride, wanted in zip(shape, strides, output, strict=True)
    )


WRITERS: dict[type[Step], Callable[["StepWriter", int, Any], None]] = {
    Lookup: _lookup,
    Interval: _interval,
    Affine: _affine,
    Multiply: _multiply,
    Prelu: _prelu,
    LogSoftmax: _log_softmax,
}

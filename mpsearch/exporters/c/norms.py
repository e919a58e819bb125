"""Norms, products of two activations and constants beside tensors as C."""

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

from mpsearch.exporters.c.layouts import Box, row_major
from mpsearch.exporters.c.storage import c_type, elements
from mpsearch.integer.beside import Beside
from mpsearch.integer.graph import Step
from mpsearch.integer.norms import Normalize
from mpsearch.integer.products import MatMul

if TYPE_CHECKING:
    from mpsearch.exporters.c.steps import StepWriter


def _normalize(writer: "StepWriter", number: int, step: Normalize) -> None:
    constants = writer.constants
    fields = {
        "input_type": c_type(writer.arranged.tensors[step.sources[0]]),
        "output_type": c_type(step.output),
        "rows": elements(step.output) // step.length, "length": step.length,
        "channels": len(step.multipliers), "inner": step.inner, "centred": int(step.centred),
        "added": f"INT64_C({step.added})",
        "multipliers": constants.array("int32_t", f"multipliers_{number}", step.multipliers),
        "offsets": constants.array("int32_t", f"offsets_{number}", step.offsets),
        "raised": step.raised, "shift": step.shift, "output_zero": step.output.zero_point,
        "low": step.low, "high": step.high,
    }  # fmt: skip
    constants.struct("mps_normalization", number, fields)
    writer.call("mps_normalize", number, step)


def _matrix_product(writer: "StepWriter", number: int, step: MatMul) -> None:
    left, right = (writer.arranged.tensors[name] for name in step.sources)
    rows, terms = left.shape[-2:]
    fields = {
        "left_type": c_type(left), "right_type": c_type(right), "output_type": c_type(step.output),
        "matrices": prod(left.shape[:-2]), "rows": rows, "terms": terms,
        "columns": right.shape[-1], "left_zero": step.zero_points[0],
        "right_zero": step.zero_points[1], "multiplier": int(step.rescale.multipliers[0]),
        "shift": int(step.rescale.shifts[0]), "pre_shift": step.rescale.pre_shift,
        "output_zero": step.output.zero_point, "low": step.low, "high": step.high,
    }  # fmt: skip
    writer.constants.struct("mps_matrix_product", number, fields)
    writer.call("mps_multiply_matrices", number, step)


def _beside(writer: "StepWriter", number: int, step: Beside) -> None:
    """A move for every part, constants from arrays of their own."""
    names = iter(step.sources)
    to = writer.arranged.strides(step.output.name)
    at = 0
    for place, part in enumerate(step.parts):
        name = None if part is not None else next(names)
        shape = part.shape if part is not None else writer.arranged.tensors[str(name)].shape
        strides = row_major(shape) if name is None else writer.arranged.strides(name)
        box = Box(shape, 0, strides, at * to[step.axis], to)
        label = f"{number}_{place}"
        if part is not None:
            kind = f"{part.dtype}_t"
            source = writer.constants.array(kind, f"part_{label}", part)
        writer.move(label, step, box, name, None if part is None else source)
        at += shape[step.axis]


WRITERS: dict[type[Step], Callable[["StepWriter", int, Any], None]] = {
    Normalize: _normalize,
    MatMul: _matrix_product,
    Beside: _beside,
}

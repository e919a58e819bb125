"""Rearrangements in C: copies between strided boxes where that says it, else tables per axis.

Upsampling by straight lines: a table per axis too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.exporters.c.layouts import DIMS, Box, row_major, stored_offsets
from mpsearch.exporters.c.packed import bits_of
from mpsearch.exporters.c.storage import c_type, elements
from mpsearch.integer.gathering import Digits, Fill, Gather, digits_of
from mpsearch.integer.graph import Shape, Step
from mpsearch.integer.resizing import Resize

if TYPE_CHECKING:
    from mpsearch.exporters.c.steps import StepWriter


@dataclass(frozen=True)
class Tables:
    """One table of source offsets per axis of `shape`; `run` elements lie side by side on both
    sides after that."""

    start: int
    shape: Shape
    to_strides: Shape
    offsets: tuple[tuple[int, ...], ...]
    run: int


def gathered(step: Gather, source: Shape, strides: Shape, to: Shape) -> Box | Tables:
    """How to copy from a source with these strides to an output with strides `to`."""
    found = stored_offsets(step, source, strides)
    assert found is not None  # the plan of layouts asked for an order that has tables
    start, offsets = found
    digits = [digits_of(table) for table in offsets]
    if all(found is not None for found in digits):
        box = _box(step.output.shape, start, [d for d in digits if d is not None], to)
        if len(box.shape) <= DIMS:
            return box
    return _tables(step.output.shape, start, offsets, to)


def _box(shape: Shape, start: int, digits: Sequence[Digits], to: Shape) -> Box:
    lengths, from_strides, to_strides = [], [], []
    for found, stride in zip(digits, to, strict=True):
        for place, (length, step) in enumerate(found):
            lengths.append(length)
            from_strides.append(step)
            to_strides.append(stride * prod(n for n, _ in found[place + 1 :]))
    # tables count from their smallest offset on: where a stride is negative the first is another
    first = start + sum(-(n - 1) * s for n, s in zip(lengths, from_strides, strict=True) if s < 0)
    if not lengths:
        lengths, from_strides, to_strides = [1], [1], [1]
    return Box(tuple(lengths), first, tuple(from_strides), 0, tuple(to_strides))


def _tables(shape: Shape, start: int, offsets: tuple[tuple[int, ...], ...], to: Shape) -> Tables:
    """The innermost axis is a run where it is one on both sides."""
    axes = [axis for axis, length in enumerate(shape) if length > 1]
    axes.sort(key=lambda axis: -to[axis])
    run = 1
    while (
        axes
        and to[axes[-1]] == run
        and offsets[axes[-1]] == tuple(i * run for i in range(shape[axes[-1]]))
    ):
        run *= shape[axes.pop()]
    if len(axes) > DIMS:
        raise InputError(
            f"a tensor of shape {'x'.join(map(str, shape))} is gathered along {len(axes)} axes; "
            f"the C export has {DIMS} at most"
        )
    return Tables(
        start, tuple(shape[axis] for axis in axes), tuple(to[axis] for axis in axes),
        tuple(offsets[axis] for axis in axes), run,
    )  # fmt: skip


def _gather(writer: "StepWriter", number: int, step: Gather) -> None:
    arranged = writer.arranged
    (name,) = step.sources
    found = gathered(
        step,
        arranged.tensors[name].shape,
        arranged.strides(name),
        arranged.strides(step.output.name),
    )
    if isinstance(found, Box):
        writer.move(str(number), step, found)
        return
    offsets = np.array([offset for table in found.offsets for offset in table])
    fields = {
        "size": bits_of(step.output) // 8, "run": found.run, "start": found.start,
        "dims": len(found.shape), "shape": found.shape, "to_strides": found.to_strides,
        "offsets": writer.constants.shared_array("int32_t", f"offsets_{number}", offsets),
    }  # fmt: skip
    writer.constants.struct("mps_gathering", number, fields)
    writer.call("mps_gather", number, step)


def _fill(writer: "StepWriter", number: int, step: Fill) -> None:
    output = step.output
    if step.codes.size > 1:
        array = writer.constants.array(f"{step.codes.dtype}_t", f"stored_{number}", step.codes)
        to = writer.arranged.strides(output.name)
        box = Box(output.shape, 0, row_major(output.shape), 0, to)
        writer.move(str(number), step, box, constant=array)
        return
    place = f"arena.bytes + {writer.storage.offset(output.name)}"
    writer.calls.append(
        f"    mps_fill({c_type(output)}, {elements(output)}, {int(step.codes.item())}, {place});"
    )


def _resize(writer: "StepWriter", number: int, step: Resize) -> None:
    size = writer.arranged.tensors[step.sources[0]].shape
    taps = [
        writer.constants.shared_array("int32_t", f"{name}_{number}", np.array(values))
        for name, values in (("rows", step.rows), ("columns", step.columns))
    ]
    fields = {
        "type": c_type(step.output), "channels": size[0], "width": size[-1],
        "output_height": len(step.rows), "output_width": len(step.columns),
        "rows": taps[0], "columns": taps[1],
    }  # fmt: skip
    writer.constants.struct("mps_resizing", number, fields)
    writer.call("mps_resize", number, step)


WRITERS: Mapping[type[Step], Callable[["StepWriter", int, Any], None]] = {
    Fill: _fill,
    Gather: _gather,
    Resize: _resize,
}

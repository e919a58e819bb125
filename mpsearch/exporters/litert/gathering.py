"""Rearrangements as LiteRT operators: transposed digits, one GATHER per axis, or one for all.

Whatever is found is first run in numpy and compared with the step's own map.
"""

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from mpsearch.exporters.litert.layouts import FIRST, LAST, Tensors, stored_axis, stored_shape
from mpsearch.integer.gathering import Gather, digits_of
from mpsearch.integer.graph import Shape

Between = Callable[[str, Sequence[int]], int]
_MOST_AXES = 6  # of LiteRT's TRANSPOSE


def gather(tensors: Tensors, step: Gather) -> None:
    """The operators of one step on int8, in the layout in which its source is, if that works."""
    (name,) = step.sources
    quantizer, shape = tensors.quantizers[name], tensors.shapes[name]
    lists = _per_axis(step, shape)
    by_axis = lists is not None and len(shape) == len(step.output.shape) and len(shape) in (2, 3)
    layout = tensors.layout(name) if by_axis else FIRST
    repeats = _repeats(lists, shape) if by_axis and len(shape) == 3 else None
    if repeats is not None:
        layout = LAST
    source = tensors.read(name, layout)
    target = tensors.new(step.output.name, step.output.shape, quantizer, layout)
    if repeats is not None:
        size = tensors.indices(stored_shape(step.output.shape, LAST)[1:3])
        tensors.file.operator(
            "RESIZE_NEAREST_NEIGHBOR", 2, [source, size], [target], "ResizeNearestNeighborOptions"
        )
        return

    def between(part: str, stored: Sequence[int]) -> int:
        return tensors.scratch(f"{step.output.name} {part}", stored, quantizer)

    write_gather(tensors, step, shape, source, target, layout, between)


def write_gather(
    tensors: Tensors, step: Gather, shape: Shape, source: int, target: int, layout: str,
    between: Between,
) -> None:  # fmt: skip
    """The operators from `source` to `target`; `between` makes the tensors in between."""
    output = stored_shape(step.output.shape, layout)
    turned = _transposed(step, shape)
    if turned is not None and layout == FIRST:
        lengths, axes = turned
        wide, moved = between("digits", lengths), between("turned", [lengths[a] for a in axes])
        tensors.reshape(source, wide, lengths)
        tensors.transpose(wide, moved, axes)
        tensors.reshape(moved, target, output)
        return
    lists = _per_axis(step, shape)
    if lists is None:
        flat = between("flat", (prod(shape),))
        tensors.reshape(source, flat, (prod(shape),))
        _gather(tensors, flat, target, step.indices[None], 0)
        return
    taken = [axis for axis, places in enumerate(lists) if places != list(range(shape[axis]))]
    stored = list(stored_shape(shape, layout))
    for axis in taken:
        place = stored_axis(axis, len(shape), layout)
        stored[place] = len(lists[axis])
        last = axis == taken[-1] and tuple(stored) == tuple(output)
        result = target if last else between(f"axis {axis}", tuple(stored))
        _gather(tensors, source, result, np.array(lists[axis]), place)
        source = result
    if source != target:
        tensors.reshape(source, target, output)


def _gather(tensors: Tensors, source: int, target: int, places: np.ndarray, axis: int) -> None:
    indices = tensors.indices(places.reshape(-1).tolist(), places.shape)
    tensors.file.operator(
        "GATHER", 2, [source, indices], [target], "GatherOptions", axis=axis, batchDims=0
    )


def _transposed(step: Gather, shape: Shape) -> tuple[list[int], list[int]] | None:
    """(lengths, axes): the source in this shape, its axes in this order, is the output."""
    loops = [digits_of(table) for table in step.offsets]
    if step.start or any(found is None for found in loops):
        return None
    digits = [digit for found in loops if found is not None for digit in found]
    order = sorted(range(len(digits)), key=lambda i: -digits[i][1])
    lengths = [digits[i][0] for i in order]
    whole = all(
        digits[i][1] == prod(lengths[place + 1 :]) for place, i in enumerate(order)
    ) and prod(lengths) == prod(shape)
    if not whole or len(lengths) > _MOST_AXES:
        return None
    return lengths, [order.index(i) for i in range(len(digits))]


def _per_axis(step: Gather, shape: Shape) -> list[list[int]] | None:
    """The indices to take along every axis of the source, one axis after the other."""
    first = np.unravel_index(step.start, shape)
    lists = [[int(place)] for place in first]
    left = list(range(len(shape)))
    for table in step.offsets:
        places = np.stack(np.unravel_index(step.start + np.array(table), shape))
        moving = [axis for axis in left if len(set(places[axis].tolist())) > 1]
        if not moving:
            moving = [axis for axis in left if shape[axis] == 1 and len(table) > 1]
        if moving:
            lists[moving[0]] = places[moving[0]].tolist()
            left = [axis for axis in left if axis > moving[0]]
    taken = np.arange(prod(shape)).reshape(shape)
    for axis, places_of_axis in enumerate(lists):
        taken = np.take(taken, places_of_axis, axis=axis)
    same = taken.size == step.indices.size and np.array_equal(
        taken.reshape(step.output.shape), step.indices
    )
    return lists if same else None


def _repeats(lists: list[list[int]] | None, shape: Shape) -> tuple[int, int] | None:
    """How often rows and columns are repeated, where nothing else happens."""
    if lists is None or lists[0] != list(range(shape[0])):
        return None
    rows, columns = (len(places) // n for places, n in zip(lists[1:], shape[1:], strict=True))
    if (rows, columns) == (1, 1) or not (rows and columns):
        return None
    for places, n, often in zip(lists[1:], shape[1:], (rows, columns), strict=True):
        if places != [i // often for i in range(n * often)]:
            return None
    return rows, columns

"""Operators that move values without computing: shapes, slices, padding, tiling.

Operators that look values up: embedding tables, selections, scattered updates.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mpsearch.errors import InputError
from mpsearch.importers.onnx.calls import (
    Call,
    Result,
    Size,
    as_type,
    axis_of,
    check_elements,
    is_symbolic,
    sizes_array,
    sizes_of,
)

OPEN = 1 << 24  # an end or start that no batch reaches
_PAD_MODES = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _reshape(call: Call) -> Result:
    x = call.tensor(0)
    if call.rewritten is not None:
        return x.reshape(call.rewritten)
    target = call.sizes(1)
    if not call.attribute("allowzero", 0):
        target = [
            x.shape[i] if isinstance(size, int) and size == 0 else size
            for i, size in enumerate(target)
        ]
    return x.reshape(target)


def _flatten(call: Call) -> Result:
    x, axis = call.tensor(0), call.attribute("axis", 1)
    axis = axis % x.dim() if axis < 0 else axis
    if axis == 1 and x.dim() > 1:
        return x.flatten(1)
    rows: Size = 1
    for size in sizes_of(x)[:axis]:
        rows = rows * size
    return x.reshape([rows, -1] if axis else [1, -1])


def _transpose(call: Call) -> Result:
    x = call.tensor(0)
    return x.permute(call.attribute("perm", list(range(x.dim()))[::-1]))


def _squeeze(call: Call) -> Result:
    x, axes = call.tensor(0), call.axes(1)
    if axes is None:  # the first dimension is the batch, also where it is one in this file
        axes = [
            i for i, size in enumerate(sizes_of(x)) if i and isinstance(size, int) and size == 1
        ]
    for axis in sorted((axis_of(axis, x.dim()) for axis in axes), reverse=True):
        if isinstance(x.shape[axis], int) and x.shape[axis] != 1:
            raise InputError(f"cannot squeeze axis {axis} of shape {tuple(x.shape)}")
        x = x.squeeze(axis)
    return x


def _unsqueeze(call: Call) -> Result:
    x, axes = call.tensor(0), call.axes(1) or []
    for axis in sorted(axis_of(axis, x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _expand(call: Call) -> Result:
    """Broadcasts both ways: a target of 1 keeps the tensor's size."""
    x = call.tensor(0)
    target = list(call.rewritten) if call.rewritten is not None else call.sizes(1)
    own = sizes_of(x)
    rank = max(len(own), len(target))
    ones: list[Size] = [1]
    own, target = ones * (rank - len(own)) + own, ones * (rank - len(target)) + target
    wanted = [o if isinstance(t, int) and t == 1 else t for o, t in zip(own, target, strict=True)]
    check_elements(wanted)
    return x.expand(wanted)


def _tile(call: Call) -> Result:
    x, repeats = call.tensor(0), call.sizes(1)
    return x.repeat(repeats)


def _concat(call: Call) -> Result:
    parts = [call.tensor(index) for index in range(len(call)) if call.has(index)]
    axis = axis_of(call.attribute("axis", 0), parts[0].dim())
    return torch.cat(_with_batch(parts, axis), axis)


def _with_batch(parts: list[torch.Tensor], axis: int) -> list[torch.Tensor]:
    """A class token that was exported for one sample is repeated for every sample."""
    sizes = [part.shape[0] for part in parts]
    batch = next((size for size in sizes if not isinstance(size, int) or size > 1), None)
    if axis == 0 or batch is None:
        return parts
    return [
        part.expand(batch, *part.shape[1:])
        if isinstance(part.shape[0], int) and part.shape[0] == 1
        else part
        for part in parts
    ]


def _split(call: Call) -> Result:
    x = call.tensor(0)
    axis = axis_of(call.attribute("axis", 0), x.dim())
    sizes = call.step.attributes.get("split")
    if sizes is None and call.has(1):
        sizes = [int(size) for size in call.sizes(1)]
    if sizes is None:
        count = call.attribute("num_outputs", len(call.step.outputs))
        each = math.ceil(int(x.shape[axis]) / count)
        sizes = [each] * (count - 1) + [int(x.shape[axis]) - each * (count - 1)]
    return tuple(torch.split(x, list(sizes), axis))


def _slice(call: Call) -> Result:
    x = call.tensor(0)
    for axis, start, end, step in slices_of(call, x.dim()):
        if isinstance(x.shape[axis], torch.SymInt):  # the batch
            if step < 0:
                raise InputError(
                    f"it goes backwards along axis {axis}, which holds the samples; expected a "
                    "step of 1 there"
                )
            start, end = (None if _is_open(position) else position for position in (start, end))
        elif step > 0 and isinstance(start, int) and isinstance(end, int):
            start, end, _ = slice(start, end).indices(int(x.shape[axis]))
        else:
            # from `start` down to before `end`: the same positions upwards in the flipped tensor
            size = int(x.shape[axis])
            first, last = _clamped(start, size), _clamped(end, size)
            x = x.flip(axis)
            start, end, step = size - 1 - first, size - 1 - last, -step
        x = x[(*[slice(None)] * axis, slice(start, end, step))]
    return x


def _is_open(position: Any) -> bool:
    """Converters write the end of a dimension of any size as one of the largest integers, or 1e9.

    The end of the dimension itself, written as its size, is none.
    """
    return isinstance(position, int) and abs(position) >= OPEN


def _clamped(position: Any, size: int) -> int:
    found = int(position) + (size if position < 0 else 0)
    return max(-1, min(size - 1, found))


def slices_of(call: Call, rank: int) -> list[tuple[int, Any, Any, int]]:
    """(axis, start, end, step): attributes before opset 10 and inputs since."""
    starts: list[Any]
    if "starts" in call.step.attributes:
        starts, ends = call.step.attributes["starts"], call.step.attributes["ends"]
        axes = call.attribute("axes", list(range(len(starts))))
        steps = [1] * len(starts)
    else:
        starts, ends = call.sizes(1), call.sizes(2)
        axes = [int(a) for a in call.sizes(3)] if call.has(3) else list(range(len(starts)))
        steps = [int(s) for s in call.sizes(4)] if call.has(4) else [1] * len(starts)
    if 0 in steps:
        raise InputError("got a step of 0")
    return [
        (axis_of(axis, rank), start, end, step)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    ]


def _pad(call: Call) -> Result:
    x, mode = call.tensor(0), call.attribute("mode", "constant")
    pads = call.step.attributes.get("pads")
    amounts = [int(p) for p in (pads if pads is not None else call.sizes(1))]
    axes = [axis_of(int(a), x.dim()) for a in call.sizes(3)] if call.has(3) else range(x.dim())
    begin, end = [0] * x.dim(), [0] * x.dim()
    half = len(amounts) // 2
    for axis, before, after in zip(axes, amounts[:half], amounts[half:], strict=True):
        begin[axis], end[axis] = before, after
    flat = _innermost_first(begin, end)
    if mode == "constant":
        value = call.attribute("value", 0.0)
        if call.has(2):
            value = call.host(2).reshape(-1)[0].item()
        return F.pad(x, flat, "constant", value)
    if mode not in _PAD_MODES:
        raise InputError(f"got mode {mode!r}; expected constant, {', '.join(_PAD_MODES)}")
    while len(flat) > 2 and not any(flat[-2:]):
        flat = flat[:-2]
    if not 1 <= x.dim() - len(flat) // 2 <= 2 or x.dim() > 5:
        flat = flat + [0, 0] * (x.dim() - 2 - len(flat) // 2)
    return F.pad(x, flat, _PAD_MODES[mode])


def _innermost_first(begin: Sequence[int], end: Sequence[int]) -> list[int]:
    flat: list[int] = []
    for before, after in zip(reversed(begin), reversed(end), strict=True):
        flat += [before, after]
    while flat and not any(flat[-2:]):
        flat = flat[:-2]
    return flat or [0, 0]


def _depth_to_space(call: Call) -> Result:
    x, block = call.tensor(0), call.attribute("blocksize", 1)
    if call.attribute("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    batch, channels, height, width = sizes_of(x)
    apart = x.reshape(batch, block, block, channels // block**2, height, width)
    joined = apart.permute(0, 3, 4, 1, 5, 2)
    return joined.reshape(batch, channels // block**2, height * block, width * block)


def _space_to_depth(call: Call) -> Result:
    x, block = call.tensor(0), call.attribute("blocksize", 1)
    if call.attribute("mode", "DCR") == "CRD":
        return F.pixel_unshuffle(x, block)
    batch, channels, height, width = sizes_of(x)
    apart = x.reshape(batch, channels, height // block, block, width // block, block)
    joined = apart.permute(0, 3, 5, 1, 2, 4)
    return joined.reshape(batch, channels * block**2, height // block, width // block)


def _shape(call: Call) -> Result:
    x = call.tensor(0)
    return sizes_array(sizes_of(x)[call.attribute("start", 0) : call.attribute("end", x.dim())])


def _size(call: Call) -> Result:
    count: Size = 1
    for size in sizes_of(call.tensor(0)):
        count = count * size
    return sizes_array([count]).reshape(())


def _constant_of_shape(call: Call) -> Result:
    sizes = call.sizes(0)
    check_elements(sizes)
    value = call.attribute("value", np.zeros(1, dtype=np.float32)).reshape(-1)[0]
    if not is_symbolic(call.host(0)):
        return np.full([int(size) for size in sizes], value)
    kind = torch.from_numpy(np.array([value])).dtype
    return torch.full(sizes, value.item(), dtype=kind)


def _range(call: Call) -> Result:
    bounds = [call.host(index).reshape(-1)[0] for index in range(3)]
    if any(isinstance(bound, torch.SymInt) for bound in bounds):
        return torch.arange(*bounds)
    check_elements([max(0, math.ceil((bounds[1] - bounds[0]) / bounds[2]))])
    return np.arange(*bounds)


def _trilu(call: Call) -> Result:
    offset = int(call.sizes(1)[0]) if call.has(1) else 0
    function = torch.triu if call.attribute("upper", 1) else torch.tril
    return function(call.tensor(0), offset)


ARRANGING: dict[str, Callable[[Call], Result]] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "TransposeLast": lambda call: call.tensor(0).transpose(-1, -2),  # of a fused product
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Tile": _tile,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Shape": _shape,
    "Size": _size,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Trilu": _trilu,
}


def _gather(call: Call) -> Result:
    """Rows of a constant table are an embedding; a constant position is a selection."""
    axis = call.attribute("axis", 0)
    where = call.values[1]
    if isinstance(where, torch.Tensor) and axis == 0 and call.is_constant(0):
        table = call.host(0)
        if table.ndim == 2 and table.dtype.kind == "f":
            return F.embedding(as_type(where, torch.int64), call.weight(0, "weight"))
    x = call.tensor(0)
    axis = axis_of(axis, x.dim())
    if isinstance(where, np.ndarray) and not is_symbolic(where):
        if where.ndim == 0:
            return x.select(axis, int(where))
        if where.ndim == 1:
            size = x.shape[axis]
            rows = np.where(where < 0, where + size, where) if isinstance(size, int) else where
            return x.index_select(axis, call.derived("rows", lambda: rows.astype(np.int64)))
    # an index behind `axis` whole dimensions
    before: list[slice | torch.Tensor] = [slice(None)] * axis
    return x[(*before, as_type(call.tensor(1), torch.int64))]


def _gather_elements(call: Call) -> Result:
    x, axis, where = call.tensor(0), call.attribute("axis", 0), call.tensor(1)
    size = x.shape[axis]
    return torch.gather(x, axis, as_type(torch.where(where < 0, where + size, where), torch.int64))


def _gather_nd(call: Call) -> Result:
    x, where = call.tensor(0), as_type(call.tensor(1), torch.int64)
    if call.attribute("batch_dims", 0):
        raise InputError("got batch_dims; expected 0")
    return x[tuple(where.unbind(-1))]


def _scatter_elements(call: Call) -> Result:
    x, where, updates = call.tensor(0), call.tensor(1), call.tensor(2)
    axis = call.attribute("axis", 0)
    if call.attribute("reduction", "none") != "none":
        raise InputError("got a reduction; expected none")
    size = x.shape[axis]
    where = as_type(torch.where(where < 0, where + size, where), torch.int64)
    return torch.scatter(x, axis, where, updates)


def _one_hot(call: Call) -> Result:
    where, depth = call.tensor(0), int(call.sizes(1)[0])
    off, on = (float(value) for value in call.host(2).reshape(-1))
    axis = axis_of(call.attribute("axis", -1), where.dim() + 1)
    where = torch.where(where < 0, where + depth, where).unsqueeze(axis)
    shape = [1] * where.dim()
    shape[axis] = depth
    check_elements(shape)
    classes = call.derived("classes", lambda: np.arange(depth).reshape(shape))
    return torch.where(where == classes, on, off)


GATHERING: dict[str, Callable[[Call], Result]] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "OneHot": _one_hot,
}

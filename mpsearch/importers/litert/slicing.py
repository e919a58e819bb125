"""Operators that take a part of a tensor: slices with LiteRT's masks, splits, positions."""

from collections.abc import Callable

from mpsearch.errors import InputError
from mpsearch.importers.litert.elementwise import axis_in, unary
from mpsearch.importers.litert.node import Node
from mpsearch.importers.litert.translation import FIRST, LAST

_END = 2**31 - 1


def _split(node: Node) -> None:
    """SPLIT has the axis and the input, SPLIT_V the input, sizes and the axis."""
    several = node.operator.name == "SPLIT_V"
    index, (axis,) = (0, node.integers(2, 1)) if several else (1, node.integers(0, 1))
    name, layout = unary(node, index)
    count = len(node.operator.outputs)
    sizes = node.integers(1, count) if several else None
    size = node.shape(index)[axis_in(node, axis, LAST, index)]
    if sizes is None:
        if count == 0 or size % count:
            raise InputError(f"it splits {size} into {count} equal parts")
        sizes = [size // count] * count
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = size - sum(sizes) - 1
    names = [node.translation.written(number, layout) for number in node.operator.outputs]
    node.translation.step(
        "Split", [name, node.sizes("sizes", sizes)], names, axis=axis_in(node, axis, layout, index)
    )


Range = tuple[int, int, int]  # start, end, step, as in Python
_WHOLE: Range = (0, _END, 1)


def _cut(node: Node, ranges: list[Range]) -> tuple[list[str], str]:
    """The inputs of a Slice of the axes that are not taken whole, and the layout; only the tensor
    where all are."""
    name, layout = unary(node)
    cut = {axis: r for axis, r in enumerate(ranges) if not _is_whole(r, node.shape(0)[axis])}
    if not cut:
        return [name], layout
    starts, ends, steps = (
        node.sizes(label, [r[place] for r in cut.values()])
        for place, label in enumerate(("starts", "ends", "steps"))
    )
    axes = node.sizes("axes", [axis_in(node, axis, layout) for axis in cut])
    return [name, starts, ends, axes, steps], layout


def _is_whole(r: Range, size: int) -> bool:
    start, end, step = r
    return step == 1 and (start == 0 or start <= -size) and end >= size


def _slice(node: Node) -> None:
    rank = len(node.shape(0))
    begin, sizes = node.integers(1, rank), node.integers(2, rank)
    ends = [_END if size == -1 else b + size for b, size in zip(begin, sizes, strict=True)]
    inputs, layout = _cut(node, [(b, e, 1) for b, e in zip(begin, ends, strict=True)])
    node.write("Slice" if len(inputs) > 1 else "Identity", inputs, layout)


def _strided_slice(node: Node) -> None:
    """numpy's x[a:b:c, i, …, None]: axes go and come where the masks say so."""
    if node.option("offset", False):
        raise InputError("its ends count from its begins; expected positions")
    ranges, target = _ranges(node)
    inputs, layout = _cut(node, ranges)
    if target is None:
        node.write("Slice" if len(inputs) > 1 else "Identity", inputs, layout)
        return
    if layout == FIRST:
        inputs[0] = node.plain(0)
        if len(inputs) > 1:
            cut = [a for a, r in enumerate(ranges) if not _is_whole(r, node.shape(0)[a])]
            inputs[3] = node.sizes("plain axes", cut)
    inner = node.emit("Slice", *inputs) if len(inputs) > 1 else inputs[0]
    if not target:  # one size of a shape
        node.write("Squeeze", [inner, node.sizes("axis", [0])])
    else:
        node.reshape(inner, target)


def _ranges(node: Node) -> tuple[list[Range], list[int] | None]:
    """The range of every axis, and the shape afterwards where axes go or come."""
    begin = node.integers(1)
    ends, steps = node.integers(2, len(begin)), node.integers(3, len(begin))
    masks = {
        name: int(node.option(f"{name}Mask"))
        for name in ("begin", "end", "shrinkAxis", "newAxis", "ellipsis")
    }
    shape = node.shape(0)
    found: list[Range] = []
    target: list[int] = []
    moved = False
    for place, (start, end, step) in enumerate(zip(begin, ends, steps, strict=True)):
        is_set = {name: bool(mask >> place & 1) for name, mask in masks.items()}
        if is_set["newAxis"] and not is_set["ellipsis"]:
            moved = True
            target.append(1)
            continue
        ranges = [_WHOLE]
        if is_set["ellipsis"]:
            later = sum(not masks["newAxis"] >> p & 1 for p in range(place + 1, len(begin)))
            ranges *= max(0, len(shape) - len(found) - later)
        elif is_set["shrinkAxis"]:
            moved = True
            found.append((start, start + 1 if start != -1 else _END, 1))
            continue
        elif step == 0:
            raise InputError("got a stride of 0")
        else:
            lowest, highest = (0, _END) if step > 0 else (_END, -_END)
            bounds = lowest if is_set["begin"] else start, highest if is_set["end"] else end
            ranges = [(*bounds, step)]
        target += [_length(r, shape, len(found) + i) for i, r in enumerate(ranges)]
        found += ranges
    if len(found) > len(shape):
        raise InputError(f"it slices {len(found)} of {len(shape)} axes")
    target += shape[len(found) :]
    return found + [_WHOLE] * (len(shape) - len(found)), target if moved else None


def _length(r: Range, shape: tuple[int, ...], axis: int) -> int:
    return len(range(*slice(*r).indices(shape[axis]))) if axis < len(shape) else 1


def _reverse(node: Node) -> None:
    rank = len(node.shape(0))
    axes = [axis % rank for axis in node.integers(1)]
    parts = [[-1] * len(axes), [-_END] * len(axes), axes, [-1] * len(axes)]
    names = [node.sizes(f"reversed {place}", part) for place, part in enumerate(parts)]
    node.write("Slice", [node.plain(0), *names])


def _gather_nd(node: Node) -> None:
    node.write("GatherND", [node.plain(0), node.plain(1)])


SLICING: dict[str, Callable[[Node], None]] = {
    "SPLIT": _split,
    "SPLIT_V": _split,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "REVERSE_V2": _reverse,
    "GATHER_ND": _gather_nd,
}

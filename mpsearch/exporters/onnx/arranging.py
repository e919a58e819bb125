"""What only orders values: shapes, axes, joining, splitting, repeating, padding."""

import torch

from mpsearch.exporters.onnx.call import LAST, Call, Tensor, Writer, Written
from mpsearch.exporters.onnx.sizes import Form, Size


def _reshaped(call: Call) -> str:
    source = call.tensor("self")
    return (
        source.name
        if source.sizes == call.result.sizes
        else call.reshape(source, call.result.sizes)
    )


def _order(call: Call) -> list[int]:
    """Axis i of the result is the source's axis order[i]."""
    rank = call.tensor("self").form.rank
    name = call.operator
    if name == "permute":
        return [axis % rank for axis in call.wholes("dims")]
    if name == "movedim":
        marked = torch.empty(*range(1, rank + 1), device="meta")
        old, new = (tuple(call.wholes(key)) for key in ("source", "destination"))
        moved = torch.movedim(marked, old, new)
        return [size - 1 for size in moved.shape]
    order = list(range(rank))
    first, second = (-2, -1)  # of t and mT
    if name in ("transpose", "swapaxes"):
        keys = ("dim0", "dim1") if name == "transpose" else ("axis0", "axis1")
        first, second = (call.axis(key) for key in keys)
    elif rank < 2:
        return order
    order[first], order[second] = order[second], order[first]
    return order


def _permuted(call: Call) -> str:
    return call.transpose(call.tensor("self"), _order(call))


def _expanded(call: Call) -> str:
    source = call.tensor("self")
    return call.expand(source, source.sizes, call.result.sizes)


def _broadcast(call: Call) -> list[str]:
    tensors = call.tensors("tensors")
    forms = [form for form in call.results if form is not None]
    return [
        call.expand(tensor, tensor.sizes, form.sizes)
        for tensor, form in zip(tensors, forms, strict=True)
    ]


def _meshgrid(call: Call) -> list[str]:
    """Every tensor along an axis of its own; `xy` has the first two the other way round."""
    tensors = call.tensors("tensors")
    made = []
    for place, (tensor, form) in enumerate(zip(tensors, call.results, strict=True)):
        assert form is not None
        swapped = call.given("indexing") == "xy" and len(tensors) > 1 and place < 2
        axis = 1 - place if swapped else place
        line = [Size(1)] * len(tensors)
        line[axis] = form.sizes[axis]
        made.append(call.expand(call.reshape(tensor, line), line, form.sizes))
    return made


def _joined(call: Call) -> str:
    sources = [
        tensor
        for tensor in call.tensors("tensors")
        if tensor.sizes != (Size(0),) or call.result.rank == 1
    ]
    names = [call.cast(tensor, call.result.dtype) for tensor in sources]
    return call.add("Concat", names, axis=call.axis("dim", call.result.rank))


def _stacked(call: Call) -> str:
    axis = call.axis("dim", call.result.rank)
    axes = call.whole_list([axis])
    rows = [
        call.add("Unsqueeze", [call.cast(tensor, call.result.dtype), axes])
        for tensor in call.tensors("tensors")
    ]
    return call.add("Concat", rows, axis=axis)


def _split(call: Call) -> list[str]:
    """chunk, split and split_with_sizes: as large as the parts came out."""
    axis = call.axis("dim")
    lengths = [form.sizes[axis] for form in call.results if form is not None]
    source = call.tensor("self")
    return call.several("Split", [source, call.extents(lengths)], len(lengths), axis=axis)


def _unbound(call: Call) -> list[str]:
    source, axis = call.tensor("self"), call.axis("dim")
    parts = call.several(
        "Split", [source], len(call.results), axis=axis, num_outputs=len(call.results)
    )
    axes = call.whole_list([axis])
    return [call.add("Squeeze", [part, axes]) for part in parts]


def _tiled(call: Call) -> str:
    source, rank = call.tensor("self"), call.result.rank
    name = source.name
    if source.form.rank < rank:
        name = call.reshape(source, [Size(1)] * (rank - source.form.rank) + list(source.sizes))
    bounds = [call.bound(value) for value in call.given("repeats")]
    return call.add("Tile", [name, call.add("Concat", bounds, axis=0)])


def _interleaved(call: Call) -> str:
    """Every element several times in a row, along one axis or along all of them laid out flat."""
    source, times = call.tensor("self"), call.whole("repeats")
    sizes, name = list(source.sizes), source.name
    if not call.has("dim"):
        raise call.refuse("repeats without a dimension")
    axis = call.axis("dim")
    ahead, behind = sizes[: axis + 1], sizes[axis + 1 :]
    name = call.reshape(name, [*ahead, Size(1), *behind])
    name = call.add("Tile", [name, call.whole_list([1] * len(ahead) + [times] + [1] * len(behind))])
    return call.reshape(name, call.result.sizes)


def _flipped(call: Call) -> str:
    axes = call.axes("dims")
    if not call.wholes("dims"):
        return call.tensor("self").name
    count = len(axes)
    bounds = ([-1] * count, [-LAST] * count, axes, [-1] * count)
    return call.add("Slice", [call.tensor("self"), *map(call.whole_list, bounds)])


def _rolled(call: Call) -> str:
    source = call.tensor("self")
    shifts, axes = call.wholes("shifts"), call.wholes("dims")
    if not axes:
        raise call.refuse("rolls without a dimension")
    name = source.name
    for shift, axis in zip(shifts, axes, strict=True):
        axis %= source.form.rank
        size = source.sizes[axis]
        if not size.is_fixed:
            raise call.refuse("rolls along the batch")
        shift = shift % max(1, size.fixed)
        if shift:
            parts = [
                call.slice(name, axis, size.fixed - shift, LAST),
                call.slice(name, axis, 0, size.fixed - shift),
            ]
            name = call.add("Concat", parts, axis=axis)
    return name


def _triangle(call: Call) -> str:
    upper, dtype = int(call.operator == "triu"), call.result.dtype
    kind = dtype if dtype == torch.float32 else torch.int64
    diagonal = call.scalar(call.whole("diagonal", 0), torch.int64)
    made = call.add("Trilu", [call.in_type("self", kind), diagonal], upper=upper)
    return call.cast_name(made, kind, dtype)


def _padded(call: Call) -> str:
    """torch lists the last axis first. Modes: constant, reflect, edge, wrap."""
    name = call.operator
    mode = str(call.given("mode") or "constant")
    for start, word in (("reflection", "reflect"), ("replication", "replicate")):
        mode = word if name.startswith(start) else mode
    modes = {"replicate": "edge", "circular": "wrap"}
    given = call.wholes("pad" if call.given("pad") is not None else "padding")
    rank = call.result.rank
    begins, ends = [0] * rank, [0] * rank
    for place in range(len(given) // 2):
        begins[rank - 1 - place], ends[rank - 1 - place] = given[2 * place :][:2]
    dtype = call.result.dtype
    kind = dtype if dtype in (torch.float32, torch.int64, torch.int32) else torch.int64
    read = [call.in_type("self", kind), call.whole_list([*begins, *ends])]
    if mode == "constant":
        read.append(call.scalar(call.number("value", 0), kind))
    made = call.add("Pad", read, mode=modes.get(mode, mode))
    return call.cast_name(made, kind, dtype)


def _channels_shuffled(call: Call) -> str:
    source = call.tensor("self")
    batch, channels, *rest = source.sizes
    groups = call.whole("groups")
    split = [batch, Size(groups), Size(channels.fixed // groups), *rest]
    order = [0, 2, 1, *range(3, len(split))]
    name = call.transpose(call.reshape(source, split), order)
    return call.reshape(name, source.sizes)


def _pixels_shuffled(call: Call) -> str:
    """[…, C·r·r, H, W] -> […, C, H·r, W·r]."""
    source, by = call.tensor("self"), call.whole("upscale_factor")
    if source.form.rank == 4:
        return call.add("DepthToSpace", [source], blocksize=by, mode="CRD")
    *ahead, channels, height, width = source.sizes
    n = len(ahead)
    split = [*ahead, Size(channels.fixed // by**2), Size(by), Size(by), height, width]
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    return call.reshape(call.transpose(call.reshape(source, split), order), call.result.sizes)


def _pixels_unshuffled(call: Call) -> str:
    """[…, C, H·r, W·r] -> […, C·r·r, H, W]."""
    source, by = call.tensor("self"), call.whole("downscale_factor")
    *ahead, channels, height, width = source.sizes
    n = len(ahead)
    split = [
        *ahead, channels, Size(height.fixed // by), Size(by), Size(width.fixed // by), Size(by)
    ]  # fmt: skip
    order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    return call.reshape(call.transpose(call.reshape(source, split), order), call.result.sizes)


def getitem(several: Written | None, call: Call) -> Tensor:
    """One of the tensors that an operator gave."""
    index = call.node.args[1]
    made = None
    if isinstance(several, tuple) and isinstance(index, int) and index < len(several):
        made = several[index]
    if made is None:
        raise call.refuse("reads a result that the ONNX export does not write")
    return made


def _filled(value: float | None) -> Writer:
    """Sizes of the result full of one number: `value`, or the one that is given."""

    def write(call: Call) -> str:
        form: Form = call.result
        given = call.given("fill_value") if call.has("fill_value") else call.given("value")
        number = value if value is not None else given
        if isinstance(number, int | float):
            name = call.scalar(number, form.dtype)
        else:
            name = call.cast(call.as_tensor(number), form.dtype)
        return call.expand(name, (), form.sizes)

    return write


def _number(call: Call) -> str:
    return call.cast(call.tensor("s"), call.result.dtype)


def _counting(call: Call) -> str:
    """Up to a size of the batch: what does not depend on it is a constant."""
    ends = [call.given("start") if call.has("start") else 0, call.given("end")]
    step = call.given("step") if call.has("step") else 1
    tensors = [call.as_tensor(value) for value in (*ends, step)]
    return call.add("Range", [call.cast(tensor, call.result.dtype) for tensor in tensors])


_RESHAPES = "view reshape flatten squeeze unsqueeze unflatten view_as reshape_as _unsafe_view"
_PADS = (
    "pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
    "replication_pad2d replication_pad3d"
)

WRITERS: dict[str, Writer] = {
    **dict.fromkeys(_RESHAPES.split(), _reshaped),
    **dict.fromkeys("permute transpose t mT swapaxes movedim".split(), _permuted),
    **dict.fromkeys(("expand", "expand_as"), _expanded),
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), _split),
    **dict.fromkeys(_PADS.split(), _padded),
    **dict.fromkeys(("tril", "triu"), _triangle),
    **dict.fromkeys("zeros zeros_like new_zeros".split(), _filled(0)),
    **dict.fromkeys("ones ones_like new_ones".split(), _filled(1)),
    **dict.fromkeys("full full_like new_full fill".split(), _filled(None)),
    "broadcast_tensors": _broadcast,
    "meshgrid": _meshgrid,
    "cat": _joined,
    "stack": _stacked,
    "unbind": _unbound,
    "repeat": _tiled,
    "repeat_interleave": _interleaved,
    "flip": _flipped,
    "roll": _rolled,
    "channel_shuffle": _channels_shuffled,
    "pixel_shuffle": _pixels_shuffled,
    "pixel_unshuffle": _pixels_unshuffled,
    "scalar_tensor": _number,
    "arange": _counting,
}

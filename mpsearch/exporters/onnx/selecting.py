"""Reading and writing parts of a tensor: slices, indices, tables, windows."""

import numpy as np
import torch

from mpsearch.exporters.onnx.call import LAST, Call, Tensor, Writer
from mpsearch.exporters.onnx.sizes import Size


def _sliced(call: Call) -> str:
    source, axis = call.tensor("self"), call.axis("dim")
    start, end = call.given("start"), call.given("end")
    start = 0 if start is None else start
    end = LAST if end is None else end
    step = call.whole("step", 1)
    if source.sizes == call.result.sizes and step == 1:
        return source.name
    return call.slice(source, axis, start, end, step)


def _narrowed(call: Call) -> str:
    axis, start = call.axis("dim"), call.whole("start")
    source = call.tensor("self")
    if source.sizes == call.result.sizes:
        return source.name
    size, length = source.sizes[axis], call.result.sizes[axis]
    if start < 0 or not length.is_fixed:
        if not size.is_fixed:
            raise call.refuse("has bounds that are computed")
        start %= max(1, size.fixed)
    return call.slice(source, axis, start, start + length.fixed)


def _selected(call: Call) -> str:
    index = call.add("Squeeze", [call.bound(call.given("index"))])
    return call.add("Gather", [call.tensor("self"), index], axis=call.axis("dim"))


def _rows(call: Call) -> str:
    """index_select: whole slices by number."""
    return call.add("Gather", [call.tensor("self"), call.tensor("index")], axis=call.axis("dim"))


def _elements(call: Call) -> str:
    return call.add(
        "GatherElements", [call.tensor("self"), call.tensor("index")], axis=call.axis("dim")
    )


def _replaced(call: Call) -> str:
    """select_scatter, slice_scatter: other values at some places along one axis."""
    source, axis, values = call.tensor("self"), call.axis("dim"), call.tensor("src")
    size = source.sizes[axis]
    if not size.is_fixed:
        raise call.refuse("writes along the batch")
    if call.operator == "select_scatter":
        places = np.array([call.whole("index") % size.fixed])
        sizes = list(source.sizes)
        sizes[axis] = Size(1)
        name = call.reshape(call.cast(values, source.dtype), sizes)
    else:
        bounds = [call.given(key) for key in ("start", "end")]
        if not all(bound is None or isinstance(bound, int) for bound in bounds):
            raise call.refuse("has bounds that are computed")
        places = np.arange(size.fixed)[slice(bounds[0], bounds[1], call.whole("step", 1))]
        name = call.cast(values, source.dtype)
    order = [axis, *(place for place in range(source.form.rank) if place != axis)]
    back = [order.index(place) for place in range(source.form.rank)]
    first, updates = call.transpose(source, order), call.transpose(name, order)
    indices = call.constant(places.astype(np.int64)[:, None])
    return call.transpose(call.add("ScatterND", [first, indices, updates]), back)


def _indexed(call: Call) -> str:
    """x[i, :, j]: indices broadcast against each other; torch says where their axes come."""
    source = call.tensor("self")
    given = list(call.given("indices"))
    places = [place for place, value in enumerate(given) if value is not None]
    indices = [call.as_tensor(given[place]) for place in places]
    if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
        raise call.refuse("takes a mask as index, so that its size follows from the data")
    if len(places) == 1:
        return call.add("Gather", [source, call.cast(indices[0], torch.int64)], axis=places[0])
    rank, count = source.form.rank, len(places)
    common = max(index.form.rank for index in indices)
    rest = [place for place in range(rank) if place not in places]
    together = places == list(range(places[0], places[0] + count))
    start = places[0] if together else 0
    sizes = call.result.sizes[start : start + common]
    columns = []
    for index in indices:
        wide = call.expand(call.cast(index, torch.int64), index.sizes, sizes)
        columns.append(call.add("Unsqueeze", [wide, call.whole_list([-1])]))
    found = call.add(
        "GatherND", [call.transpose(source, places + rest), call.add("Concat", columns, axis=-1)]
    )  # [common…, rest…]
    order = [
        *range(common, common + start),
        *range(common),
        *range(common + start, common + len(rest)),
    ]
    return call.transpose(found, order)


def _embedded(call: Call) -> str:
    return call.add("Gather", [call.tensor("weight"), call.tensor("indices")], axis=0)


def _windows(call: Call) -> str:
    """Tensor.unfold: windows along one axis, their elements last."""
    source, axis = (
        call.tensor("self"),
        call.whole("dimension") % max(1, call.tensor("self").form.rank),
    )
    size, step = call.whole("size"), call.whole("step")
    count = call.result.sizes[axis]
    if not count.is_fixed:
        raise call.refuse("has windows along the batch")
    places = np.arange(count.fixed)[:, None] * step + np.arange(size)
    found = call.add("Gather", [source, call.constant(places.astype(np.int64))], axis=axis)
    rank = source.form.rank
    return call.transpose(found, [*range(axis + 1), *range(axis + 2, rank + 1), axis + 1])


def _differences(call: Call) -> str:
    source, axis = call.tensor("self"), call.axis("dim")
    if call.has("prepend") or call.has("append"):
        raise call.refuse("takes what stands before or after")
    name = source.name
    for _ in range(call.whole("n", 1)):
        later, earlier = call.slice(name, axis, 1, LAST), call.slice(name, axis, 0, -1)
        name = call.add("Sub", [later, earlier])
    return name


def _patches(call: Call) -> str:
    """im2col: [N, C, H, W] -> [N, C·kernel, positions]."""
    source: Tensor = call.tensor("self")
    batch, channels, height, width = source.sizes
    kernel, dilation, padding, stride = (
        (call.wholes(name) * 2)[:2] for name in ("kernel_size", "dilation", "padding", "stride")
    )
    name = source.name
    if any(padding):
        pads = call.whole_list([0, 0, *padding, 0, 0, *padding])
        name = call.add("Pad", [name, pads, call.scalar(0.0)])
    lengths = []
    for place, size in enumerate((height.fixed, width.fixed)):
        reach = dilation[place] * (kernel[place] - 1)
        count = (size + 2 * padding[place] - reach - 1) // stride[place] + 1
        inside = np.arange(kernel[place])[:, None] * dilation[place]
        places = inside + np.arange(count) * stride[place]
        axis = 2 + 2 * place  # after the rows, [N, C, kh, rows, W]
        name = call.add("Gather", [name, call.constant(places.astype(np.int64))], axis=axis)
        lengths.append(count)
    name = call.transpose(name, [0, 1, 2, 4, 3, 5])
    parts = Size(channels.fixed * kernel[0] * kernel[1])
    return call.reshape(name, [batch, parts, Size(lengths[0] * lengths[1])])


def _folded(call: Call) -> str:
    """col2im: patches added up where they overlap."""
    kernel, dilation, padding, stride = (
        (call.wholes(name) * 2)[:2] for name in ("kernel_size", "dilation", "padding", "stride")
    )
    shape = [call.whole_list(call.wholes("output_size")), call.whole_list(kernel)]
    return call.add(
        "Col2Im", [call.tensor("self"), *shape], dilations=dilation, pads=padding * 2,
        strides=stride,
    )  # fmt: skip


WRITERS: dict[str, Writer] = {
    "slice": _sliced,
    "narrow": _narrowed,
    "select": _selected,
    "index_select": _rows,
    "gather": _elements,
    "select_scatter": _replaced,
    "slice_scatter": _replaced,
    "index": _indexed,
    "embedding": _embedded,
    "unfold": _windows,
    "diff": _differences,
    "im2col": _patches,
    "col2im": _folded,
}

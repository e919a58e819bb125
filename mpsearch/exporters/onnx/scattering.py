"""Writing into a tensor at computed places, and reading diagonals and ranks."""

import numpy as np
import torch

from mpsearch.exporters.onnx.call import Call, Operand, Writer
from mpsearch.exporters.onnx.sizes import Size

_REDUCTIONS = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min", "add": "add",
               "multiply": "mul"}  # fmt: skip


def _scattered(call: Call) -> str:
    """scatter, scatter_add, scatter_reduce."""
    index = call.tensor("index")
    if call.has("src"):
        values = call.in_type("src")
    else:
        values = call.expand(call.in_type("value"), (), index.sizes)
    reduce = "sum" if call.operator == "scatter_add" else call.given("reduce")
    if call.given("include_self") is False:
        raise call.refuse("leaves out what was there")
    return _elements(call, index.name, values, None if reduce is None else str(reduce))


def _elements(call: Call, index: Operand, values: Operand, reduce: str | None) -> str:
    if reduce is not None and reduce not in _REDUCTIONS:
        raise call.refuse(f"reduces by {reduce}")
    extra = {} if reduce is None else {"reduction": _REDUCTIONS[reduce]}
    axis = call.axis("dim")
    return call.add("ScatterElements", [call.tensor("self"), index, values], axis=axis, **extra)


def _rows(call: Call) -> str:
    """index_add, index_copy, index_fill: whole slices by number."""
    source, axis, index = call.tensor("self"), call.axis("dim"), call.tensor("index")
    count = index.sizes[0] if index.sizes else Size(1)
    sizes = [*source.sizes[:axis], count, *source.sizes[axis + 1 :]]
    line = [count if place == axis else Size(1) for place in range(source.form.rank)]
    places = call.cast(index, torch.int64)
    wide = call.expand(call.reshape(places, line), line, sizes)
    if call.operator == "index_fill":
        return _elements(call, wide, call.expand(call.in_type("value"), (), sizes), None)
    values = call.in_type("source")
    if call.operator == "index_copy":
        return _elements(call, wide, values, None)
    if call.number("alpha", 1) != 1:
        values = call.add("Mul", [values, call.scalar(call.number("alpha"), source.dtype)])
    return _elements(call, wide, values, "sum")


def _put(call: Call) -> str:
    """x[i, j] = values, the indices along the first dimensions."""
    source, given = call.tensor("self"), list(call.given("indices"))
    if any(value is None for value in given):
        raise call.refuse("writes behind a dimension that is taken whole")
    indices = [call.as_tensor(value) for value in given]
    if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
        raise call.refuse("takes a mask as index, so that its size follows from the data")
    rank = max(index.form.rank for index in indices)
    sizes = max((index.sizes for index in indices), key=lambda s: (len(s), s))
    if any(len(index.sizes) != rank for index in indices):
        raise call.refuse("has indices of several shapes")
    columns = [
        call.add(
            "Unsqueeze",
            [call.expand(call.cast(x, torch.int64), x.sizes, sizes), call.whole_list([-1])],
        )
        for x in indices
    ]
    values = call.tensor("values")
    wide = [*sizes, *source.sizes[len(indices) :]]
    updates = call.expand(call.cast(values, source.dtype), values.sizes, wide)
    extra = {"reduction": "add"} if call.flag("accumulate") else {}
    places = call.add("Concat", columns, axis=-1)
    return call.add("ScatterND", [source, places, updates], **extra)


def _diagonal(call: Call) -> str:
    """The two dimensions become one, last, that has their diagonal."""
    source, rank = call.tensor("self"), call.tensor("self").form.rank
    first, second = (call.whole(name) % rank for name in ("dim1", "dim2"))
    rows, columns = source.sizes[first], source.sizes[second]
    if not rows.is_fixed or not columns.is_fixed:
        raise call.refuse("has the diagonal along the batch")
    rest = [place for place in range(rank) if place not in (first, second)]
    turned = call.transpose(source, [*rest, first, second])
    ahead = [source.sizes[place] for place in rest]
    flat = call.reshape(turned, [*ahead, Size(rows.fixed * columns.fixed)])
    places = np.arange(rows.fixed * columns.fixed).reshape(rows.fixed, columns.fixed)
    on = np.ascontiguousarray(places.diagonal(call.whole("offset")))
    return call.add("Gather", [flat, call.constant(on)], axis=len(rest))


def _of_rank(call: Call) -> list[str]:
    """median and kthvalue along a dimension, with the positions."""
    axis, keep = call.axis("dim"), call.flag("keepdim")
    size = call.tensor("self").sizes[axis]
    if call.operator == "kthvalue":
        place = call.whole("k")
    elif size.is_fixed:
        place = (size.fixed + 1) // 2
    else:
        raise call.refuse("goes over the batch")
    count = call.whole_list([place])
    smallest = call.several("TopK", [call.tensor("self"), count], 2, axis=axis, largest=0, sorted=1)
    index = call.constant(np.array([place - 1] if keep else place - 1))
    return [call.add("Gather", [each, index], axis=axis) for each in smallest]


WRITERS: dict[str, Writer] = {
    **dict.fromkeys(("scatter", "scatter_add", "scatter_reduce"), _scattered),
    **dict.fromkeys(("index_add", "index_copy", "index_fill"), _rows),
    "index_put": _put,
    "diagonal": _diagonal,
    "median": _of_rank,
    "kthvalue": _of_rank,
}

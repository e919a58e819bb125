"""Sums and other reductions, positions of extremes, running sums, the largest k."""

import math

import torch

from mpsearch.exporters.onnx.arithmetic import extreme
from mpsearch.exporters.onnx.call import Call, Writer


def _reduced(call: Call, operator: str, source: str, axes: list[int], keep: bool) -> str:
    if not axes:
        return source
    return call.add(operator, [source, call.whole_list(axes)], keepdims=int(keep))


def _reduce(operator: str) -> Writer:
    """In the type of the result: flags are summed as whole numbers."""

    def write(call: Call) -> str:
        return _reduced(
            call, operator, call.in_type("self"), call.axes("dim"), call.flag("keepdim")
        )

    return write


def _flags(operator: str) -> Writer:
    """Are any, or all, of them other than zero?"""

    def write(call: Call) -> str:
        flags = call.cast_name(call.in_type("self", torch.bool), torch.bool, torch.int64)
        made = _reduced(call, operator, flags, call.axes("dim"), call.flag("keepdim"))
        return call.cast_name(made, torch.int64, torch.bool)

    return write


def _count(call: Call, axes: list[int]) -> int:
    sizes = [call.tensor("self").sizes[axis] for axis in axes]
    if not all(size.is_fixed for size in sizes):
        raise call.refuse("goes over the batch")
    return math.prod(size.fixed for size in sizes)


def _variance(call: Call) -> str:
    """Σ(x - mean)² / (n - correction)."""
    source, axes, keep = call.in_type("self"), call.axes("dim"), call.flag("keepdim")
    correction = call.given("correction")
    if correction is None:
        unbiased = call.given("unbiased")
        correction = 1 if unbiased is None else int(unbiased)
    count = _count(call, axes)
    mean = call.add("ReduceMean", [source, call.whole_list(axes)], keepdims=1)
    apart = call.add("Sub", [source, mean])
    squares = call.add("Mul", [apart, apart])
    total = _reduced(call, "ReduceSum", squares, axes, keep)
    made = call.add("Div", [total, call.scalar(float(max(0, count - correction)))])
    return call.add("Sqrt", [made]) if call.operator.startswith("std") else made


def _with_mean(call: Call) -> list[str]:
    source, axes = call.in_type("self"), call.axes("dim")
    return [_variance(call), _reduced(call, "ReduceMean", source, axes, call.flag("keepdim"))]


def _norm(call: Call) -> str:
    """(Σ|x|^p)^(1/p)."""
    source, axes, keep = call.in_type("self"), call.axes("dim"), call.flag("keepdim")
    order = float(call.number("ord", 2))
    if order in (1.0, 2.0):
        return _reduced(call, f"ReduceL{int(order)}", source, axes, keep)
    size = call.add("Abs", [source])
    if math.isinf(order):
        return _reduced(call, "ReduceMax" if order > 0 else "ReduceMin", size, axes, keep)
    if order == 0:
        other = call.add("Cast", [call.add("Sign", [size])], to=1)
        return _reduced(call, "ReduceSum", other, axes, keep)
    powers = call.add("Pow", [size, call.scalar(order)])
    total = _reduced(call, "ReduceSum", powers, axes, keep)
    return call.add("Pow", [total, call.scalar(1 / order)])


def _positions(operator: str) -> Writer:
    """Of the first of equal ones; without a dimension, among all elements in row-major order."""

    def write(call: Call) -> str:
        source = call.cast(call.tensor("self"), _searched(call))
        if call.given("dim") is None:
            source = call.add("Reshape", [source, call.whole_list([-1])])
            return call.add(operator, [source], axis=0, keepdims=0)
        keep = int(call.flag("keepdim"))
        return call.add(operator, [source], axis=call.axis("dim"), keepdims=keep)

    return write


def _searched(call: Call) -> torch.dtype:
    """The type in which runtimes look for extremes."""
    dtype = call.tensor("self").dtype
    return dtype if dtype in (torch.float32, torch.int32) else torch.int64


def _extremes(word: str) -> Writer:
    """Of two tensors; of all elements; along a dimension, with the positions."""

    def write(call: Call) -> str | list[str]:
        if call.has("other"):
            return extreme(word)(call)  # type: ignore[return-value]
        kind = _searched(call)
        source = call.cast(call.tensor("self"), kind)
        if not call.has("dim"):
            made = _reduced(call, f"Reduce{word}", source, call.axes("dim"), keep=False)
            return call.cast_name(made, kind, call.result.dtype)
        axis, keep = call.axis("dim"), call.flag("keepdim")
        values = _reduced(call, f"Reduce{word}", source, [axis], keep)
        where = call.add(f"Arg{word}", [source], axis=axis, keepdims=int(keep))
        return [call.cast_name(values, kind, call.result.dtype), where]

    return write


def _running_sum(call: Call) -> str:
    axis = call.scalar(call.axis("dim"), torch.int64)
    return call.computed(
        call.result.dtype, ["self"], lambda read: call.add("CumSum", [*read, axis])
    )


def _largest(call: Call) -> list[str]:
    axis = call.axis("dim")
    largest, ordered = call.flag("largest"), call.flag("sorted")
    return _ranked(call, call.bound(call.given("k")), axis, largest, ordered)


def _ranked(call: Call, count: str, axis: int, largest: bool, ordered: bool) -> list[str]:
    return call.several(
        "TopK", [call.tensor("self"), count], 2, axis=axis, largest=int(largest),
        sorted=int(ordered),
    )  # fmt: skip


def _sorted(call: Call) -> list[str] | str:
    axis = call.axis("dim")
    count = call.extent(call.tensor("self").sizes[axis])
    values, places = _ranked(call, count, axis, call.flag("descending"), True)
    return places if call.operator == "argsort" else [values, places]


WRITERS: dict[str, Writer] = {
    "sum": _reduce("ReduceSum"),
    "mean": _reduce("ReduceMean"),
    "amax": _reduce("ReduceMax"),
    "amin": _reduce("ReduceMin"),
    "prod": _reduce("ReduceProd"),
    "logsumexp": _reduce("ReduceLogSumExp"),
    "any": _flags("ReduceMax"),
    "all": _flags("ReduceMin"),
    "var": _variance,
    "std": _variance,
    "var_mean": _with_mean,
    "std_mean": _with_mean,
    "linalg_vector_norm": _norm,
    "argmax": _positions("ArgMax"),
    "argmin": _positions("ArgMin"),
    "max": _extremes("Max"),
    "min": _extremes("Min"),
    "cumsum": _running_sum,
    "topk": _largest,
    "sort": _sorted,
    "argsort": _sorted,
}

"""Reductions over axes, and what picks along one: ArgMax, TopK, CumSum."""

from collections.abc import Callable

import torch

from mpsearch.importers.onnx.calls import Call, Result, axis_of

_Reduce = Callable[[torch.Tensor, list[int], bool], torch.Tensor]


def _product(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keepdim=keep)
    return x


_FUNCTIONS: dict[str, _Reduce] = {
    "ReduceMean": lambda x, axes, keep: torch.mean(x, axes, keepdim=keep),
    "ReduceSum": lambda x, axes, keep: torch.sum(x, axes, keepdim=keep, dtype=x.dtype),
    "ReduceMax": lambda x, axes, keep: torch.amax(x, axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: torch.amin(x, axes, keepdim=keep),
    "ReduceProd": _product,
    "ReduceL1": lambda x, axes, keep: torch.sum(x.abs(), axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: torch.sum(x * x, axes, keepdim=keep).sqrt(),
    "ReduceSumSquare": lambda x, axes, keep: torch.sum(x * x, axes, keepdim=keep),
    "ReduceLogSum": lambda x, axes, keep: torch.sum(x, axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
}


def _reduction(function: _Reduce) -> Callable[[Call], Result]:
    def handler(call: Call) -> Result:
        x = call.tensor(0)
        axes = call.axes(1)
        if not axes:
            if call.attribute("noop_with_empty_axes", 0):
                return function(x.unsqueeze(-1), [-1], False)
            axes = list(range(x.dim()))
        axes = [axis_of(axis, x.dim()) for axis in axes]
        return function(x, axes, bool(call.attribute("keepdims", 1))) if axes else x

    return handler


def _arg(function: Callable[..., torch.Tensor]) -> Callable[[Call], Result]:
    def handler(call: Call) -> Result:
        x, axis = call.tensor(0), call.attribute("axis", 0)
        keep = bool(call.attribute("keepdims", 1))
        if not call.attribute("select_last_index", 0):
            return function(x, axis, keepdim=keep)
        return int(x.shape[axis]) - 1 - function(x.flip(axis), axis, keepdim=keep)

    return handler


def _top_k(call: Call) -> Result:
    count = int(call.sizes(1)[0])
    largest, ordered = bool(call.attribute("largest", 1)), bool(call.attribute("sorted", 1))
    values, indices = torch.topk(
        call.tensor(0), count, call.attribute("axis", -1), largest, ordered
    )
    return values, indices


def _cumulative_sum(call: Call) -> Result:
    x, axis = call.tensor(0), int(call.sizes(1)[0])
    backwards = bool(call.attribute("reverse", 0))
    y = x.flip(axis) if backwards else x
    total = torch.cumsum(y, axis, dtype=x.dtype)
    if call.attribute("exclusive", 0):
        total = total - y
    return total.flip(axis) if backwards else total


REDUCTIONS: dict[str, Callable[[Call], Result]] = {
    **{name: _reduction(function) for name, function in _FUNCTIONS.items()},
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "TopK": _top_k,
    "CumSum": _cumulative_sum,
}

"""Operators that work element by element: arithmetic, comparisons, activations, casts.

Reductions over axes, and what picks along one: ArgMax, TopK, CumSum.
"""

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mpsearch.errors import InputError
from mpsearch.graph.border import moved
from mpsearch.importers.onnx.calls import Call, Result, as_type, axis_of

# ONNX's numbers of the types; floating point of any width is float32 here.
DTYPES = {
    1: torch.float32, 10: torch.float32, 11: torch.float32, 16: torch.float32, 2: torch.uint8,
    3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    12: torch.int64, 13: torch.int64,
}  # fmt: skip

_UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Abs": torch.abs, "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin,
    "Asinh": torch.asinh, "Atan": torch.atan, "Atanh": torch.atanh, "Ceil": torch.ceil,
    "Cos": torch.cos, "Cosh": torch.cosh, "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor,
    "IsNaN": torch.isnan, "Log": torch.log, "Mish": F.mish, "Neg": torch.neg,
    "Not": torch.logical_not, "Reciprocal": torch.reciprocal, "Relu": F.relu, "Round": torch.round,
    "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin, "Sinh": torch.sinh,
    "Softplus": F.softplus, "Softsign": F.softsign, "Sqrt": torch.sqrt, "Tan": torch.tan,
    "Tanh": torch.tanh,
}  # fmt: skip
_BINARY: dict[str, Callable[..., torch.Tensor]] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Equal": torch.eq,
    "Greater": torch.gt, "GreaterOrEqual": torch.ge, "Less": torch.lt, "LessOrEqual": torch.le,
}  # fmt: skip
_LOGICAL = {"And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor}


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Call], Result]:
    return lambda call: function(call.tensor(0))


def _logical(function: Callable[..., torch.Tensor]) -> Callable[[Call], Result]:
    return lambda call: function(call.tensor(0), call.tensor(1))


def _pair(call: Call) -> tuple[Any, Any]:
    """Both operands, at least one of them a tensor."""
    first, second = call.operand(0), call.operand(1)
    if not isinstance(first, torch.Tensor) and not isinstance(second, torch.Tensor):
        first = call.tensor(0)
    return first, second


def _binary(function: Callable[..., torch.Tensor]) -> Callable[[Call], Result]:
    mirrored: dict[Callable[..., torch.Tensor], Callable[..., torch.Tensor]] = {
        torch.gt: torch.lt, torch.lt: torch.gt, torch.ge: torch.le, torch.le: torch.ge,
    }  # fmt: skip

    def handler(call: Call) -> Result:
        first, second = _pair(call)
        if isinstance(first, torch.Tensor):
            return function(first, second)
        if function is torch.sub:
            return torch.rsub(second, first)
        return mirrored.get(function, function)(second, first)

    return handler


def _pow(call: Call) -> Result:
    base, exponent = _pair(call)
    kind = call.values[0]
    result = torch.pow(base, exponent)
    whole = isinstance(kind, torch.Tensor) and not kind.is_floating_point()
    return as_type(result, kind.dtype) if whole and isinstance(kind, torch.Tensor) else result


def _div(call: Call) -> Result:
    first, second = _pair(call)
    tensor = first if isinstance(first, torch.Tensor) else second
    if not tensor.is_floating_point():  # ONNX divides integers as C does
        return torch.div(call.tensor(0), second, rounding_mode="trunc")
    if not isinstance(first, torch.Tensor):
        return torch.mul(torch.reciprocal(second), first)
    return torch.div(first, second)


def _mod(call: Call) -> Result:
    function = torch.fmod if call.attribute("fmod", 0) else torch.remainder
    return function(call.tensor(0), call.tensor(1))


def _fold(function: Callable[..., torch.Tensor]) -> Callable[[Call], Result]:
    return lambda call: reduce(function, [call.tensor(index) for index in range(len(call))])


def _mean(call: Call) -> Result:
    total = reduce(torch.add, [call.tensor(index) for index in range(len(call))])
    return total / len(call)


def _clip(call: Call) -> Result:
    """Bounds are attributes before opset 11 and inputs since; these may be computed.

    ONNX has one number for all values. Files with a bound for each channel run, too.
    """
    x = call.tensor(0)
    bounds: list[float | torch.Tensor | None] = []
    for index, name in ((1, "min"), (2, "max")):
        value: float | torch.Tensor | None = call.step.attributes.get(name)
        if call.has(index):
            given = call.values[index]
            known = isinstance(given, np.ndarray) and given.size == 1
            value = call.host(index).reshape(-1)[0].item() if known else call.tensor(index)
        bounds.append(value)
    low, high = bounds
    if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):
        if low is not None:
            x = torch.maximum(x, low) if isinstance(low, torch.Tensor) else torch.clamp(x, min=low)
        if high is None:
            return x
        if isinstance(high, torch.Tensor):
            return torch.minimum(x, high)
        return torch.clamp(x, max=high)
    if low is None and high is None:
        return x
    if low == 0 and high is None and x.is_floating_point():
        return F.relu(x)
    if low == 0 and high == 6 and x.is_floating_point():
        return F.relu6(x)
    if low is not None and high is not None and low > high:
        low = high  # ONNX: every value becomes the upper bound
    return torch.clamp(x, low, high)


def _cast(call: Call) -> Result:
    kind = call.attribute("to", 0)
    if kind not in DTYPES:
        raise InputError(f"got the target type {kind}; expected floats, integers or bool")
    return as_type(call.tensor(0), DTYPES[kind])


def _where(call: Call) -> Result:
    condition, first, second = call.tensor(0), call.operand(1), call.operand(2)
    if not isinstance(first, torch.Tensor) and not isinstance(second, torch.Tensor):
        first = call.tensor(1)
    return torch.where(as_type(condition, torch.bool), first, second)


def _prelu(call: Call) -> Result:
    """A slope for each channel, which converters also put last; any other one as two ReLUs."""
    x, slope = call.tensor(0), call.tensor(1)
    if slope.numel() == 1:
        return F.prelu(x, slope.reshape(-1))
    ahead = x.dim() - slope.dim()
    axes = [ahead + axis for axis, size in enumerate(slope.shape) if size != 1]
    if len(axes) == 1 and axes[0] > 0 and slope.numel() == x.shape[axes[0]]:
        return moved(F.prelu(moved(x, axes[0], 1), slope.reshape(-1)), 1, axes[0])
    return x.relu() - slope * (-x).relu()


def _hard_sigmoid(call: Call) -> Result:
    x, alpha, beta = call.tensor(0), call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


def _selu(call: Call) -> Result:
    x = call.tensor(0)
    alpha, gamma = call.attribute("alpha", 1.67326319), call.attribute("gamma", 1.05070102)
    if math.isclose(alpha, 1.67326319, rel_tol=1e-6) and math.isclose(
        gamma, 1.05070102, rel_tol=1e-6
    ):
        return F.selu(x)
    return gamma * F.elu(x, alpha)


def _celu(call: Call) -> Result:
    alpha = call.attribute("alpha", 1.0)
    return alpha * F.elu(call.tensor(0) / alpha)


def _shrink(call: Call) -> Result:
    x, bias, edge = call.tensor(0), call.attribute("bias", 0.0), call.attribute("lambd", 0.5)
    inside = torch.zeros_like(x)
    return torch.where(x < -edge, x + bias, torch.where(x > edge, x - bias, inside))


def _swish(call: Call) -> Result:
    x, alpha = call.tensor(0), call.attribute("alpha", 1.0)
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


def _is_inf(call: Call) -> Result:
    x = call.tensor(0)
    up, down = call.attribute("detect_positive", 1), call.attribute("detect_negative", 1)
    found = torch.logical_and(x == math.inf, torch.full((), bool(up)))
    return torch.logical_or(found, torch.logical_and(x == -math.inf, torch.full((), bool(down))))


def _softmax(function: Callable[..., torch.Tensor]) -> Callable[[Call], Result]:
    def handler(call: Call) -> Result:
        x = call.tensor(0)
        if call.opset >= 13:
            return function(x, dim=call.attribute("axis", -1))
        axis = call.attribute("axis", 1) % x.dim()  # all dimensions from here on are one
        if axis == x.dim() - 1:
            return function(x, dim=axis)
        return function(x.flatten(axis), dim=axis).reshape(x.shape)

    return handler


def _dropout(call: Call) -> Result:
    if call.has(2) and bool(np.any(call.host(2))):
        raise InputError("dropout in training mode; export the model in evaluation mode")
    return call.tensor(0)


ELEMENTWISE: dict[str, Callable[[Call], Result]] = {
    **{name: _unary(function) for name, function in _UNARY.items()},
    **{name: _binary(function) for name, function in _BINARY.items()},
    **{name: _logical(function) for name, function in _LOGICAL.items()},
    "Scale": lambda call: call.tensor(0) * call.attribute("factor", 1.0),  # of a fused product
    "Pow": _pow,
    "Div": _div,
    "Mod": _mod,
    "Max": _fold(torch.maximum),
    "Min": _fold(torch.minimum),
    "Sum": _fold(torch.add),
    "Mean": _mean,
    "Clip": _clip,
    "Cast": _cast,
    "CastLike": lambda call: as_type(call.tensor(0), call.tensor(1).dtype),
    "Where": _where,
    "PRelu": _prelu,
    "LeakyRelu": lambda call: F.leaky_relu(call.tensor(0), call.attribute("alpha", 0.01)),
    "Elu": lambda call: F.elu(call.tensor(0), call.attribute("alpha", 1.0)),
    "Celu": _celu,
    "Selu": _selu,
    "ThresholdedRelu": lambda call: F.threshold(call.tensor(0), call.attribute("alpha", 1.0), 0.0),
    "Shrink": _shrink,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda call: F.hardswish(call.tensor(0)),
    "Gelu": lambda call: F.gelu(call.tensor(0), approximate=call.attribute("approximate", "none")),
    "Swish": _swish,
    "IsInf": _is_inf,
    "Softmax": _softmax(F.softmax),
    "LogSoftmax": _softmax(F.log_softmax),
    "Dropout": _dropout,
    "Identity": lambda call: call.tensor(0),
}


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

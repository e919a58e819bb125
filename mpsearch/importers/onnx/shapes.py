"""Arithmetic on shapes: operators over arrays that are known while the graph is built.

`Shape -> Gather -> Mul -> Concat -> Reshape` is how exporters write a reshape. Run here, the chain
leaves nothing in the graph but the sizes, with the batch as torch's symbolic integer.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch

from mpsearch.errors import InputError
from mpsearch.importers.onnx.arranging import slices_of
from mpsearch.importers.onnx.calls import Call, Result, axis_of, check_elements, is_symbolic
from mpsearch.importers.onnx.elementwise import DTYPES
from mpsearch.importers.onnx.steps import Array


def _binary(function: Callable[[Any, Any], Any]) -> Callable[[Call], Result]:
    return lambda call: _settled(function(*_broadcasting(call, 2)))


def _broadcasting(call: Call, count: int) -> list[Array]:
    """The inputs; InputError when their common shape would not fit the budget of memory."""
    arrays = [call.host(index) for index in range(count)]
    check_elements(np.broadcast_shapes(*(array.shape for array in arrays)))
    return arrays


def _settled(value: Any) -> Array:
    """An object array without symbols is an ordinary one again."""
    array = np.asarray(value)
    if array.dtype != object or is_symbolic(array):
        return array
    return np.array(array.tolist()).reshape(array.shape)


def _divide(first: Array, second: Array) -> Array:
    if first.dtype.kind == "f" or second.dtype.kind == "f":
        return np.asarray(np.true_divide(first, second), dtype=np.float32)
    if is_symbolic(first) or is_symbolic(second):
        return np.asarray(first // second)
    with np.errstate(divide="ignore"):
        quotient = np.floor_divide(np.abs(first), np.abs(second))
    return np.asarray(np.sign(first) * np.sign(second) * quotient, dtype=np.int64)


def _fold(function: Callable[[Any, Any], Any]) -> Callable[[Call], Result]:
    return lambda call: _settled(reduce(function, _broadcasting(call, len(call))))


def _larger(first: Array, second: Array) -> Array:
    if is_symbolic(first) or is_symbolic(second):
        return np.asarray(np.frompyfunc(torch.sym_max, 2, 1)(first, second))
    return np.asarray(np.maximum(first, second))


def _smaller(first: Array, second: Array) -> Array:
    if is_symbolic(first) or is_symbolic(second):
        return np.asarray(np.frompyfunc(torch.sym_min, 2, 1)(first, second))
    return np.asarray(np.minimum(first, second))


def _compare(function: Callable[[Any, Any], Any]) -> Callable[[Call], Result]:
    """torch answers for a symbolic batch as for any batch of two or more."""
    return lambda call: np.asarray(
        np.frompyfunc(lambda a, b: bool(function(a, b)), 2, 1)(*_broadcasting(call, 2)),
        dtype=bool,
    )


def _concat(call: Call) -> Result:
    arrays = [call.host(index) for index in range(len(call))]
    return _settled(np.concatenate(arrays, axis=call.attribute("axis", 0)))


def _gather(call: Call) -> Result:
    where = call.host(1).astype(np.int64)
    check_elements([where.size, call.host(0).size])
    return _settled(np.take(call.host(0), where, axis=call.attribute("axis", 0)))


def _slice(call: Call) -> Result:
    array = call.host(0)
    for axis, start, end, step in slices_of(call, array.ndim):
        stop = None if step < 0 and end < -array.shape[axis] else end
        array = array[(*[slice(None)] * axis, slice(start, stop, step))]
    return _settled(array)


def _squeeze(call: Call) -> Result:
    array, axes = call.host(0), call.axes(1)
    return array.squeeze(None if axes is None else tuple(axes))


def _unsqueeze(call: Call) -> Result:
    return np.expand_dims(call.host(0), tuple(call.axes(1) or ()))


def _reshape(call: Call) -> Result:
    array, target = call.host(0), [int(size) for size in call.sizes(1)]
    if not call.attribute("allowzero", 0):
        target = [array.shape[i] if size == 0 else size for i, size in enumerate(target)]
    return array.reshape(target)


def _cast(call: Call) -> Result:
    array, kind = call.host(0), call.attribute("to", 0)
    if is_symbolic(array):
        return array
    if kind not in DTYPES:
        raise InputError(f"got the target type {kind}; expected floats, integers or bool")
    return array.astype(str(DTYPES[kind]).removeprefix("torch."))


def _where(call: Call) -> Result:
    condition, first, second = _broadcasting(call, 3)
    return _settled(np.where(condition.astype(bool), first, second))


def _expand(call: Call) -> Result:
    array, target = call.host(0), [int(size) for size in call.sizes(1)]
    shape = np.broadcast_shapes(array.shape, tuple(target))
    check_elements(shape)
    return np.broadcast_to(array, shape)


def _reduce(function: Callable[..., Any]) -> Callable[[Call], Result]:
    def handler(call: Call) -> Result:
        array, axes = call.host(0), call.axes(1)
        which = tuple(axis_of(a, array.ndim) for a in axes) if axes else None
        return _settled(function(array, axis=which, keepdims=bool(call.attribute("keepdims", 1))))

    return handler


def _round(function: Callable[[Any], Any]) -> Callable[[Call], Result]:
    return lambda call: (
        call.host(0) if is_symbolic(call.host(0)) else np.asarray(function(call.host(0)))
    )


def _split(call: Call) -> Result:
    array, axis = call.host(0), call.attribute("axis", 0)
    sizes = call.step.attributes.get("split")
    if sizes is None and call.has(1):
        sizes = call.sizes(1)
    if sizes is None:
        return tuple(np.array_split(array, len(call.step.outputs), axis))
    return tuple(np.split(array, np.cumsum(sizes)[:-1], axis))


SHAPES: dict[str, Callable[[Call], Result]] = {
    "Add": _binary(lambda a, b: a + b),
    "Sub": _binary(lambda a, b: a - b),
    "Mul": _binary(lambda a, b: a * b),
    "Div": _binary(_divide),
    "Mod": _binary(lambda a, b: a % b),
    "Max": _fold(_larger),
    "Min": _fold(_smaller),
    "Neg": lambda call: _settled(-call.host(0)),
    "Equal": _compare(lambda a, b: a == b),
    "Greater": _compare(lambda a, b: a > b),
    "Less": _compare(lambda a, b: a < b),
    "GreaterOrEqual": _compare(lambda a, b: a >= b),
    "LessOrEqual": _compare(lambda a, b: a <= b),
    "Not": lambda call: np.logical_not(call.host(0)),
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Cast": _cast,
    "Where": _where,
    "Expand": _expand,
    "Identity": lambda call: call.host(0),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "Ceil": _round(np.ceil),
    "Floor": _round(np.floor),
    "Split": _split,
    "Shape": lambda call: np.array(call.host(0).shape, dtype=np.int64),
    "Size": lambda call: np.array(call.host(0).size, dtype=np.int64),
}

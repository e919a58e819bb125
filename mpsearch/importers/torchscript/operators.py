"""What the nodes of a TorchScript graph compute: Python's part by name, torch's by its schema."""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mpsearch.errors import InputError
from mpsearch.graph.exporting import BRANCHES_ON_DATA, NAMES


def operator_of(node: Any) -> Callable[[list[Any]], Sequence[Any]]:
    """The function from a node's inputs to its outputs. Raises InputError naming the operator when
    there is none."""
    kind = node.kind()
    if kind in _SEVERAL:
        return lambda args: _SEVERAL[kind](args)
    if kind == "prim::RaiseException":
        return _raise
    known = _PYTHON.get(kind)
    if known is not None:
        return lambda args: [known(*args)]
    if kind in _NUMBERS:
        return lambda args: [_on_numbers(node, args)]
    if kind.startswith("aten::"):
        return lambda args: _call(node, args)
    raise InputError(f"the TorchScript archive uses {kind}, which has no counterpart here")


def _raise(args: list[Any]) -> Sequence[Any]:
    raise InputError(f"the network raises an exception on the example inputs: {args[0]!s:.200}")


def _call(node: Any, args: list[Any]) -> Sequence[Any]:
    """An operator of torch, at the overload that the graph names."""
    name = node.schema().partition("(")[0].partition("::")[2]
    packet, _, overload = name.partition(".")
    if packet in _CONVOLUTIONS:
        return [_CONVOLUTIONS[packet](*args)]
    try:
        found = getattr(getattr(torch.ops.aten, packet), overload or "default")
    except (AttributeError, RuntimeError) as error:
        raise InputError(
            f"the TorchScript archive uses aten::{name}, which has no counterpart here"
        ) from error
    parameters = found._schema.arguments
    positional = [a for a, p in zip(args, parameters, strict=True) if not p.kwarg_only]
    named = {p.name: a for a, p in zip(args, parameters, strict=True) if p.kwarg_only}
    if packet in NAMES:
        _check_states(positional)
    result = found(*positional, **named)
    if node.outputsSize() == 1:
        return [result]
    return list(result) if node.outputsSize() else []


def _check_states(args: Sequence[Any]) -> None:
    """torch checks in nn.LSTM: the operator itself reads beyond states that do not fit."""
    x, states, batch_first = args[0], args[1], args[-1]
    for state in states if isinstance(states, list | tuple) else [states]:
        samples = x.shape[0 if batch_first else 1] if x.dim() == 3 else None
        if state.dim() != 3 or samples is None or state.shape[1] != samples:
            raise InputError(
                f"a recurrent layer gets an input of shape {tuple(x.shape)} and a state of shape "
                f"{tuple(state.shape)}; expected as many samples in both"
            )


def _on_numbers(node: Any, args: list[Any]) -> Any:
    """Arithmetic in Python where no tensor takes part: sizes stay sizes of the batch."""
    if any(isinstance(arg, torch.Tensor) for arg in args):
        return _call(node, args)[0]
    return _NUMBERS[node.kind()](*args)


def _whole(value: Any) -> Any:
    return _from_data(value, int) if isinstance(value, torch.Tensor | float | bool) else value


def _real(value: Any) -> Any:
    return _from_data(value, float)


def _truth(value: Any) -> bool:
    return bool(_from_data(value, bool))


def _from_data(value: Any, kind: Callable[[Any], Any]) -> Any:
    """A tensor as a number, which torch.export allows for constants only."""
    try:
        return kind(value)
    except Exception as error:  # whatever torch.export says about a value that it does not know
        raise InputError(BRANCHES_ON_DATA) from error


def _convolution(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int, *_: Any,
) -> torch.Tensor:  # fmt: skip
    """What tracing writes for every convolution, as the operator of its number of dimensions."""
    aten, dims = torch.ops.aten, weight.dim() - 2
    if transposed:
        found = {1: aten.conv_transpose1d, 2: aten.conv_transpose2d, 3: aten.conv_transpose3d}
        options = (bias, stride, padding, output_padding, groups, dilation)
        return found[dims](x, weight, *options)  # type: ignore[no-any-return]
    plain = {1: aten.conv1d, 2: aten.conv2d, 3: aten.conv3d}
    return plain[dims](x, weight, bias, stride, padding, dilation, groups)  # type: ignore[no-any-return]


def _convolution_mode(
    x: Any, weight: Any, bias: Any, stride: Any, padding: str, dilation: Any, groups: int
) -> torch.Tensor:
    aten = torch.ops.aten
    plain = {1: aten.conv1d, 2: aten.conv2d, 3: aten.conv3d}[weight.dim() - 2]
    return plain(x, weight, bias, stride, padding, dilation, groups)  # type: ignore[no-any-return]


def _slice(values: Any, start: Any, stop: Any, step: Any) -> Any:
    return values[slice(start, stop, step)]


def _dictionary(args: list[Any]) -> list[Any]:
    return [dict(zip(args[::2], args[1::2], strict=True))]


def _set_item(values: Any, key: Any, value: Any) -> Any:
    values[key] = value
    return values


def _append(values: list[Any], value: Any) -> list[Any]:
    values.append(value)
    return values


_CONVOLUTIONS: dict[str, Callable[..., Any]] = {
    "_convolution": _convolution,
    "_convolution_mode": _convolution_mode,
}

# Nodes by how many outputs they have: (inputs) -> outputs.
_SEVERAL: dict[str, Callable[[list[Any]], Sequence[Any]]] = {
    "prim::ListConstruct": lambda args: [list(args)],
    "prim::TupleConstruct": lambda args: [tuple(args)],
    "prim::DictConstruct": _dictionary,
    "prim::ListUnpack": lambda args: list(args[0]),
    "prim::TupleUnpack": lambda args: list(args[0]),
    "prim::Print": lambda args: [],
    "aten::warn": lambda args: [],
    "aten::_set_item": lambda args: [_set_item(*args)],
}

# What TorchScript does with values that are no tensors, or with a tensor's own description.
_PYTHON: dict[str, Callable[..., Any]] = {
    "prim::TupleIndex": operator.getitem,
    "prim::NumToTensor": lambda value: value,
    "prim::Uninitialized": lambda: None,
    "prim::unchecked_cast": lambda value: value,
    "prim::data": lambda x: x,
    "prim::dtype": lambda x: x.dtype,
    "prim::device": lambda x: x.device,
    "prim::layout": lambda x: x.layout,
    "prim::type": lambda device: device.type,
    "prim::requires_grad": lambda x: True,  # torch then takes the path without fused kernels
    "prim::is_cuda": lambda x: x.is_cuda,
    "prim::is_nested": lambda x: x.is_nested,
    "prim::is_quantized": lambda x: x.is_quantized,
    "prim::is_sparse": lambda x: x.is_sparse,
    "prim::is_meta": lambda x: False,
    "prim::is_mkldnn": lambda x: False,
    "prim::min": min,
    "prim::max": max,
    "aten::size": lambda x, *dim: x.shape[dim[0]] if dim else list(x.shape),
    "aten::dim": lambda x: x.dim(),
    "aten::len": len,
    "aten::numel": lambda x: x.numel(),
    "aten::is_floating_point": lambda x: x.is_floating_point(),
    "aten::is_grad_enabled": lambda: True,
    "aten::__is__": operator.is_,
    "aten::__isnot__": operator.is_not,
    "aten::__not__": operator.not_,
    "aten::__contains__": operator.contains,
    "aten::__getitem__": operator.getitem,
    "aten::append": _append,
    "aten::list": list,
    "aten::keys": lambda values: list(values.keys()),
    "aten::values": lambda values: list(values.values()),
    "aten::items": lambda values: list(values.items()),
    "aten::format": lambda text, *values: text.format(*values),
    "aten::str": str,
    "aten::Int": _whole,
    "aten::IntImplicit": _whole,
    "aten::Float": _real,
    "aten::FloatImplicit": _real,
    "aten::ScalarImplicit": lambda value: value,
    "aten::Bool": _truth,
    "aten::range": lambda *bounds: list(range(*bounds)),
    "aten::__range_length": lambda low, high, step: len(range(low, high, step)),
    "aten::__derive_index": lambda index, start, step: start + index * step,
}

# Names that tensors have, too.
_NUMBERS: dict[str, Callable[..., Any]] = {
    "aten::add": lambda a, b, *_: a + b,
    "aten::sub": lambda a, b, *_: a - b,
    "aten::mul": operator.mul,
    "aten::div": lambda a, b, mode=None: a / b if mode is None else a // b,
    "aten::floordiv": operator.floordiv,
    "aten::floor_divide": operator.floordiv,
    "aten::remainder": operator.mod,
    "aten::neg": operator.neg,
    "aten::pow": operator.pow,
    "aten::sqrt": math.sqrt,
    "aten::floor": math.floor,
    "aten::ceil": math.ceil,
    "aten::round": round,
    "aten::log": math.log,
    "aten::abs": abs,
    "aten::eq": operator.eq,
    "aten::ne": operator.ne,
    "aten::lt": operator.lt,
    "aten::le": operator.le,
    "aten::gt": operator.gt,
    "aten::ge": operator.ge,
    "aten::__and__": operator.and_,
    "aten::__or__": operator.or_,
    "aten::__xor__": operator.xor,
    "aten::slice": _slice,
}

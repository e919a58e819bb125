"""Convolutions and matrix products: the operators that become layers of the table."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from mpsearch.errors import InputError
from mpsearch.importers.onnx.calls import Call, Result
from mpsearch.importers.onnx.steps import Array
from mpsearch.importers.onnx.windows import Window, pad_spatial, window_of

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def _conv(call: Call) -> Result:
    x, weight = call.tensor(0), call.weight(1, "weight")
    window = window_of(call, x, tuple(weight.shape[2:]))
    if not window.is_symmetric:
        x, window = pad_spatial(x, window.begin, window.end, 0.0), window.without_padding()
    return _CONVOLUTIONS[_rank(window)](
        x,
        weight,
        call.weight(2, "bias") if call.has(2) else None,
        window.strides,
        window.begin,
        window.dilations,
        call.attribute("group", 1),
    )


def _conv_transpose(call: Call) -> Result:
    x, weight = call.tensor(0), call.weight(1, "weight")
    bias = call.weight(2, "bias") if call.has(2) else None
    window = window_of(call, x, tuple(weight.shape[2:]), transposed=True)
    extra = tuple(call.attribute("output_padding", [0] * _rank(window)))
    convolve, groups = _TRANSPOSED[_rank(window)], call.attribute("group", 1)
    # torch takes off as much at the end as at the beginning and gives `output_padding` back
    back = tuple(o + b - e for o, b, e in zip(extra, window.begin, window.end, strict=True))
    most = tuple(max(s, d) for s, d in zip(window.strides, window.dilations, strict=True))
    if all(0 <= b < m for b, m in zip(back, most, strict=True)) and min(window.begin) >= 0:
        return convolve(
            x, weight, bias, window.strides, window.begin, back, groups, window.dilations
        )
    zero = (0,) * _rank(window)
    y = convolve(x, weight, bias, window.strides, zero, extra, groups, window.dilations)
    return pad_spatial(y, tuple(-b for b in window.begin), tuple(-e for e in window.end), 0.0)


def _rank(window: Window) -> int:
    rank = len(window.strides)
    if rank not in _CONVOLUTIONS:
        raise InputError(f"got {rank} spatial dimensions; expected 1, 2 or 3")
    return rank


def _gemm(call: Call) -> Result:
    """alpha·A'·B' + beta·C; with a constant B a linear layer, its factors in the weights."""
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    turned = bool(call.attribute("transB", 0))
    a = call.tensor(0).t() if call.attribute("transA", 0) else call.tensor(0)
    if call.is_constant(1):
        weight = call.weight(1, "weight", _layout(not turned, alpha), f"{turned} {alpha}")
        width = weight.shape[0]
        if not call.has(2):
            return F.linear(a, weight)
        if call.is_constant(2) and call.host(2).size in (1, width):
            row = call.weight(2, "bias", _row(width, beta), f"{width} {beta}")
            return F.linear(a, weight, row)
        return F.linear(a, weight) + beta * call.tensor(2)
    b = call.tensor(1).t() if turned else call.tensor(1)
    product = alpha * torch.matmul(a, b)
    return product + beta * call.tensor(2) if call.has(2) else product


def _layout(turn: bool, factor: float) -> Callable[[Array], Array]:
    """The weight as torch stores it, [outputs, inputs], times a factor."""
    return lambda array: (array.T if turn else array) * np.float32(factor)


def _row(width: int, factor: float) -> Callable[[Array], Array]:
    return lambda array: np.broadcast_to(array.reshape(-1), (width,)) * np.float32(factor)


def _matmul(call: Call) -> Result:
    """x·W with a constant matrix W [inputs, outputs] is a linear layer; a third input its bias."""
    if call.is_constant(1) and call.host(1).ndim == 2 and not call.is_constant(0):
        weight = call.weight(1, "weight", _layout(True, 1.0), "transposed")
        return F.linear(call.tensor(0), weight, call.weight(2, "bias") if call.has(2) else None)
    if call.is_constant(0) and call.host(0).ndim == 2 and call.tensor(1).dim() >= 2:
        # W·x = (xᵀ·Wᵀ)ᵀ: W is stored as torch stores a linear weight already
        return F.linear(call.tensor(1).transpose(-1, -2), call.weight(0, "weight")).transpose(
            -1, -2
        )
    return torch.matmul(call.tensor(0), call.tensor(1))


WEIGHTED: dict[str, Callable[[Call], Result]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Einsum": lambda call: torch.einsum(
        call.attribute("equation", ""), *[call.tensor(index) for index in range(len(call))]
    ),
}

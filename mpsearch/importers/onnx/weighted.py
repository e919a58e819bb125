"""Convolutions and matrix products: the operators that become layers of the table.

Sliding windows: kernel, strides, dilations and the padding that ONNX writes in five ways.

Attention as one operator (opset 23), as torch's newer exporter writes it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from mpsearch.errors import InputError
from mpsearch.importers.onnx.calls import Call, Result
from mpsearch.importers.onnx.steps import Array


@dataclass(frozen=True)
class Window:
    """One entry per spatial dimension; `begin` and `end` are the padding on both sides.

    `outputs` counts the windows, `overhang` how far the last one reaches over the padded input
    (only where `ceil_mode` asks for it).
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    outputs: tuple[int, ...]
    overhang: tuple[int, ...]

    @property
    def is_symmetric(self) -> bool:
        """True when the same is padded before and after."""
        return self.begin == self.end

    def without_padding(self) -> "Window":
        """The same window over an input that is padded already."""
        zero = (0,) * len(self.begin)
        return replace(self, begin=zero, end=zero)


def window_of(
    call: Call, x: torch.Tensor, kernel: tuple[int, ...], transposed: bool = False
) -> Window:
    """The window of a convolution or pooling over `x` [N, C, …]."""
    rank = len(kernel)
    sizes = [int(size) for size in x.shape[2:]]
    if len(sizes) != rank:
        raise InputError(f"got an input of {x.dim()} dimensions for a kernel of {rank}")
    strides = _sizes(call, "strides", rank, 1)
    dilations = _sizes(call, "dilations", rank, 1)
    given = tuple(call.attribute("pads", [0] * 2 * rank))
    if len(given) != 2 * rank:
        raise InputError(f"got {len(given)} values of pads; expected {2 * rank}")
    extents = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True))
    if transposed:
        begin, end = _transposed_padding(call, sizes, extents, strides, given)
    else:
        begin, end = _padding(call, sizes, extents, strides, given)
    padded = [s + b + e for s, b, e in zip(sizes, begin, end, strict=True)]
    outputs, overhang = [], []
    for axis in range(rank):
        room = padded[axis] - extents[axis]
        count = room // strides[axis] + 1
        if call.attribute("ceil_mode", 0) and room % strides[axis]:
            # one more window, if it begins inside of the input or the padding before it
            count += count * strides[axis] < sizes[axis] + begin[axis]
        outputs.append(count)
        overhang.append(max(0, (count - 1) * strides[axis] + extents[axis] - padded[axis]))
    return Window(kernel, strides, dilations, begin, end, tuple(outputs), tuple(overhang))


def _sizes(call: Call, name: str, rank: int, default: int) -> tuple[int, ...]:
    values = tuple(call.attribute(name, [default] * rank))
    if len(values) != rank or min(values, default=1) < 1:
        raise InputError(f"got {name} {list(values)}; expected {rank} positive numbers")
    return values


def _padding(
    call: Call,
    sizes: Sequence[int],
    extents: Sequence[int],
    strides: Sequence[int],
    given: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = len(sizes)
    mode = call.attribute("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return given[:rank], given[rank:]
    if mode == "VALID":
        return (0,) * rank, (0,) * rank
    totals = [
        max(0, (math.ceil(size / stride) - 1) * stride + extent - size)
        for size, extent, stride in zip(sizes, extents, strides, strict=True)
    ]
    return _halves(totals, larger_at_end=mode == "SAME_UPPER")


def _transposed_padding(
    call: Call,
    sizes: Sequence[int],
    extents: Sequence[int],
    strides: Sequence[int],
    given: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = len(sizes)
    mode = call.attribute("auto_pad", "NOTSET")
    wanted: Sequence[int] | None = call.step.attributes.get("output_shape")
    if wanted is None and mode.startswith("SAME"):
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    if wanted is None:
        return ((0,) * rank, (0,) * rank) if mode == "VALID" else (given[:rank], given[rank:])
    extra = call.attribute("output_padding", [0] * rank)
    totals = [
        stride * (size - 1) + more + extent - out
        for size, stride, more, extent, out in zip(
            sizes, strides, extra, extents, wanted[-rank:], strict=True
        )
    ]
    return _halves(totals, larger_at_end=mode == "SAME_UPPER")


def _halves(totals: Sequence[int], larger_at_end: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    small = tuple(total // 2 for total in totals)
    large = tuple(total - total // 2 for total in totals)
    return (small, large) if larger_at_end else (large, small)


def pad_spatial(
    x: torch.Tensor, begin: Sequence[int], end: Sequence[int], value: float
) -> torch.Tensor:
    """Pad (or, where negative, crop) the dimensions behind the channels by a constant."""
    amounts: list[int] = []
    for before, after in zip(reversed(begin), reversed(end), strict=True):
        amounts += [before, after]
    if not any(amounts):
        return x
    return F.pad(x, amounts, "constant", value)


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


def _attention(call: Call) -> Result:
    """softmax(Q·Kᵀ·scale + mask)·V over heads; inputs [N, heads, T, d] or [N, T, heads·d]."""
    if any(call.has(index) for index in range(4, len(call))) or any(call.step.outputs[1:]):
        raise InputError("got a cache of keys and values; expected plain attention")
    unusual = {"softcap", "left_window_size", "right_window_size"} & set(call.step.attributes)
    if any(call.step.attributes[name] not in (0.0, -1) for name in unusual):
        raise InputError(f"got {', '.join(sorted(unusual))}; expected plain attention")
    query, key, value = (call.tensor(index) for index in range(3))
    flat = query.dim() == 3
    if flat:
        heads = call.attribute("q_num_heads", 0)
        shared = call.attribute("kv_num_heads", 0)
        query, key, value = _apart(query, heads), _apart(key, shared), _apart(value, shared)
    groups = int(query.shape[1]) // int(key.shape[1])
    if groups > 1:
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    mask = call.tensor(3) if call.has(3) else None
    causal = bool(call.attribute("is_causal", 0))
    if causal and mask is not None:
        raise InputError("got a mask and is_causal; expected one of them")
    scale = call.step.attributes.get("scale") or None
    y = F.scaled_dot_product_attention(query, key, value, mask, 0.0, causal, scale=scale)
    return y.transpose(1, 2).flatten(2) if flat else y


def _apart(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


ATTENTION: dict[str, Callable[[Call], Result]] = {"Attention": _attention}

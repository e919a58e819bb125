"""Operators that work element by element, in whichever layout their inputs lie; reductions.

Activations, norms over channels and what LiteRT has no single ONNX operator for.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.importers.litert.node import Node
from mpsearch.importers.litert.translation import FIRST, LAST, to_first
from mpsearch.importers.onnx.spectral import IMAG, REAL, RFFT2D


def aligned(node: Node, indices: Sequence[int]) -> tuple[list[str], str]:
    """The inputs in one layout; with channels first where one lies so already."""
    rank = max(len(node.shape(index)) for index in indices)
    computed = [index for index in indices if not node.is_constant(index)]
    whole = all(len(node.shape(i)) == rank or node.shape(i) == () for i in computed)
    if rank < 3 or not whole or not any(node.lies_first(i) for i in computed):
        return [node.plain(index) for index in indices], LAST
    names = []
    for index in indices:
        shape = node.shape(index)
        if index in computed:
            names.append(node.first(index) if shape else node.plain(index))
        elif node.array(index).size == 1:
            names.append(node.plain(index))
        else:
            array = node.array(index).reshape((1,) * (rank - len(shape)) + shape)
            names.append(node.constant("operand", array.transpose(to_first(rank))))
    return names, FIRST


def first_axis(axis: int, rank: int) -> int:
    """Where an axis of the file lies with channels first: 3 of 4 -> 1."""
    if axis == 0:
        return 0
    return 1 if axis == rank - 1 else axis + 1


def axis_in(node: Node, axis: int, layout: str, index: int = 0) -> int:
    """An axis of an input, as the file has it, in the layout. Raises InputError out of range."""
    rank = len(node.shape(index))
    if not -rank <= axis < rank:
        raise InputError(f"got axis {axis} for {rank} axes")
    axis %= rank
    return first_axis(axis, rank) if layout == FIRST else axis


def unary(node: Node, index: int = 0) -> tuple[str, str]:
    """The name of one input as it lies, and its layout."""
    if node.lies_first(index):
        return node.first(index), FIRST
    return node.plain(index), LAST


def _unary(operator: str, **attributes: Any) -> Callable[[Node], None]:
    def handler(node: Node) -> None:
        name, layout = unary(node)
        node.write(operator, [name], layout, **attributes)

    return handler


def _binary(operator: str) -> Callable[[Node], None]:
    def handler(node: Node) -> None:
        names, layout = aligned(node, (0, 1))
        node.write(operator, names, layout)

    return handler


def _squared_difference(node: Node) -> None:
    names, layout = aligned(node, (0, 1))
    difference = node.emit("Sub", *names)
    node.write("Mul", [difference, difference], layout)


def _square(node: Node) -> None:
    name, layout = unary(node)
    node.write("Mul", [name, name], layout)


def _rsqrt(node: Node) -> None:
    name, layout = unary(node)
    node.write("Reciprocal", [node.emit("Sqrt", name)], layout)


def _floor_div(node: Node) -> None:
    names, layout = aligned(node, (0, 1))
    quotient = node.emit("Div", *names)
    node.write("Floor" if "FLOAT" in node.tensor(0).kind else "Identity", [quotient], layout)


def _not_equal(node: Node) -> None:
    names, layout = aligned(node, (0, 1))
    node.write("Not", [node.emit("Equal", *names)], layout)


def _sum_of_all(node: Node) -> None:
    names, layout = aligned(node, range(len(node.operator.inputs)))
    node.write("Sum", names, layout)


def _prelu(node: Node) -> None:
    names, layout = aligned(node, (0, 1))
    if layout == FIRST and node.is_constant(1):
        slope = node.translation.constants[names[1]]
        if slope.ndim == 4 and slope.shape[0] == 1:
            names[1] = node.constant("alpha", slope[0])
    node.write("PRelu", names, layout)


def _leaky_relu(node: Node) -> None:
    name, layout = unary(node)
    node.write("LeakyRelu", [name], layout, alpha=float(node.option("alpha", 0.0)))


def _gelu(node: Node) -> None:
    name, layout = unary(node)
    how = "tanh" if node.option("approximate", False) else "none"
    node.write("Gelu", [name], layout, approximate=how)


def _softmax(operator: str) -> Callable[[Node], None]:
    def handler(node: Node) -> None:
        name, layout = unary(node)
        beta = float(node.option("beta", 1.0))
        if beta not in (0.0, 1.0):
            name = node.emit("Mul", name, node.constant("beta", np.float32(beta)))
        node.write(operator, [name], layout, axis=axis_in(node, -1, layout))

    return handler


def _select(node: Node) -> None:
    """Like numpy's `where`; the older SELECT chooses whole rows by a condition of one axis."""
    rank = len(node.shape(1))
    if len(node.shape(0)) == 1 and rank > 1 and node.operator.name == "SELECT":
        axes = node.sizes("axes", range(1, rank))
        condition = node.emit("Unsqueeze", node.plain(0), axes)
        node.write("Where", [condition, node.plain(1), node.plain(2)])
        return
    names, layout = aligned(node, (0, 1, 2))
    node.write("Where", names, layout)


_CASTS = {"FLOAT32": 1, "FLOAT16": 1, "FLOAT64": 1, "UINT8": 2, "INT8": 3, "INT16": 5, "INT32": 6,
          "UINT32": 7, "INT64": 7, "BOOL": 9}  # fmt: skip
_COMPLEX = ("COMPLEX64", "COMPLEX128")


def _cast(node: Node) -> None:
    kind = node.translation.tensor(node.output).kind
    if kind not in _CASTS:
        raise InputError(f"it casts to {kind}; expected floats, integers or bools")
    name, layout = unary(node)
    if node.tensor(0).kind in _COMPLEX:
        name = node.emit(REAL, name)
    node.write("Cast", [name], layout, to=_CASTS[kind])


def _spectrum(node: Node) -> None:
    """Of the last two axes; a complex number is one element, as in the file."""
    node.write(RFFT2D, [node.plain(0), node.sizes("sizes", node.integers(1, 2))])


def _l2_normalization(node: Node) -> None:
    """x/√max(Σx², 1e-6) over the channels."""
    name, layout = unary(node)
    axis = axis_in(node, -1, layout)
    total = node.emit("ReduceSum", node.emit("Mul", name, name), axes=[axis], keepdims=1)
    floor = node.emit("Clip", total, min=1e-6)
    node.write("Div", [name, node.emit("Sqrt", floor)], layout)


def _local_response(node: Node) -> None:
    """x/(bias + alpha·Σx²)^beta over 2·radius + 1 channels."""
    size = 2 * int(node.option("radius")) + 1
    settings: dict[str, Any] = {name: float(node.option(name)) for name in ("bias", "beta")}
    alpha = size * float(node.option("alpha"))
    node.write("LRN", [node.first(0, 4)], FIRST, size=size, alpha=alpha, **settings)


def _reduction(operator: str) -> Callable[[Node], None]:
    """Over constant axes; what lies with channels first stays so while the channels stay."""

    def handler(node: Node) -> None:
        rank, keep = len(node.shape(0)), bool(node.option("keepDims", False))
        given = node.integers(1)
        if any(not -rank <= axis < rank for axis in given):
            raise InputError(f"got the axes {given[:8]} for {rank} axes")
        axes = sorted({axis % rank for axis in given})
        if not axes:
            node.alias()  # over no axes
            return
        first = node.lies_first(0) and (keep or 0 not in axes)
        stays = first and (keep or (rank - 1 not in axes and rank - len(axes) >= 3))
        moved = [first_axis(axis, rank) if first else axis for axis in axes]
        name = node.first(0) if first else node.plain(0)
        node.write(operator, [name], FIRST if stays else LAST, axes=moved, keepdims=int(keep))

    return handler


def _arg(operator: str) -> Callable[[Node], None]:
    def handler(node: Node) -> None:
        (axis,) = node.integers(1, 1)
        node.write(operator, [node.plain(0)], axis=axis_in(node, axis, LAST), keepdims=0)

    return handler


def _top_k(node: Node) -> None:
    (count,) = node.integers(1, 1)
    names = [node.translation.written(number, LAST) for number in node.operator.outputs]
    node.translation.step("TopK", [node.plain(0), node.sizes("k", [count])], names, axis=-1)


def _cumulative_sum(node: Node) -> None:
    (axis,) = node.integers(1, 1)
    flags: dict[str, Any] = {
        name: int(bool(node.option(name, False))) for name in ("exclusive", "reverse")
    }
    axis = axis_in(node, axis, LAST)
    node.write("CumSum", [node.plain(0), node.sizes("axis", [axis])], **flags)


def _one_hot(node: Node) -> None:
    (depth,) = node.integers(1, 1)
    on, off = (node.array(index).reshape(-1)[:1] for index in (2, 3))
    values = node.constant("off and on", np.concatenate([off, on]))
    axis = int(node.option("axis", -1))
    node.write("OneHot", [node.plain(0), node.sizes("depth", [depth]), values], axis=axis)


ELEMENTWISE: dict[str, Callable[[Node], None]] = {
    **{
        name: _unary(operator)
        for name, operator in {
            "RELU": "Relu", "LOGISTIC": "Sigmoid", "TANH": "Tanh", "HARD_SWISH": "HardSwish",
            "ELU": "Elu", "EXP": "Exp", "LOG": "Log", "SQRT": "Sqrt", "NEG": "Neg", "ABS": "Abs",
            "FLOOR": "Floor", "CEIL": "Ceil", "ROUND": "Round", "SIN": "Sin", "COS": "Cos",
            "SIGN": "Sign", "LOGICAL_NOT": "Not",
        }.items()
    },
    **{
        name: _binary(operator)
        for name, operator in {
            "ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div", "MAXIMUM": "Max",
            "MINIMUM": "Min", "POW": "Pow", "FLOOR_MOD": "Mod", "EQUAL": "Equal", "LESS": "Less",
            "GREATER": "Greater", "LESS_EQUAL": "LessOrEqual", "GREATER_EQUAL": "GreaterOrEqual",
            "LOGICAL_AND": "And", "LOGICAL_OR": "Or",
        }.items()
    },
    "RELU6": _unary("Clip", min=0.0, max=6.0),
    "RELU_N1_TO_1": _unary("Clip", min=-1.0, max=1.0),
    "RELU_0_TO_1": _unary("Clip", min=0.0, max=1.0),
    "NOT_EQUAL": _not_equal,
    "SQUARED_DIFFERENCE": _squared_difference,
    "SQUARE": _square,
    "RSQRT": _rsqrt,
    "FLOOR_DIV": _floor_div,
    "ADD_N": _sum_of_all,
    "PRELU": _prelu,
    "LEAKY_RELU": _leaky_relu,
    "GELU": _gelu,
    "SOFTMAX": _softmax("Softmax"),
    "LOG_SOFTMAX": _softmax("LogSoftmax"),
    "SELECT": _select,
    "SELECT_V2": _select,
    "CAST": _cast,
    "QUANTIZE": Node.alias,
    "DEQUANTIZE": Node.alias,
    "DENSIFY": Node.alias,
    "FAKE_QUANT": Node.alias,
    "RFFT2D": _spectrum,
    "COMPLEX_ABS": _unary("Abs"),
    "REAL": _unary(REAL),
    "IMAG": _unary(IMAG),
    "L2_NORMALIZATION": _l2_normalization,
    "LOCAL_RESPONSE_NORMALIZATION": _local_response,
}  # fmt: skip

REDUCING: dict[str, Callable[[Node], None]] = {
    "MEAN": _reduction("ReduceMean"),
    "SUM": _reduction("ReduceSum"),
    "REDUCE_MAX": _reduction("ReduceMax"),
    "REDUCE_MIN": _reduction("ReduceMin"),
    "REDUCE_PROD": _reduction("ReduceProd"),
    "ARG_MAX": _arg("ArgMax"),
    "ARG_MIN": _arg("ArgMin"),
    "TOPK_V2": _top_k,
    "CUMSUM": _cumulative_sum,
    "ONE_HOT": _one_hot,
}

"""Convolutions, matrix products and embeddings: the operators that become layers of the table.

LiteRT's weights: convolutions [out, height, width, in], depthwise [1, height, width, channels·m],
linear layers [out, in].
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.importers.litert.node import Node
from mpsearch.importers.litert.reading import Array
from mpsearch.importers.litert.translation import FIRST, FLAT, LAST

_PADDING = {0: "SAME_UPPER", 1: "VALID"}


def padding_of(node: Node) -> str:
    """SAME or VALID as ONNX calls them."""
    kind = int(node.option("padding"))
    if kind not in _PADDING:
        raise InputError(f"got the padding {kind}; expected SAME or VALID")
    return _PADDING[kind]


def strides_of(node: Node) -> list[int]:
    """Steps down and to the right, from 1 on."""
    strides = [int(node.option(name)) for name in ("strideH", "strideW")]
    if min(strides) < 1:
        raise InputError(f"got the strides {strides}; expected numbers from 1 on")
    return strides


def _settings(node: Node) -> dict[str, Any]:
    dilations = [int(node.option(f"dilation{axis}Factor", 1)) for axis in "HW"]
    around = node.option("around", ())
    if around:  # top, bottom, left, right
        pads = {"pads": [*around[::2], *around[1::2]]}
        return {"strides": strides_of(node), "dilations": dilations, **pads}
    return {"strides": strides_of(node), "dilations": dilations, "auto_pad": padding_of(node)}


def _weight_shape(node: Node, rank: int) -> tuple[int, ...]:
    shape = node.shape(1)
    if len(shape) != rank:
        raise InputError(f"its weight has the shape {list(shape)}; expected {rank} axes")
    return shape


def _bias(node: Node, index: int, size: int) -> list[str]:
    if not node.has(index):
        return []
    if node.shape(index) != (size,):
        raise InputError(f"its bias has the shape {list(node.shape(index))}; expected {[size]}")
    if not node.array(index).any():  # LiteRT's convolutions cannot be without
        return []
    return [node.weight(index, "bias", lambda bias: bias, f"of {node.number}")]


def _convolution(node: Node) -> None:
    """Fewer inputs per filter than channels: a grouped convolution."""
    out, *_, depth = _weight_shape(node, 4)
    channels = node.shape(0)[-1] if node.shape(0) else 0
    if depth == 0 or channels % depth or out % (channels // depth):
        raise InputError(f"its weight reads {depth} of {channels} channels")
    weight = node.weight(1, "weight", lambda array: array.transpose(0, 3, 1, 2))
    names = [node.first(0, 4), weight, *_bias(node, 2, out)]
    node.write("Conv", names, FIRST, group=channels // depth, **_settings(node))


def _depthwise(node: Node) -> None:
    out = _weight_shape(node, 4)[3]
    channels = node.shape(0)[-1] if node.shape(0) else 0
    if channels == 0 or out % channels or node.shape(1)[0] != 1:
        raise InputError(f"its weight has the shape {list(node.shape(1))} for {channels} channels")
    weight = node.weight(1, "weight", lambda array: array.transpose(3, 0, 1, 2))
    names = [node.first(0, 4), weight, *_bias(node, 2, out)]
    node.write("Conv", names, FIRST, group=channels, **_settings(node))


def _transposed(node: Node) -> None:
    """The gradient of a convolution: `output_shape`, weight, input and maybe a bias.

    What (n − 1)·stride + kernel has more than the output is cut, half of it before (SAME).
    """
    out, *kernel, _ = _weight_shape(node, 4)
    strides, same = strides_of(node), padding_of(node) == "SAME_UPPER"
    before: list[int] = []
    after: list[int] = []
    more: list[int] = []
    wanted_sizes = node.integers(0, 4)[1:3]
    sizes = zip(node.shape(2)[1:3], kernel, strides, wanted_sizes, strict=True)
    for size, window, stride, wanted in sizes:
        cut = (size - 1) * stride + window - wanted
        more.append(max(0, -cut))
        before.append(max(0, cut) // 2 if same else 0)
        after.append(max(0, cut) - before[-1])
    weight = node.weight(1, "weight", lambda array: array.transpose(3, 0, 1, 2))
    names = [node.first(2, 4), weight, *_bias(node, 3, out)]
    node.write(
        "ConvTranspose", names, FIRST, strides=strides, pads=before + after, output_padding=more
    )


def _fully_connected(node: Node) -> None:
    """Over the last axis; without `keepNumDims` everything ahead of it is one axis."""
    out, width = _weight_shape(node, 2)
    if node.option("weightsFormat"):
        raise InputError("its weight is shuffled for one processor; expected the plain order")
    if not node.is_constant(1):
        turned = node.emit("Transpose", node.plain(1), perm=[1, 0])
        product = node.emit("MatMul", _rows(node, width), turned)
        zero = np.zeros(1, np.float32)
        row = node.plain(2) if node.has(2) else node.constant("no bias", zero)
        node.write("Add", [product, row])
        return
    bias = _bias(node, 2, out)
    number = node.input(0)
    forms = node.translation.forms.get(number, {})
    if FLAT in forms and LAST not in forms and node.shape(0)[-1] == width:
        image = node.translation.shape(node.translation.images[number])[1:]
        weight = node.weight(1, "weight", _columns(image), f"of the image {image}")
        node.write("Gemm", [forms[FLAT], weight, *bias], transB=1)
        return
    weight = node.weight(1, "weight", lambda array: array)
    node.write("Gemm", [_rows(node, width), weight, *bias], transB=1)


def _columns(image: tuple[int, ...]) -> Callable[[Array], Array]:
    """The columns of an image with channels last, in the order of channels first."""
    return lambda array: np.moveaxis(array.reshape(-1, *image), -1, 1).reshape(len(array), -1)


def _rows(node: Node, width: int) -> str:
    shape = node.shape(0)
    if node.option("keepNumDims", False) or (len(shape) == 2 and shape[1] == width):
        return node.plain(0)
    count = math.prod(shape)
    if width == 0 or count % width:
        raise InputError(f"its input has the shape {list(shape)} for a weight of {width} columns")
    return node.emit("Reshape", node.plain(0), node.sizes("rows", (count // width, width)))


def _batch_matmul(node: Node) -> None:
    names = []
    for index, flag in enumerate(("adjX", "adjY")):
        rank, turned = len(node.shape(index)), bool(node.option(flag, False))
        if index and node.is_constant(1) and math.prod(node.shape(1)[:-2]) == 1 and rank >= 2:
            change = _matrix(turned)
            names.append(node.weight(1, "weight", change, f"matrix {turned}"))
            continue
        name = node.plain(index)
        if turned:
            order = [*range(rank - 2), rank - 1, rank - 2]
            name = node.emit("Transpose", name, perm=order)
        names.append(name)
    node.write("MatMul", names)


def _matrix(turned: bool) -> Callable[[Array], Array]:
    def change(array: Array) -> Array:
        matrix = array.reshape(array.shape[-2:])
        return matrix.T if turned else matrix

    return change


def _embedding(node: Node) -> None:
    """EMBEDDING_LOOKUP: numbers of rows, then the table."""
    if not node.is_constant(1):
        raise InputError("its table depends on the data; expected a constant")
    node.write("Gather", [node.weight(1, "weight", lambda table: table), node.plain(0)], axis=0)


def _gather(node: Node) -> None:
    axis = int(node.option("axis")) % max(1, len(node.shape(0)))
    if node.option("batchDims"):
        raise InputError("got batch_dims; expected 0")
    table = node.is_constant(0) and not node.is_constant(1) and len(node.shape(0)) == 2
    if table and axis == 0 and node.array(0).dtype.kind == "f":
        source = node.weight(0, "weight", lambda table: table)
    else:
        source = node.plain(0)
    node.write("Gather", [source, node.plain(1)], axis=axis)


WEIGHTED: dict[str, Callable[[Node], None]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
    "EMBEDDING_LOOKUP": _embedding,
    "GATHER": _gather,
}

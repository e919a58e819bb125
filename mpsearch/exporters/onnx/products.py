"""Products of tensors that are both computed, layers without a weight of their own, attention."""

import math

import numpy as np
import torch

from mpsearch.exporters.onnx.activations import safe_softmax
from mpsearch.exporters.onnx.call import Call, Operand, Writer
from mpsearch.exporters.onnx.graph_builder import convolution_attributes
from mpsearch.exporters.onnx.sizes import Size
from mpsearch.graph.layers import is_transposed


def _product(first: str, second: str) -> Writer:
    return lambda call: call.computed(
        call.result.dtype, [first, second], lambda read: call.add("MatMul", read)
    )


def _added(first: str, second: str) -> Writer:
    """beta·self + alpha·(first @ second)."""

    def write(call: Call) -> str:
        made = call.add("MatMul", [call.in_type(first), call.in_type(second)])
        beta, alpha = (float(call.number(name, 1)) for name in ("beta", "alpha"))
        if alpha != 1:
            made = call.add("Mul", [made, call.scalar(alpha)])
        if beta == 0:
            return made
        read: Operand = call.in_type("self")
        if beta != 1:
            read = call.add("Mul", [read, call.scalar(beta)])
        return call.add("Add", [read, made])

    return write


def _einsum(call: Call) -> str:
    names = [call.cast(tensor, call.result.dtype) for tensor in call.tensors("tensors")]
    return call.add("Einsum", names, equation=str(call.given("equation")).replace(" ", ""))


def _bilinear(call: Call) -> str:
    names = [call.tensor(name) for name in ("input1", "input2", "weight")]
    made = call.add("Einsum", [names[0], names[2], names[1]], equation="...i,oij,...j->...o")
    return call.add("Add", [made, call.tensor("bias")]) if call.has("bias") else made


def _linear(call: Call) -> str:
    """With a weight that is computed."""
    weight = call.tensor("weight")
    turned = call.transpose(weight, list(range(weight.form.rank))[::-1])
    made = call.add("MatMul", [call.tensor("input"), turned])
    return call.add("Add", [made, call.tensor("bias")]) if call.has("bias") else made


def _convolution(call: Call) -> str:
    """With a weight that is computed, but for the batch."""
    weight, source = call.tensor("weight"), call.tensor("input")
    sizes = weight.sizes[2:]
    if not all(size.is_fixed for size in sizes):
        raise call.refuse("has a kernel whose size follows from the batch")
    attributes = convolution_attributes(call.node, [size.fixed for size in sizes])
    read: list[Operand] = [source, weight]
    whole = source.form.rank == weight.form.rank
    if not whole:
        read[0] = call.add("Unsqueeze", [source, call.whole_list([0])])
    if call.has("bias"):
        read.append(call.tensor("bias"))
    made = call.add("ConvTranspose" if is_transposed(call.node) else "Conv", read, **attributes)
    return made if whole else call.add("Squeeze", [made, call.whole_list([0])])


def _attention(call: Call) -> str:
    """softmax(Q·Kᵀ·scale + mask)·V; heads of keys and values may stand for several of queries."""
    query, key, value = (call.tensor(name) for name in ("query", "key", "value"))
    rank, width = query.form.rank, query.sizes[-1]
    scale = call.given("scale")
    scale = 1 / math.sqrt(width.fixed) if scale is None else float(call.number("scale"))
    keys, values = key.name, value.name
    if call.flag("enable_gqa") and query.sizes[-3] != key.sizes[-3]:
        times = query.sizes[-3].fixed // key.sizes[-3].fixed
        keys, values = (_repeated_heads(call, x.name, x.sizes, times) for x in (key, value))
    turned = call.transpose(keys, [*range(rank - 2), rank - 1, rank - 2])
    scaled = call.add("Mul", [query, call.scalar(scale)])
    scores = call.add("MatMul", [scaled, turned])
    masked = False
    if call.has("attn_mask"):
        mask, masked = call.tensor("attn_mask"), True
        if mask.dtype == torch.bool:
            scores = call.add("Where", [mask, scores, call.scalar(-math.inf)])
        else:
            scores = call.add("Add", [scores, mask])
    if call.flag("is_causal"):
        rows, columns = query.sizes[-2], key.sizes[-2]
        if not rows.is_fixed or not columns.is_fixed:
            raise call.refuse("masks along the batch")
        seen = np.tril(np.ones((rows.fixed, columns.fixed), dtype=bool))
        scores = call.add("Where", [call.constant(seen), scores, call.scalar(-math.inf)])
    if masked:
        shares = safe_softmax(call, scores, rank - 1)
    else:
        shares = call.add("Softmax", [scores], axis=-1)
    return call.add("MatMul", [shares, values])


def _repeated_heads(call: Call, name: str, sizes: tuple[Size, ...], times: int) -> str:
    *ahead, heads, length, width = sizes
    split = call.reshape(name, [*ahead, heads, Size(1), length, width])
    tiled = call.add("Tile", [split, call.whole_list([1] * (len(ahead) + 1) + [times, 1, 1])])
    return call.reshape(tiled, [*ahead, Size(heads.fixed * times), length, width])


_CONVOLUTIONS = (
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution"
)

WRITERS: dict[str, Writer] = {
    "matmul": _product("self", "other"),
    "mm": _product("self", "mat2"),
    "bmm": _product("self", "mat2"),
    "mv": _product("self", "vec"),
    "dot": _product("self", "tensor"),
    "addmm": _added("mat1", "mat2"),
    "addmv": _added("mat", "vec"),
    "baddbmm": _added("batch1", "batch2"),
    "einsum": _einsum,
    "bilinear": _bilinear,
    "linear": _linear,
    **dict.fromkeys(_CONVOLUTIONS.split(), _convolution),
    "scaled_dot_product_attention": _attention,
}

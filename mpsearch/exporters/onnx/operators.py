"""aten operators without weights as ONNX nodes; all of them compute in float, between QDQ pairs.

Pooling: ONNX's own operators where they mean the same, products with 0/1 matrices elsewhere.

Runtimes disagree about windows that reach over the edge (ceil_mode, padding that does not count,
another divisor), and ONNX has no adaptive pooling of any size. Sums over windows are a product:
R·x·C with R[i, h] = 1 where row h is in window i.
"""

from collections.abc import Callable

import numpy as np
from torch import fx

from mpsearch.exporters.onnx.graph_builder import (
    GraphBuilder,
    axis,
    flag,
    shape,
    spread,
    unsupported,
)
from mpsearch.graph.layers import argument, packet
from mpsearch.integer.operators import IDENTITIES, RESHAPES, clamp_range, integers, pool_windows


def max_pool(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    """MaxPool whose padding at the end gives the recorded shape, whatever torch's ceil_mode did."""
    dimensions = int(packet(node)[-2])
    source = node.args[0]
    assert isinstance(source, fx.Node)
    sizes, outputs = shape(source)[-dimensions:], shape(node)[-dimensions:]
    kernel = spread(argument(node, "kernel_size"), dimensions)
    strides = spread(argument(node, "stride") or kernel, dimensions)
    begins, dilations = (
        spread(argument(node, name), dimensions) for name in ("padding", "dilation")
    )
    ends = [
        max(0, (o - 1) * s + d * (k - 1) + 1 - n - b)
        for o, s, d, k, n, b in zip(outputs, strides, dilations, kernel, sizes, begins, strict=True)
    ]
    return build.add(
        "MaxPool", sources, node.name, kernel_shape=kernel, strides=strides,
        dilations=dilations, pads=begins + ends,
    )  # fmt: skip


def average_pool(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    """AveragePool or GlobalAveragePool, or the product."""
    name = packet(node)
    dimensions = int(name[-2])
    if dimensions > 2:
        raise unsupported(node)
    if name.startswith("adaptive"):
        if set(shape(node)[-dimensions:]) == {1}:
            return build.add("GlobalAveragePool", sources, node.name)
        return _product(build, node, sources, dimensions)
    padding = spread(argument(node, "padding"), dimensions)
    divisor = argument(node, "divisor_override") if dimensions == 2 else None
    if any(padding) or flag(node, "ceil_mode") or divisor is not None:
        return _product(build, node, sources, dimensions)
    kernel = spread(argument(node, "kernel_size"), dimensions)
    strides = spread(argument(node, "stride") or kernel, dimensions)
    return build.add("AveragePool", sources, node.name, kernel_shape=kernel, strides=strides)


def _product(build: GraphBuilder, node: fx.Node, sources: list[str], dimensions: int) -> str:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    rows, columns, counts = pool_windows(node)
    sizes, name = shape(source), node.name
    right = build.array(f"{name}/columns", _members(columns, sizes[-1]).T.copy())
    sums = build.add("MatMul", [*sources, right], f"{name}/columns/sums")
    if dimensions == 2:
        left = build.array(f"{name}/rows", _members(rows, sizes[-2]))
        sums = build.add("MatMul", [left, sums], f"{name}/sums")
    divisors = np.array(counts, dtype=np.float32)
    by = build.array(f"{name}/counts", divisors if dimensions == 2 else divisors[0])
    return build.add("Div", [sums, by], name)


def _members(windows: tuple[tuple[int, int], ...], size: int) -> np.ndarray:
    """[windows, size]: 1 where the window holds the place."""
    places = np.arange(size)
    return np.array([(places >= a) & (places < b) for a, b in windows], dtype=np.float32)


Writer = Callable[[GraphBuilder, fx.Node, list[str]], str]


def write_operator(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    """The tensor of the node's result; `sources` are the tensors that it reads, in order.

    Raises InputError, naming operator and node, for what is not exported.
    """
    writer = _WRITERS.get(packet(node))
    if writer is None:
        raise unsupported(node)
    return writer(build, node, sources)


def _source(node: fx.Node) -> fx.Node:
    source = node.args[0]
    if not isinstance(source, fx.Node):
        raise unsupported(node, "reads a constant")
    return source


def _same(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    return sources[0]


def _plain(operator: str, **attributes: object) -> Writer:
    return lambda build, node, sources: build.add(operator, sources, node.name, **attributes)


def _clip(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    low, high = clamp_range(node)
    if low is None and high is None:
        return sources[0]
    return build.clamp(sources[0], low, high, node.name)


def _leaky_relu(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    slope = argument(node, "negative_slope")
    return build.add("LeakyRelu", sources, node.name, alpha=float(str(slope)))


def _gelu(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    return build.add("Gelu", sources, node.name, approximate=str(argument(node, "approximate")))


def _silu(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    gate = build.add("Sigmoid", sources, f"{node.name}/gate")
    return build.add("Mul", [*sources, gate], node.name)


def _arithmetic(operator: str) -> Writer:
    def write(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
        if operator in ("Add", "Sub") and argument(node, "alpha") != 1:
            raise unsupported(node, f"has alpha {argument(node, 'alpha')}")
        operands, remaining = [], iter(sources)
        for place, value in enumerate(node.args[:2]):
            if isinstance(value, fx.Node) and "shape" in value.meta:
                operands.append(next(remaining))
            elif isinstance(value, int | float):
                operands.append(build.real(f"{node.name}/operand{place}", value))
            else:
                raise unsupported(node, f"takes {value}, which is no tensor")
        return build.add(operator, operands, node.name)

    return write


def _reshape(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    if shape(node)[:1] != (1,):
        raise unsupported(node, "mixes the batch with other dimensions")
    target = build.whole(f"{node.name}/shape", (-1, *shape(node)[1:]))
    return build.add("Reshape", [*sources[:1], target], node.name)


def _permute(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    dimensions = len(shape(_source(node)))
    order = [place % dimensions for place in integers(argument(node, "dims"))]
    if order[0] != 0:
        raise unsupported(node, "moves the batch dimension")
    return build.add("Transpose", sources, node.name, perm=order)


def _transpose(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    dimensions = len(shape(_source(node)))
    first, second = (axis(node, argument(node, f"dim{i}"), dimensions) for i in (0, 1))
    order = list(range(dimensions))
    order[first], order[second] = second, first
    return build.add("Transpose", sources, node.name, perm=order)


def _slice(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    sizes, dim = shape(_source(node)), argument(node, "dim")
    bounds = [argument(node, key) for key in ("start", "end", "step")]
    if any(isinstance(bound, fx.Node) for bound in bounds):
        raise unsupported(node, "has bounds that are computed")
    if dim == 0 and bounds[0] in (None, 0) and bounds[1] in (None, 2**63 - 1) and bounds[2] == 1:
        return sources[0]  # every sample
    along = axis(node, dim, len(sizes))
    names = ("starts", "ends", "axes", "steps")
    start, end, step = slice(*bounds).indices(sizes[along])
    values = [
        build.whole(f"{node.name}/{name}", (value,))
        for name, value in zip(names, (start, end, along, step), strict=True)
    ]
    return build.add("Slice", [*sources[:1], *values], node.name)


def _pad(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    if packet(node) == "pad" and argument(node, "mode") != "constant":
        raise unsupported(node, f"pads with mode {argument(node, 'mode')!r}")
    given, dimensions = integers(argument(node, "pad")), len(shape(node))
    begins, ends = [0] * dimensions, [0] * dimensions
    for place in range(len(given) // 2):  # torch lists the last axis first
        begins[dimensions - 1 - place], ends[dimensions - 1 - place] = given[2 * place :][:2]
    if begins[0] or ends[0]:
        raise unsupported(node, "pads the batch dimension")
    value = argument(node, "value")
    by = build.real(f"{node.name}/value", float(value) if isinstance(value, int | float) else 0.0)
    pads = build.whole(f"{node.name}/pads", (*begins, *ends))
    return build.add("Pad", [*sources[:1], pads, by], node.name)


def _concatenate(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    along = axis(node, argument(node, "dim"), len(shape(node)))
    return build.add("Concat", sources, node.name, axis=along)


def _select(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    sizes, index = shape(_source(node)), argument(node, "index")
    along = axis(node, argument(node, "dim"), len(sizes))
    if not isinstance(index, int):
        raise unsupported(node, "has an index that is computed")
    place = build.array(f"{node.name}/index", np.array(index % sizes[along], dtype=np.int64))
    return build.add("Gather", [*sources[:1], place], node.name, axis=along)


def _stack(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    along = axis(node, argument(node, "dim"), len(shape(node)))
    axes = build.whole(f"{node.name}/axes", (along,))
    rows = [
        build.add("Unsqueeze", [source, axes], f"{node.name}/row{index}")
        for index, source in enumerate(sources)
    ]
    return build.add("Concat", rows, node.name, axis=along)


def _zeros(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    zero = build.real(f"{node.name}/zero", 0.0)
    return build.add("Mul", [sources[0], zero], node.name)


def _reduce(operator: str) -> Writer:
    def write(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
        try:
            given = argument(node, "dim")
        except KeyError:  # the overload without dimensions
            given = None
        if given is None or not integers(given):
            raise unsupported(node, "goes over the batch")
        dimensions = len(shape(_source(node)))
        along = sorted(axis(node, place, dimensions) for place in integers(given))
        axes = build.whole(f"{node.name}/axes", along)
        return build.add(operator, [*sources[:1], axes], node.name, keepdims=flag(node, "keepdim"))

    return write


def _softmax(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    along = axis(node, argument(node, "dim"), len(shape(node)))
    return build.add("Softmax", sources, node.name, axis=along)


def _argmax(build: GraphBuilder, node: fx.Node, sources: list[str]) -> str:
    if any(user.op != "output" for user in node.users):
        raise unsupported(node, "is not the network's output")
    along = axis(node, argument(node, "dim"), len(shape(_source(node))))
    return build.add("ArgMax", sources, node.name, axis=along, keepdims=flag(node, "keepdim"))


_WRITERS: dict[str, Writer] = {
    **dict.fromkeys(IDENTITIES, _same),
    **dict.fromkeys(RESHAPES, _reshape),
    **dict.fromkeys(("relu6", "hardtanh", "clamp"), _clip),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), max_pool),
    **dict.fromkeys(
        ("avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"), average_pool
    ),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **dict.fromkeys(("softmax", "_softmax"), _softmax),
    "relu": _plain("Relu"),
    "sigmoid": _plain("Sigmoid"),
    "tanh": _plain("Tanh"),
    "hardswish": _plain("HardSwish"),
    "hardsigmoid": _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    "leaky_relu": _leaky_relu,
    "gelu": _gelu,
    "silu": _silu,
    "add": _arithmetic("Add"),
    "sub": _arithmetic("Sub"),
    "mul": _arithmetic("Mul"),
    "div": _arithmetic("Div"),
    "permute": _permute,
    "transpose": _transpose,
    "slice": _slice,
    "cat": _concatenate,
    "select": _select,
    "stack": _stack,
    "zeros_like": _zeros,
    "mean": _reduce("ReduceMean"),
    "amax": _reduce("ReduceMax"),
    "argmax": _argmax,
}

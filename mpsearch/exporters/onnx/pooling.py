"""Pooling: ONNX's own operators where they mean the same, products with 0/1 matrices elsewhere.

Runtimes disagree about windows that reach over the edge (ceil_mode, padding that does not count,
another divisor), and ONNX has no adaptive pooling of any size. Sums over windows are a product:
R·x·C with R[i, h] = 1 where row h is in window i.
"""

import numpy as np
from torch import fx

from mpsearch.exporters.onnx.arguments import flag, shape, spread, unsupported
from mpsearch.exporters.onnx.graph_builder import GraphBuilder
from mpsearch.graph.operators import argument, packet
from mpsearch.integer.operators import pool_windows


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

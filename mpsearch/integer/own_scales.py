"""Steps at scales of their own from nodes: functions, sums, products, factors per channel."""

from math import prod

import numpy as np
from torch import fx

from mpsearch.graph.layers import argument, packet
from mpsearch.graph.tensors import get_tensor
from mpsearch.integer.arithmetic import Floats, Multiply, affine, prelu
from mpsearch.integer.comparing import interval
from mpsearch.integer.fixed_point import rescale_of
from mpsearch.integer.functions import LARGEST_ERROR, lookup
from mpsearch.integer.gathering import Fill
from mpsearch.integer.graph import IntegerTensor, Step, reciprocal
from mpsearch.integer.layers import LARGEST_BOUND
from mpsearch.integer.log_softmax import log_softmax
from mpsearch.integer.norms import LARGEST_LENGTH, Norm, normalize
from mpsearch.integer.operators import (
    LOG_SOFTMAXES,
    NORMS,
    PRODUCTS,
    integers,
    sample_axis,
    sample_shape,
    sources,
    unsupported,
)
from mpsearch.integer.pointwise import PointFunction
from mpsearch.integer.products import matrix_product

Range = tuple[float, float]


def own_step(
    node: fx.Node,
    read: list[IntegerTensor],
    output: IntegerTensor,
    function: PointFunction | None,
    within: Range,
) -> Step:
    """The step of a node in OWN_SCALES, or of a function of the one tensor in `read`, whose values
    matter `within` a range. Raises InputError, naming operator and node, where there is none."""
    if function is not None:
        return _function(node, read[0], output, function, within)
    kind = packet(node)
    if kind in NORMS:
        return _norm(node, read[0], output)
    if kind in PRODUCTS:
        return _matrix_product(node, read, output)
    for source in sources(node):
        if len(source.meta["shape"]) != len(node.meta["shape"]):
            raise unsupported(node, "aligns the batch with another dimension")
    if kind in {"add", "sub", "rsub"}:
        return _sum(node, read, output)
    if kind in {"mul", "div"}:
        return _product(node, read, output)
    if kind == "zeros_like":
        return Fill((read[0].name,), output, np.array(output.zero_point))
    if kind == "batch_norm":
        return _batch_norm(node, read[0], output)
    if kind == "prelu":
        return prelu(read[0], _along_channels(node, node.args[1]), output)
    if kind in LOG_SOFTMAXES:
        axis = sample_axis(node, argument(node, "dim"), len(node.meta["shape"]))
        return log_softmax(read[0], axis, output)
    raise unsupported(node, "reads several tensors, number by number")


def _function(
    node: fx.Node, source: IntegerTensor, output: IntegerTensor, function: PointFunction,
    within: Range,
) -> Step:  # fmt: skip
    if source.bits == 32:
        return interval(node, source, output, function)
    if function.line is not None:
        factor, constant = map(np.array, function.line)
        return affine([source], [factor], constant, output)
    step, error = lookup(function.name, function, source, output, within)
    if error > LARGEST_ERROR:
        raise unsupported(
            node,
            f"is not defined, or too steep, for inputs from {within[0]:.4g} to {within[1]:.4g} "
            f"(a table of {len(step.table) - 1} parts is {error:.3g} 8-bit steps off)",
        )
    return step


def _sum(node: fx.Node, read: list[IntegerTensor], output: IntegerTensor) -> Step:
    alpha = argument(node, "alpha")
    if not isinstance(alpha, int | float):
        raise unsupported(node, "has a factor that is computed")
    factors = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[packet(node)]
    tensors, constant, scale_of = iter(read), np.array(0.0), []
    for operand, factor in zip(node.args[:2], factors, strict=True):
        if _is_source(operand):
            scale_of.append((next(tensors), np.array(factor)))
        else:
            constant = constant + factor * _constant(node, operand)
    return affine([t for t, _ in scale_of], [f for _, f in scale_of], constant, output)


def _product(node: fx.Node, read: list[IntegerTensor], output: IntegerTensor) -> Step:
    left, right = node.args[:2]
    if packet(node) == "div" and node.kwargs.get("rounding_mode") is not None:
        raise unsupported(node, "rounds")
    if len(read) == 2:
        if packet(node) == "div":
            raise unsupported(node, "divides by a tensor")
        factor = read[0].scale * read[1].scale * reciprocal(output)
        names = (read[0].name, read[1].name)
        return Multiply(names, output, rescale_of(factor), output.low, output.high)
    if packet(node) == "div":
        if _is_source(right):
            raise unsupported(node, "divides by a tensor")
        factors = 1 / _constant(node, right)
    else:
        factors = _constant(node, right if _is_source(left) else left)
    if not np.isfinite(factors).all():
        raise unsupported(node, "has infinite factors")
    return affine(read, [factors], np.array(0.0), output)


def _batch_norm(node: fx.Node, source: IntegerTensor, output: IntegerTensor) -> Step:
    """(x - mean) / sqrt(variance + eps) · weight + bias, per channel."""
    if argument(node, "training"):
        raise unsupported(node, "averages over the batch")
    weight, bias = (argument(node, name) for name in ("weight", "bias"))
    mean, variance = (
        _along_channels(node, argument(node, f"running_{name}")) for name in ("mean", "var")
    )
    eps = argument(node, "eps")
    assert isinstance(eps, float)
    factors = 1 / np.sqrt(variance + eps)
    if weight is not None:
        factors = factors * _along_channels(node, weight)
    constant = -mean * factors
    if bias is not None:
        constant = constant + _along_channels(node, bias)
    return affine([source], [factors], constant, output)


def _norm(node: fx.Node, source: IntegerTensor, output: IntegerTensor) -> Step:
    """Layer and RMS norm along last dimensions; group and instance norm of channels and places."""
    kind, eps = packet(node), argument(node, "eps")
    eps = float(np.finfo(np.float32).eps) if eps is None else eps
    assert isinstance(eps, float)
    if kind in ("layer_norm", "rms_norm"):
        shape = integers(argument(node, "normalized_shape"))
        length, inner, channels = prod(shape), 1, prod(shape)
    else:
        channels, inner = source.shape[0], prod(source.shape[1:])
        groups = channels if kind == "instance_norm" else argument(node, "num_groups")
        if kind == "instance_norm" and not argument(node, "use_input_stats"):
            raise unsupported(node, "has stored statistics")
        assert isinstance(groups, int)
        length = channels // groups * inner
    if length > LARGEST_LENGTH:
        raise unsupported(node, f"sums {length} squares; at most {LARGEST_LENGTH} fit 64 bits")
    weight, bias = (
        None if name == "bias" and kind == "rms_norm" else argument(node, name)
        for name in ("weight", "bias")
    )
    for given in (weight, bias):
        if isinstance(given, fx.Node) and given.op != "get_attr":
            raise unsupported(node, "has weights that are computed")
    factors = np.ones(channels) if weight is None else _values(weight).reshape(-1)
    constant = np.zeros(channels) if bias is None else _values(bias).reshape(-1)
    norm = Norm(length, eps, kind != "rms_norm")
    return normalize(source, norm, factors, constant, inner, output)


def _matrix_product(node: fx.Node, read: list[IntegerTensor], output: IntegerTensor) -> Step:
    left, right = (tensor.shape for tensor in read)
    if len(left) < 2 or left[:-2] != right[:-2]:
        raise unsupported(node, "multiplies stacks of matrices of different numbers")
    product = matrix_product(read[0], read[1], output)
    if product.bound >= LARGEST_BOUND:
        raise unsupported(node, "has sums that could exceed 62 bits")
    return product


def _is_source(operand: object) -> bool:
    return isinstance(operand, fx.Node) and operand.op != "get_attr"


def _constant(node: fx.Node, operand: object) -> Floats:
    """A number, or a stored tensor without its batch dimension of 1, with as many axes as a sample
    of the node's result."""
    values = _values(operand)
    if values.ndim == 0:
        return values
    dimensions = len(node.meta["shape"])
    if values.ndim == dimensions:
        if len(values) != 1:
            raise unsupported(node, "has a constant for every sample of a batch")
        return values.reshape(values.shape[1:])
    return values.reshape((1,) * (dimensions - 1 - values.ndim) + values.shape)


def _along_channels(node: fx.Node, operand: object) -> Floats:
    """One number per channel of a sample, or one for all."""
    axes = len(sample_shape(node)) - 1
    return _values(operand).reshape((-1,) + (1,) * max(axes, 0))


def _values(operand: object) -> Floats:
    if not isinstance(operand, fx.Node):
        return np.array(operand, dtype=np.float64)
    graph = operand.graph.owning_module
    assert graph is not None
    values: Floats = get_tensor(graph, str(operand.target)).double().cpu().numpy()
    return values

"""Steps of operators without weights: moves, pooling, means, additions. One scale in and out."""

from collections.abc import Callable

import numpy as np
from torch import fx

from mpsearch.graph.layers import argument, packet
from mpsearch.integer.graph import (
    Add,
    AveragePool,
    Clamp,
    Concatenate,
    IntegerTensor,
    MaxPool,
    Mean,
    Pad,
    Permute,
    Reshape,
    Slice,
    Step,
)
from mpsearch.integer.layers import reciprocal
from mpsearch.integer.operators import (
    AVERAGES,
    CLAMPS,
    IDENTITIES,
    MAX_POOLS,
    PADS,
    RESHAPES,
    axis_pads,
    clamp_range,
    integers,
    pad_value,
    pair,
    pool_windows,
    sample_axis,
    sources,
    unsupported,
)

Names = tuple[str, ...]


def moving_step(node: fx.Node, names: Names, output: IntegerTensor) -> Step | None:
    """The step of `node` on the tensors `names`, which have the output's scale; None for nothing.

    Raises InputError, naming operator and node, for arguments that have no integer form.
    """
    if packet(node) not in _STEPS:
        raise unsupported(node, "reads several tensors, number by number")
    return _STEPS[packet(node)](node, names, output)


def _dimensions(node: fx.Node) -> int:
    return len(sources(node)[0].meta["shape"])


def code_of(value: float, tensor: IntegerTensor) -> int:
    """The code of a real number: rounded as the quantizer does, saturated."""
    if tensor.signed:
        code = float(np.rint(value / tensor.scale))
    else:
        code = float(np.rint(np.float32(value) * np.float32(reciprocal(tensor))))
    return int(np.clip(code + tensor.zero_point, tensor.low, tensor.high))


def _clamp(node: fx.Node, names: Names, output: IntegerTensor) -> Step:
    low, high = clamp_range(node)
    return Clamp(
        names,
        output,
        output.low if low is None else code_of(low, output),
        output.high if high is None else code_of(high, output),
    )


def _identity(node: fx.Node, names: Names, output: IntegerTensor) -> None:
    return None


def _reshape(node: fx.Node, names: Names, output: IntegerTensor) -> Step:
    return Reshape(names, output)


def _permute(node: fx.Node, names: Names, output: IntegerTensor) -> Step:
    dimensions = _dimensions(node)
    axes = [axis % dimensions for axis in integers(argument(node, "dims"))]
    if axes[0] != 0:
        raise unsupported(node, "moves the batch dimension")
    return Permute(names, output, tuple(axis - 1 for axis in axes[1:]))


def _transpose(node: fx.Node, names: Names, output: IntegerTensor) -> Step:
    dimensions = _dimensions(node)
    first, second = (sample_axis(node, argument(node, f"dim{i}"), dimensions) for i in (0, 1))
    axes = list(range(dimensions - 1))
    axes[first], axes[second] = axes[second], axes[first]
    return Permute(names, output, tuple(axes))


def _slice(node: fx.Node, names: Names, output: IntegerTensor) -> Step | None:
    shape = sources(node)[0].meta["shape"]
    dim = argument(node, "dim")
    bounds = [argument(node, key) for key in ("start", "end", "step")]
    for bound in bounds:
        if isinstance(bound, fx.Node):
            raise unsupported(node, "has bounds that are computed")
    if dim == 0 and bounds[0] in (None, 0) and bounds[1] in (None, 2**63 - 1) and bounds[2] == 1:
        return None  # every sample
    axis = sample_axis(node, dim, len(shape))
    start, end, step = slice(*bounds).indices(shape[axis + 1])
    if (start, end, step) == (0, shape[axis + 1], 1):
        return None
    return Slice(names, output, axis, start, end, step)


def _pad(node: fx.Node, names: Names, output: IntegerTensor) -> Step:
    return Pad(names, output, axis_pads(node, _dimensions(node)), code_of(pad_value(node), output))


def _concatenate(node: fx.Node, names: Names, output: IntegerTensor) -> Step:
    return Concatenate(names, output, sample_axis(node, argument(node, "dim"), _dimensions(node)))


def _max_pool(node: fx.Node, names: Names, output: IntegerTensor) -> Step:
    flat = packet(node) == "max_pool1d"
    kernel = pair(argument(node, "kernel_size"), flat, 1)
    stride = argument(node, "stride")
    return MaxPool(
        names,
        output,
        kernel,
        pair(stride, flat, 1) if stride else kernel,
        pair(argument(node, "padding"), flat, 0),
        pair(argument(node, "dilation"), flat, 1),
    )


def _average_pool(node: fx.Node, names: Names, output: IntegerTensor) -> Step:
    rows, columns, counts = pool_windows(node)
    return AveragePool(names, output, rows, columns, np.array(counts, dtype=np.int32))


def _mean(node: fx.Node, names: Names, output: IntegerTensor) -> Step:
    if not any(parameter.name == "dim" for parameter in node.target._schema.arguments):  # type: ignore[union-attr]
        raise unsupported(node, "averages over the batch")
    dims = argument(node, "dim")
    axes = () if dims is None else integers(dims)
    if not axes:
        raise unsupported(node, "averages over the batch")
    dimensions = _dimensions(node)
    return Mean(names, output, tuple(sorted(sample_axis(node, a, dimensions) for a in axes)))


def _add(node: fx.Node, names: Names, output: IntegerTensor) -> Step:
    return Add(names, output, output.low, output.high)


_STEPS: dict[str, Callable[[fx.Node, Names, IntegerTensor], Step | None]] = {
    **dict.fromkeys(CLAMPS, _clamp),
    **dict.fromkeys(IDENTITIES, _identity),
    **dict.fromkeys(RESHAPES, _reshape),
    **dict.fromkeys(PADS, _pad),
    **dict.fromkeys(MAX_POOLS, _max_pool),
    **dict.fromkeys(AVERAGES - {"mean"}, _average_pool),
    "permute": _permute,
    "transpose": _transpose,
    "slice": _slice,
    "cat": _concatenate,
    "mean": _mean,
    "add": _add,
}

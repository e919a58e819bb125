"""Steps of operators without weights: moves, pooling, means, additions. One scale in and out."""

from collections.abc import Callable, Sequence

import numpy as np
from torch import fx

from mpsearch.graph.layers import argument, packet
from mpsearch.integer.beside import beside
from mpsearch.integer.graph import (
    Add,
    AveragePool,
    Clamp,
    Concatenate,
    IntegerTensor,
    Mean,
    Pad,
    Reshape,
    Step,
    reciprocal,
)
from mpsearch.integer.maxima import maximum_steps, part_of
from mpsearch.integer.operators import (
    AVERAGES,
    CLAMPS,
    MAXIMA,
    PADS,
    REARRANGEMENTS,
    RESIZES,
    axis_pads,
    clamp_range,
    integers,
    operation,
    pad_value,
    pool_windows,
    sample_axis,
    sources,
    unsupported,
)
from mpsearch.integer.rearranging import rearranging_step
from mpsearch.integer.resizing import resizing_step

Names = tuple[str, ...]


def moving_steps(
    node: fx.Node, read: Sequence[IntegerTensor], output: IntegerTensor
) -> tuple[Step, ...]:
    """The steps of `node` on the tensors `read`, which have the output's scale; the last one
    writes `output`, and without any the result is the first tensor.

    Raises InputError, naming operator and node, for arguments that have no integer form.
    """
    names, name = tuple(tensor.name for tensor in read), packet(operation(node))
    if name in REARRANGEMENTS or _is_reflecting(node):
        step = rearranging_step(node, sources(node)[0], names, output)
    elif name in MAXIMA:
        return maximum_steps(node, read[0], output)
    elif name == "stack":
        return _stacked(node, read, output)
    elif name not in _STEPS:
        raise unsupported(node, "reads several tensors, number by number")
    else:
        step = _STEPS[name](node, names, output)
    return () if step is None else (step,)


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


def _is_reflecting(node: fx.Node) -> bool:
    """True for a padding that repeats elements."""
    return packet(node) == "pad" and argument(node, "mode") != "constant"


def _stacked(
    node: fx.Node, read: Sequence[IntegerTensor], output: IntegerTensor
) -> tuple[Step, ...]:
    """Every tensor with an axis of length 1 more, side by side."""
    axis = sample_axis(node, argument(node, "dim"), len(output.shape) + 1)
    shape = (*output.shape[:axis], 1, *output.shape[axis + 1 :])
    parts = [part_of(output, shape, place) for place in range(len(read))]
    reshaped = [Reshape((tensor.name,), part) for tensor, part in zip(read, parts, strict=True)]
    return (*reshaped, Concatenate(tuple(part.name for part in parts), output, axis))


def _pad(node: fx.Node, names: Names, output: IntegerTensor) -> Step:
    return Pad(names, output, axis_pads(node, _dimensions(node)), code_of(pad_value(node), output))


def _concatenate(node: fx.Node, names: Names, output: IntegerTensor) -> Step:
    mixed = beside(node, names, output)
    if mixed is not None:
        return mixed
    return Concatenate(names, output, sample_axis(node, argument(node, "dim"), _dimensions(node)))


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
    **dict.fromkeys(PADS, _pad),
    **dict.fromkeys(AVERAGES - {"mean"}, _average_pool),
    **dict.fromkeys(RESIZES, resizing_step),
    "cat": _concatenate,
    "mean": _mean,
    "add": _add,
}

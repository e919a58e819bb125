"""Max and average pools, with a PAD before where LiteRT's two paddings do not fit."""

from mpsearch.errors import InputError
from mpsearch.exporters.litert.layouts import LAST, Tensors, stored_shape
from mpsearch.exporters.litert.moves import move, padv2
from mpsearch.exporters.litert.weighted import pad
from mpsearch.exporters.litert.windows import VALID, padding_for, pads_for, regular
from mpsearch.integer.graph import AveragePool, MaxPool, Step

_LOWEST = -128  # in a maximum it never wins


def _refused(step: Step, why: str) -> InputError:
    return InputError(
        f"{type(step).__name__} {step.output.name!r} {why}: LiteRT's integer operators cannot "
        "compute that; change this operator of the network, or export with --format c"
    )


def max_pool(tensors: Tensors, step: MaxPool) -> None:
    """MAX_POOL_2D. Raises InputError for dilated windows."""
    if step.dilation != (1, 1):
        raise _refused(step, "has dilated windows")
    (name,) = step.sources
    source, target = move(tensors, step, LAST)
    size = stored_shape(tensors.shapes[name], LAST)
    output = stored_shape(step.output.shape, LAST)
    padding = padding_for(size[1:3], output[1:3], step.kernel, step.stride, (1, 1), step.padding)
    if any(any(pads) for pads in padding.pads):
        wider = [n + sum(p) for n, p in zip(size[1:3], padding.pads, strict=True)]
        between = tensors.scratch(
            f"{name} for {step.output.name}", (1, *wider, size[3]), tensors.quantizers[name]
        )
        padv2(tensors, source, between, ((0, 0), *padding.pads, (0, 0)), _LOWEST, name)
        source = between
    _pool(tensors, "MAX_POOL_2D", source, target, padding.scheme, step.kernel, step.stride)


def average_pool(tensors: Tensors, step: AveragePool) -> None:
    """AVERAGE_POOL_2D. Raises InputError for unequal windows and other divisors."""
    (name,) = step.sources
    size = stored_shape(tensors.shapes[name], LAST)
    pool = regular(step, (size[1], size[2]))
    if pool is None:
        raise _refused(step, "has unequal windows, or another divisor than their size")
    output = (len(step.rows), len(step.columns))
    padding = padding_for(size[1:3], output, pool.kernel, pool.stride, (1, 1), pool.before)
    pads = pads_for(size[1:3], output, pool.kernel, pool.stride, pool.before)
    source, target = move(tensors, step, LAST)
    scheme = padding.scheme
    if pool.counted and any(map(any, pads)):
        source, scheme = pad(tensors, name, source, pads), VALID
    _pool(tensors, "AVERAGE_POOL_2D", source, target, scheme, pool.kernel, pool.stride)


def _pool(
    tensors: Tensors, operator: str, source: int, target: int, scheme: int,
    kernel: tuple[int, int], stride: tuple[int, int],
) -> None:  # fmt: skip
    tensors.file.operator(
        operator, 2, [source], [target], "Pool2DOptions", padding=scheme, filterHeight=kernel[0],
        filterWidth=kernel[1], strideH=stride[0], strideW=stride[1],
    )  # fmt: skip

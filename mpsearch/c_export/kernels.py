"""Which kernel computes each layer, the memory that it takes, and the order of its weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod

import numpy as np

from mpsearch.c_export.layouts import Arranged, image_order
from mpsearch.integer.fixed_point import Integers
from mpsearch.integer.graph import Convolution, IntegerTensor, Linear, Shape, Step

TILE, GROUP, WIDTH = 8, 4, 16  # MPS_TILE, MPS_GROUP in patches.h, MPS_WIDTH in depthwise.c
_MOST_TAPS = 64  # MPS_TAPS in lines.h
_CONSTANTS = 12 * TILE  # sizeof(mps_constants) in constants.h
_CODE_BYTES, _SLACK, _STRETCH = 2, 16, 64
_BLOCK_BYTES, _MOST_POSITIONS, _FEWEST_POSITIONS = 4096, 100, 20


class Kernel(Enum):
    """`PLAIN` reads everything in place, one sum after the other; it takes whatever there is."""

    PLAIN = "layers.c"
    PATCHES = "patches.c"
    DEPTHWISE = "depthwise.c"


def kernels(arranged: Arranged) -> dict[str, Kernel]:
    """The kernel of every layer; one that is used twice stores its weights in one order."""
    chosen: dict[str, Kernel] = {}
    for step in arranged.steps:
        if isinstance(step, Convolution | Linear):
            kernel = _kernel(step, arranged.tensors[step.sources[0]])
            name = step.weights.layer
            chosen[name] = kernel if chosen.get(name, kernel) == kernel else Kernel.PLAIN
    return chosen


def _kernel(step: Convolution | Linear, source: IntegerTensor) -> Kernel:
    codes = step.weights.codes
    if step.weights.bits > 8 or source.dtype != np.uint8 or codes.min() < -127:
        return Kernel.PLAIN  # two products of 8 bits must fit 16 bits
    if largest_sum(step, source) >= 2**31 or step.rescale.pre_shift:
        return Kernel.PLAIN
    if isinstance(step, Linear):
        return Kernel.PATCHES
    if len(codes) // step.groups > 1:
        return Kernel.PATCHES
    taps = prod(codes.shape[1:])
    return Kernel.DEPTHWISE if codes.shape[1] == 1 and taps <= _MOST_TAPS else Kernel.PLAIN


def offset(source: IntegerTensor) -> int:
    """What is taken from a code before it is multiplied, so that it fits a signed byte."""
    return 128 if source.bits == 8 else 0


def largest_code(source: IntegerTensor) -> int:
    """The largest magnitude of code - offset."""
    return 128 if source.bits == 8 else (1 << source.bits) - 1


def largest_sum(step: Convolution | Linear, source: IntegerTensor) -> int:
    """A bound on Σ |w|·|code - offset| and on the constants that are added to it."""
    codes = step.weights.codes.astype(np.int64)
    rows = np.abs(codes).reshape(len(codes), -1).sum(axis=1)
    reach = max(128, (1 << source.bits) - 1)
    return int((2 * rows * reach + np.abs(step.weights.bias.astype(np.int64))).max())


def products_in_16_bits(step: Convolution | Linear, source: IntegerTensor) -> int:
    """How many products of a weight and a code - offset fit 16 bits together, whatever they are."""
    most = int(np.abs(step.weights.codes.astype(np.int64)).max()) * largest_code(source)
    return min(32767 // max(1, most), 32767)


@dataclass(frozen=True)
class Scratch:
    """Memory that a kernel needs while it runs: `positions` patches in a block, and all bytes."""

    positions: int
    size: int


def scratch(step: Step, kernel: Kernel, source: IntegerTensor) -> Scratch:
    """The scratch of one step; codes take 2 bytes in it, as AVX2 wants them."""
    if not isinstance(step, Convolution | Linear) or kernel is Kernel.PLAIN:
        return Scratch(0, 0)
    outputs = len(step.weights.codes)
    if kernel is Kernel.DEPTHWISE:
        assert isinstance(step, Convolution)
        return Scratch(0, _window(step, step.output.shape[-1]) * WIDTH)
    channels = outputs // step.groups if isinstance(step, Convolution) else outputs
    positions = prod(step.output.shape) // outputs
    terms = -(-prod(step.weights.codes.shape[1:]) // GROUP) * GROUP
    block = min(max(_BLOCK_BYTES // terms // 5 * 5, _FEWEST_POSITIONS), _MOST_POSITIONS, positions)
    size = -(-channels // TILE) * _CONSTANTS + block * terms * _CODE_BYTES
    if isinstance(step, Convolution) and not _pointwise(step, source.shape):
        size += _window(step, _STRETCH) * source.shape[0] * _CODE_BYTES + (block + 1) * _SLACK
    return Scratch(block, size)


def _pointwise(step: Convolution, source: Shape) -> bool:
    """As in mps_convolve_patches: these read patches in place of lines."""
    return (
        step.weights.codes.shape[1:] == (source[0], 1, 1)
        and (*step.stride, *step.padding) == (1, 1, 0, 0, 0, 0)
        and source[0] % GROUP == 0
    )


def _window(step: Convolution, stretch: int) -> int:
    """Places of the padded lines that `stretch` columns of one output line read."""
    lines: int = (step.weights.codes.shape[2] - 1) * step.dilation[0] + 1
    columns = (min(stretch, step.output.shape[-1]) - 1) * step.stride[1]
    columns += (int(step.weights.codes.shape[3]) - 1) * step.dilation[1] + 1
    return lines * columns


def ordered_codes(step: Convolution | Linear, kernel: Kernel, flattened: Shape | None) -> Integers:
    """The weights' codes in the order in which the kernel reads them.

    A row's terms are in the order of the tensor that is read: (ky, kx, channel). `PLAIN` has row
    after row. `PATCHES` has, for every 8 rows (the last tile of a group of channels may have
    fewer), 4 terms of the first row, 4 of the second, and so on; then the next 4 terms of all.
    `DEPTHWISE` has, for every 16 channels, the first tap of all, then the second.
    """
    codes = step.weights.codes
    if isinstance(step, Convolution):
        rows = np.moveaxis(codes, 1, -1).reshape(len(codes), -1)
    else:
        rows = codes if flattened is None else codes[:, image_order(flattened)]
    if kernel is Kernel.PLAIN:
        return rows.reshape(-1)
    if kernel is Kernel.DEPTHWISE:
        return np.concatenate([rows[at : at + WIDTH].T.reshape(-1) for at in _starts(rows, WIDTH)])
    groups = step.groups if isinstance(step, Convolution) else 1
    parts = []
    for group in np.split(rows, groups):
        for at in _starts(group, TILE):
            tile = group[at : at + TILE]
            parts += [tile[:, k : k + GROUP].reshape(-1) for k in range(0, rows.shape[1], GROUP)]
    return np.concatenate(parts)


def _starts(rows: Integers, size: int) -> Sequence[int]:
    return range(0, len(rows), size)

"""Which kernel computes each layer, the memory that it takes, and the order of its weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod

import numpy as np

from mpsearch.exporters.c.layouts import image_order
from mpsearch.integer.fixed_point import Integers
from mpsearch.integer.graph import (
    Convolution,
    Embedding,
    IntegerTensor,
    Linear,
    Shape,
    Step,
    TransposedConvolution,
)

TILE, GROUP, WIDTH = 8, 4, 16  # MPS_TILE, MPS_GROUP in patches.h, MPS_WIDTH in depthwise.c
_MOST_TAPS = 64  # MPS_TAPS in lines.h
_CONSTANTS = 12 * TILE  # sizeof(mps_constants) in constants.h
_CODE_BYTES, _SLACK, STRETCH = 2, 16, 64
_BLOCK_BYTES, _MOST_POSITIONS, _FEWEST_POSITIONS = 4096, 100, 20


class Kernel(Enum):
    """`PLAIN` reads everything in place, one sum after the other; it takes whatever there is."""

    PLAIN = "layers.c"
    PATCHES = "patches.c"
    DEPTHWISE = "depthwise.c"


def takes_bytes(step: Convolution | Linear, source: IntegerTensor) -> bool:
    """True for products of signed bytes, two of which fit 16 bits, with sums of 32 bits."""
    codes = step.weights.codes
    if isinstance(step, TransposedConvolution | Embedding):
        return False
    if step.weights.bits > 8 or source.dtype != np.uint8 or codes.min() < -127:
        return False
    return largest_sum(step, source) < 2**31 and not step.rescale.pre_shift


def is_depthwise(step: Convolution | Linear) -> bool:
    """True where every channel has one kernel of its own, and there is room for its taps."""
    if isinstance(step, Linear):
        return False
    outputs, inputs, *kernel = step.weights.codes.shape
    return inputs == 1 and outputs == step.groups and prod(kernel) <= _MOST_TAPS


def kernel_of(step: Convolution | Linear, source: IntegerTensor) -> Kernel:
    """What computes a layer, by its shapes, its bits and what its sums can reach."""
    if not takes_bytes(step, source):
        return Kernel.PLAIN
    if is_depthwise(step):
        return Kernel.DEPTHWISE
    if isinstance(step, Linear) or len(step.weights.codes) // step.groups > 1:
        return Kernel.PATCHES
    return Kernel.PLAIN


def offset(kernel: Kernel, source: IntegerTensor, zero_point: int) -> int:
    """What is taken from a code before it is multiplied, so that it fits a signed byte."""
    if kernel is Kernel.PLAIN:
        return zero_point
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
class Geometry:
    """The shapes of an `mps_convolution`, by its names: what the C runs with is what its scratch is
    planned for."""

    channels: int
    height: int
    width: int
    outputs: int
    output_height: int
    output_width: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    top: int
    left: int
    dilation_y: int
    dilation_x: int
    groups: int

    @property
    def positions(self) -> int:
        """Output positions of one channel."""
        return self.output_height * self.output_width

    @property
    def points(self) -> bool:
        """As in mps_convolve_patches: the image itself is the matrix of patches, without lines."""
        return (
            (self.kernel_height, self.kernel_width, self.groups) == (1, 1, 1)
            and (self.output_height, self.output_width) == (self.height, self.width)
            and (self.stride_y, self.stride_x) == (1, 1)
            and self.channels % GROUP == 0
        )

    def window(self, stretch: int) -> int:
        """Places of the padded lines that `stretch` columns of one output line read."""
        lines = (self.kernel_height - 1) * self.dilation_y + 1
        columns = (min(stretch, self.output_width) - 1) * self.stride_x
        return lines * (columns + (self.kernel_width - 1) * self.dilation_x + 1)


def geometry(step: Convolution, source: IntegerTensor) -> Geometry:
    """The shapes with which the kernel of a convolution is called."""
    channels, height, width = _image(source.shape)
    outputs, rows, columns = _image(step.output.shape)
    kernel_height, kernel_width = step.weights.codes.shape[2:]
    top, left, _, _ = step.padding
    transposed = isinstance(step, TransposedConvolution)
    one = (kernel_height, kernel_width, *step.stride, *step.padding) == (1, 1, 1, 1, 0, 0, 0, 0)
    if one and not transposed:
        # Pointwise: one long row fills the tiles best.
        height, width, rows, columns = 1, height * width, 1, rows * columns
    return Geometry(
        channels, height, width, outputs, rows, columns, kernel_height, kernel_width,
        *step.stride, top, left, *step.dilation, step.groups,
    )  # fmt: skip


def _image(shape: Shape) -> Shape:
    """(channels, height, width) of a sample; [C, W] has height 1."""
    return shape if len(shape) == 3 else (shape[0], 1, shape[1])


@dataclass(frozen=True)
class Scratch:
    """What a kernel works in while it runs: `positions` patches in a block, and all bytes."""

    positions: int
    size: int


def scratch(step: Step, kernel: Kernel, source: IntegerTensor) -> Scratch:
    """The scratch of one step; codes take 2 bytes in it, as AVX2 wants them."""
    if isinstance(step, TransposedConvolution):  # one output channel's weights, unpacked
        return Scratch(0, 2 * prod(step.weights.codes.shape[1:]))
    if not isinstance(step, Convolution | Linear) or kernel is Kernel.PLAIN:
        return Scratch(0, 0)
    shapes = geometry(step, source) if isinstance(step, Convolution) else None
    if kernel is Kernel.DEPTHWISE:
        assert shapes is not None
        return Scratch(0, shapes.window(shapes.output_width) * WIDTH)
    outputs = len(step.weights.codes)
    positions = shapes.positions if shapes else prod(step.output.shape) // outputs
    terms = -(-prod(step.weights.codes.shape[1:]) // GROUP) * GROUP
    block = min(max(_BLOCK_BYTES // terms // 5 * 5, _FEWEST_POSITIONS), _MOST_POSITIONS, positions)
    channels = outputs // shapes.groups if shapes else outputs
    size = -(-channels // TILE) * _CONSTANTS + block * terms * _CODE_BYTES
    if shapes and not shapes.points:
        size += shapes.window(STRETCH) * shapes.channels * _CODE_BYTES + (block + 1) * _SLACK
    return Scratch(block, size)


def row_terms(step: Convolution | Linear, flattened: Shape | None) -> Integers:
    """The codes of every output channel, [channels, terms]: (ky, kx, channel), or the order of the
    image that was flattened."""
    codes = step.weights.codes
    if isinstance(step, Convolution):
        return np.moveaxis(codes, 1, -1).reshape(len(codes), -1)
    return codes if flattened is None else codes[:, image_order(flattened)]


def ordered_codes(step: Convolution | Linear, kernel: Kernel, flattened: Shape | None) -> Integers:
    """The weights' codes in the order in which the kernel reads them.

    A row's terms are in the order of the tensor that is read: (ky, kx, channel). `PLAIN` has row
    after row. `PATCHES` has, for every 8 rows (the last tile of a group of channels may have
    fewer), 4 terms of the first row, 4 of the second, and so on; then the next 4 terms of all.
    `DEPTHWISE` has, for every 16 channels, the first tap of all, then the second.
    """
    rows = row_terms(step, flattened)
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

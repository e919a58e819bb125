"""How far before what it reads a step begins to write, if its output lies over its source.

Positions are computed one after the other, and so they are read: what has been read, and is not
needed again, may be written over. Where windows overlap, or outputs are larger than what is read
for them, the output begins some bytes before the source, so that it is always behind.
"""

from math import lcm, prod

import numpy as np

from mpsearch.exporters.c.kernels import STRETCH, Geometry, Kernel, geometry, scratch
from mpsearch.exporters.c.packed import bits_of
from mpsearch.integer.fixed_point import Integers
from mpsearch.integer.graph import (
    Convolution,
    Embedding,
    IntegerTensor,
    Linear,
    Pair,
    TransposedConvolution,
)

ALIGNMENT = 4  # of all tensors


def window_starts(size: Pair, stride: Pair, pads: Pair, width: int) -> Integers:
    """The first place of an image of this width that each output position reads."""
    down, across = (
        np.maximum(0, np.arange(count) * step - pad)
        for count, step, pad in zip(size, stride, pads, strict=True)
    )
    return (down[:, None] * width + across[None]).reshape(-1)


def lag(starts: Integers, unread: Integers, read: int, written: int, exact: bool = False) -> int:
    """The bytes by which the output begins before the source.

    `starts` [positions]: the first place that each position reads. While position q is written,
    those from unread[q] on are still to be read. `read` and `written` are the bits of a place of
    the source and of the output; `exact`: each must lie over one of the source.
    """
    first = np.minimum.accumulate(starts[::-1])[::-1]  # of a position and all that follow
    ends = np.arange(1, len(starts) + 1) * written
    coming = unread < len(starts)
    most = (ends[coming] - first[unread[coming]] * read).max(initial=0)
    return _whole(int(most), read if exact else 1)


def _whole(bits: int, place: int) -> int:
    """Bytes of so many bits, aligned, and of whole places."""
    step = lcm(place, 8 * ALIGNMENT)
    return -(-bits // step) * step // 8


def after_blocks(positions: int, block: int) -> Integers:
    """For `lag`: what a block of positions reads has been copied before any of them is written."""
    return (np.arange(positions) // block + 1) * block


def line_lag(shapes: Geometry, read: int, written: int, exact: bool) -> int:
    """The same for a kernel that copies whole lines before the line of output that needs them; the
    bits are those of one place."""
    lines = (shapes.kernel_height - 1) * shapes.dilation_y + 1
    copied = np.arange(shapes.output_height) * shapes.stride_y - shapes.top + lines
    ends = np.arange(1, shapes.output_height + 1) * shapes.output_width * written
    coming = copied < shapes.height
    most = (ends - copied * shapes.width * read)[coming].max(initial=0)
    return _whole(int(most), read if exact else 1)


def portable_lag(
    step: Convolution | Linear, kernel: Kernel, source: IntegerTensor, output: IntegerTensor
) -> int | None:
    """Of patches.c and depthwise.c, which keep what they read in their scratch; None where they
    come back to what they have read."""
    if isinstance(step, TransposedConvolution | Embedding) or kernel is Kernel.PLAIN:
        return None
    if kernel is Kernel.DEPTHWISE:
        return depthwise_lag(step, source, output)
    block = scratch(step, kernel, source).positions
    if isinstance(step, Linear) or geometry(step, source).points:
        return block_lag(step, source, output, block)
    shapes = geometry(step, source)
    if shapes.groups > 1 or shapes.output_width > STRETCH:
        return None  # what has been copied is copied again
    read, written = shapes.channels * bits_of(source), shapes.outputs * bits_of(output)
    return line_lag(shapes, read, written, exact=False)


def depthwise_lag(
    step: Convolution | Linear, source: IntegerTensor, output: IntegerTensor
) -> int | None:
    """Of a depthwise convolution that copies lines, 16 channels at a time: each code takes the
    place of one of the same channel."""
    assert isinstance(step, Convolution)
    if bits_of(source) != bits_of(output):
        return None
    place = source.shape[0] * bits_of(source)
    return line_lag(geometry(step, source), place, place, exact=True)


def block_lag(
    step: Convolution | Linear, source: IntegerTensor, output: IntegerTensor, block: int
) -> int:
    """Of rows, or of positions of a 1x1 convolution, that are copied in blocks."""
    if isinstance(step, Linear):
        outputs, inputs = step.weights.codes.shape
    else:
        outputs, inputs = len(step.weights.codes), source.shape[0]
    positions = prod(output.shape) // outputs
    read, written = inputs * bits_of(source), outputs * bits_of(output)
    return lag(np.arange(positions), after_blocks(positions, block), read, written)


def patches_lag(
    step: Convolution, source: IntegerTensor, output: IntegerTensor, unread: Integers
) -> int | None:
    """Of patches that are gathered from the image itself."""
    shapes = geometry(step, source)
    if shapes.groups > 1:
        return None
    size = shapes.output_height, shapes.output_width
    stride, pads = (shapes.stride_y, shapes.stride_x), (shapes.top, shapes.left)
    starts = window_starts(size, stride, pads, shapes.width)
    read, written = shapes.channels * bits_of(source), shapes.outputs * bits_of(output)
    return lag(starts, unread, read, written)

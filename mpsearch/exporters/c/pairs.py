"""Layers on registers of 32 bits, as Cortex-M has: for cortex_m/patches.c and depthwise.c there.

Codes stay the bytes that they are; their zero point is in the constants that are added.
"""

from math import prod

import numpy as np

from mpsearch.exporters.c import overlapping
from mpsearch.exporters.c.kernels import Geometry, Kernel, Scratch, geometry, largest_sum, row_terms
from mpsearch.exporters.c.kernels import ordered_codes as channels_together
from mpsearch.exporters.c.packed import PackedTensor, bits_of
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

_CHUNK, _MOST_TAPS, _CHANNELS = (
    1024,
    64,
    16,
)  # CHUNK in patches.c; MOST_TAPS, CHANNELS in depthwise.c
_FEW_TERMS = 64  # FEW_TERMS in patches.c
_IN_PLACE = (2, 4, 8)  # bits of weights whose words are read where they are stored
_PATCH_BYTES, _MOST_POSITIONS = 4096, 48
_LARGE = 256 * 1024  # bytes of an image and what is made of it


def kernel_of(step: Convolution | Linear, source: IntegerTensor) -> Kernel:
    """What computes a layer: 32-bit sums of weights and codes of up to 8 bits, or anything."""
    codes, bits = step.weights.codes, step.weights.bits
    if isinstance(step, TransposedConvolution | Embedding):
        return Kernel.PLAIN
    if bits > 8 or source.dtype != np.uint8 or step.rescale.pre_shift:
        return Kernel.PLAIN
    rows = np.abs(codes.astype(np.int64)).reshape(len(codes), -1).sum(axis=1)
    scaled = int(rows.max()) * source.high << (8 - bits if bits in _IN_PLACE else 0)
    if max(scaled, largest_sum(step, source)) >= 2**31:
        return Kernel.PLAIN
    if isinstance(step, Linear) or len(codes) != step.groups or codes.shape[1] > 1:
        return Kernel.PATCHES
    return Kernel.DEPTHWISE if prod(codes.shape[1:]) <= _MOST_TAPS else Kernel.PATCHES


def offset(kernel: Kernel, source: IntegerTensor, zero_point: int) -> int:
    """What is taken from a code before it is multiplied: nothing, but in layers.c."""
    return zero_point if kernel is Kernel.PLAIN else 0


def _in_place(step: Convolution | Linear) -> int:
    """Terms of a row whose weights fill words that are read where they are stored; none in a
    convolution of few terms that do not fill words, which are soon unpacked for many positions."""
    bits, terms = step.weights.bits, prod(step.weights.codes.shape[1:])
    if bits not in _IN_PLACE:
        return 0
    rest = terms % (32 // bits)
    return 0 if rest and isinstance(step, Convolution) and terms <= _FEW_TERMS else terms - rest


def scratch(step: Step, kernel: Kernel, source: IntegerTensor) -> Scratch:
    """What a step's kernel works in."""
    if isinstance(step, TransposedConvolution):  # one output channel's weights, unpacked
        return Scratch(0, 2 * prod(step.weights.codes.shape[1:]))
    if not isinstance(step, Convolution | Linear) or kernel is Kernel.PLAIN:
        return Scratch(0, 0)
    return blocks(step, kernel, source, isinstance(source, PackedTensor))


def blocks(
    step: Convolution | Linear, kernel: Kernel, source: IntegerTensor, packed: bool
) -> Scratch:
    """Unpacked weights of two channels, and patches of some positions where the codes of one do not
    lie side by side, or are `packed`."""
    shapes = geometry(step, source) if isinstance(step, Convolution) else None
    terms = prod(step.weights.codes.shape[1:])
    if kernel is Kernel.DEPTHWISE:
        pairs = -(-terms // 2)
        return Scratch(0, _CHANNELS + 16 * pairs + 4 * _CHANNELS * pairs)
    outputs = len(step.weights.codes) // (shapes.groups if shapes else 1)
    unpacked = terms - (0 if outputs % 2 else _in_place(step))
    positions = shapes.positions if shapes else prod(step.output.shape) // outputs
    row, size = -(-terms // 4) * 4, -(-min(unpacked, _CHUNK) // 4) * 4 * 2
    if not packed and (_is_direct(step, shapes) if shapes else terms % 4 == 0):
        return Scratch(positions, size)
    block = min(positions, max(2, min(_PATCH_BYTES // row // 2 * 2, _MOST_POSITIONS)))
    return Scratch(block, size + block * row)


def lag(
    step: Convolution | Linear, kernel: Kernel, source: IntegerTensor, output: IntegerTensor
) -> int | None:
    """How many bytes before its source a layer may begin to write: patches are copied in blocks,
    and windows of a depthwise convolution are read where they lie, of 16 channels each time."""
    if kernel is Kernel.PLAIN or isinstance(step, TransposedConvolution | Embedding):
        return None
    block, packs = scratch(step, kernel, source).positions, isinstance(source, PackedTensor)
    if isinstance(step, Linear):
        copies = packs or step.weights.codes.shape[1] % 4 != 0
        return overlapping.block_lag(step, source, output, block) if copies else None
    shapes = geometry(step, source)
    if kernel is Kernel.DEPTHWISE:
        if bits_of(source) != bits_of(output):
            return None
        place = shapes.channels * bits_of(source)
        starts = overlapping.window_starts(
            (shapes.output_height, shapes.output_width),
            (shapes.stride_y, shapes.stride_x),
            (shapes.top, shapes.left),
            shapes.width,
        )
        return overlapping.lag(starts, np.arange(1, len(starts) + 1), place, place, exact=True)
    if _is_direct(step, shapes) and not packs:
        return None  # read again for every pair of channels
    unread = overlapping.after_blocks(shapes.positions, block)
    return overlapping.patches_lag(step, source, output, unread)


def _is_direct(step: Convolution | Linear, shapes: Geometry) -> bool:
    """Whether a 1x1 convolution reads the image where it lies: not where that and the output are
    large, for the output can lie over what has been copied."""
    both = shapes.positions * (shapes.channels + shapes.outputs * step.output.bits // 8)
    return shapes.points and both <= _LARGE


def ordered_codes(step: Convolution | Linear, kernel: Kernel, flattened: Shape | None) -> Integers:
    """The weights' codes in the order in which the kernel reads them.

    `PATCHES` has, for every pair of output channels of a group, a word of the first and a word of
    the second in turn, as far as rows fill words; a word of 4 or 2 bits has terms i, i + 4, …
    in byte i. Behind the words of all groups follow the other terms of the first of the pair,
    those of the second, and so on, and a last single channel of a group.
    """
    if kernel is not Kernel.PATCHES:
        return channels_together(step, kernel, flattened)
    rows, bits = row_terms(step, flattened), step.weights.bits
    whole = _in_place(step)
    words, others = [], []
    for group in np.split(rows, step.groups if isinstance(step, Convolution) else 1):
        paired = len(group) // 2 * 2
        words.append(_words(group[:paired, :whole], bits))
        others += [group[:paired, whole:].reshape(-1), group[paired:].reshape(-1)]
    return np.concatenate([*words, *others])


def _words(rows: Integers, bits: int) -> Integers:
    """Pairs of rows, a word of each in turn."""
    if not rows.size:
        return rows.reshape(-1)
    fields = 8 // bits
    split = rows.reshape(len(rows) // 2, 2, -1, fields, 4)  # pair, channel, word, field, byte
    return split.transpose(0, 2, 1, 4, 3).reshape(-1)

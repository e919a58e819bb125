"""Layers on Cortex-M55 and M85, which have Helium: what mve/patches.c and mve/depthwise.c work in,
and the order of their weights."""

from math import prod

import numpy as np

from mpsearch.exporters.c.kernels import (
    Kernel,
    Scratch,
    geometry,
    is_depthwise,
    ordered_codes,
    takes_bytes,
)
from mpsearch.exporters.c.kernels import scratch as portable_scratch
from mpsearch.exporters.c.overlapping import after_blocks, patches_lag, portable_lag
from mpsearch.exporters.c.overlapping import lag as rows_lag
from mpsearch.exporters.c.packed import bits_of
from mpsearch.integer.fixed_point import Integers
from mpsearch.integer.graph import Convolution, IntegerTensor, Linear, Shape, Step

_LANES, _FACTOR_BYTES = 4, 5  # MPS_LANES and sizes in mps_factors of mve/finishing.h
_CHUNK, _SHORT = 512, 32  # CHUNK, SHORT in mve/patches.c
_SLACK = 64  # MPS_UNPACKED_SLACK in mve/helium.h
# Weights are unpacked once for a block of patches, and three positions are computed at once.
_BLOCK_BYTES, _FEW, _MOST, _LARGEST_BYTES = 1536, 12, 48, 6912  # MOST in mve/patches.c


def kernel(step: Convolution | Linear, source: IntegerTensor) -> Kernel:
    """What computes a layer, by its shapes, its bits and what its sums can reach."""
    if not takes_bytes(step, source):
        return Kernel.PLAIN
    return Kernel.DEPTHWISE if is_depthwise(step) else Kernel.PATCHES


def scratch(step: Step, kernel: Kernel, source: IntegerTensor) -> Scratch:
    """Factors of the output channels, four rows of unpacked weights, and a block of patches."""
    if kernel is not Kernel.PATCHES or not isinstance(step, Convolution | Linear):
        return portable_scratch(step, kernel, source)
    outputs, terms = len(step.weights.codes), prod(step.weights.codes.shape[1:])
    if isinstance(step, Convolution):
        positions, channels = geometry(step, source).positions, outputs // step.groups
    else:
        positions, channels = prod(step.output.shape) // outputs, outputs
    row = terms
    if isinstance(step, Convolution) and terms < _SHORT:
        row = _SHORT if terms > _SHORT // 2 else _SHORT // 2
    # Widths that do not divide a byte take longer to unpack.
    most = _BLOCK_BYTES if step.weights.bits in (2, 4, 8) else 2 * _BLOCK_BYTES
    block = max(_few(terms), min(most // row // 3 * 3, _MOST))
    block = min(block, positions)
    size = -(-channels // _LANES) * _LANES * _FACTOR_BYTES + block * row
    if step.weights.bits < 8:
        size += _LANES * (terms if terms <= _CHUNK else _CHUNK + 8) + 8 + _SLACK
    return Scratch(block, size)


def _few(terms: int) -> int:
    return max(3, min(_FEW, _LARGEST_BYTES // terms // 3 * 3))


def order(step: Convolution | Linear, kernel: Kernel, flattened: Shape | None) -> Integers:
    """Rows one after the other, or for every 16 channels of a depthwise layer one tap after the
    other."""
    return ordered_codes(step, Kernel.PLAIN if kernel is Kernel.PATCHES else kernel, flattened)


def lag(
    step: Convolution | Linear, kernel: Kernel, source: IntegerTensor, output: IntegerTensor
) -> int | None:
    """How many bytes before its source a layer may begin to write. Positions of a block may be read
    where they lie, while some of their channels are already written."""
    if kernel is not Kernel.PATCHES:
        return portable_lag(step, kernel, source, output)
    block = scratch(step, kernel, source).positions
    positions = prod(output.shape) // len(step.weights.codes)
    held = after_blocks(positions, block) - block
    if isinstance(step, Convolution):
        return patches_lag(step, source, output, held)
    outputs, inputs = step.weights.codes.shape
    read, written = inputs * bits_of(source), outputs * bits_of(output)
    return rows_lag(np.arange(positions), held, read, written)

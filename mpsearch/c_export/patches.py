"""Which layers the C code computes from patches, and the memory that these take."""

from math import prod

import numpy as np

from mpsearch.integer.graph import Convolution, IntegerTensor, Linear, Step

POSITIONS = 16  # MPS_POSITIONS in patches.h
_LARGEST_TERMS = 2**31 // (128 * 128)  # sums of |w|·|q - 128| then fit 32 bits


def patch_bytes(step: Step, source: IntegerTensor) -> int:
    """Bytes of one block of patches, 0 for a step that reads its source in place.

    Patches need weights and codes of 8 bits and pay where several output channels read them:
    a depthwise convolution is computed in place.
    """
    if not isinstance(step, Convolution | Linear):
        return 0
    if step.weights.bits > 8 or source.dtype != np.uint8 or step.weights.accumulator_bits > 32:
        return 0
    outputs, terms = len(step.weights.codes), prod(step.weights.codes.shape[1:])
    positions = prod(step.output.shape) // outputs
    if terms >= _LARGEST_TERMS or step.weights.codes.min() < -127:  # NEON adds pairs in 16 bits
        return 0
    if isinstance(step, Convolution) and (terms < 8 or outputs // step.groups < 4):
        return 0
    return min(POSITIONS, positions) * (-(-terms // 16) * 16)

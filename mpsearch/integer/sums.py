"""Sums of codes at scales of their own: additions of two tensors, means, average pools.

Each writes whatever its reader wants, codes or 16 bits, rounded once.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
from torch import fx

from mpsearch.graph.layers import packet
from mpsearch.integer.arithmetic import affine
from mpsearch.integer.fixed_point import rescale_of
from mpsearch.integer.graph import AveragePool, IntegerTensor, Mean, Scaling, Step, reciprocal
from mpsearch.integer.moves import moving_steps


def summing_step(node: fx.Node, read: Sequence[IntegerTensor], output: IntegerTensor) -> Step:
    """The step of an addition, a mean or an average pool of the tensors `read`. Raises InputError,
    naming operator and node, for arguments that have no integer form."""
    if packet(node) == "add":
        return affine(read, [np.array(1.0)] * 2, np.array(0.0), output)
    (step,), (source,) = moving_steps(node, read, output), read
    if isinstance(step, Mean):
        taken = prod(source.shape[axis] for axis in step.axes)
        return replace(step, scaling=_scaling(source, output, np.array(1 / taken), taken))
    assert isinstance(step, AveragePool)
    most = max(b - a for a, b in step.rows) * max(b - a for a, b in step.columns)
    factors = 1 / step.counts.astype(np.float64)
    if (factors == factors.flat[0]).all():
        factors = factors.reshape(-1)[:1]
    return replace(step, scaling=_scaling(source, output, factors, most))


def _scaling(
    source: IntegerTensor, output: IntegerTensor, factors: np.ndarray, most: int
) -> Scaling:
    """For sums of at most `most` codes, which `factors` make means of."""
    reach = max(source.zero_point - source.low, source.high - source.zero_point)
    room = max(0, (most * reach).bit_length() - 31)
    rescale = rescale_of(factors * source.scale * reciprocal(output), pre_shift=room)
    return Scaling(source.zero_point, rescale, output.low, output.high)

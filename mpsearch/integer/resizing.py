"""Linear and bilinear upsampling: weights of 15 bits per axis, one rounding."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpsearch.integer.fixed_point import Integers, shift_round
from mpsearch.integer.graph import ComputedStep, IntegerTensor

if TYPE_CHECKING:
    from torch import fx

WEIGHT_BITS = 15
Taps = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Resize(ComputedStep):
    """Output (y, x) of the last two axes is (Σ of four sources q·u·v) / 2^30, half to even: rows[y]
    = (a, b, w) takes row a 2^15 - w times and row b w times, `columns` likewise. Same scale.

    A tensor [C, W] has one row.
    """

    rows: Taps
    columns: Taps

    def compute(self, *sources: Integers) -> Integers:
        """Integers only; 32-bit codes and two weights fit int64."""
        image = sources[0].astype(np.int64)
        flat = image.ndim == 3
        image = image[:, :, None] if flat else image
        for axis, taps in ((2, self.rows), (3, self.columns)):
            first, second, weight = np.array(taps, dtype=np.int64).T
            weight = weight.reshape(-1, *(1,) * (3 - axis))
            one, two = image.take(first, axis=axis), image.take(second, axis=axis)
            image = one * (2**WEIGHT_BITS - weight) + two * weight
        result = shift_round(image, 2 * WEIGHT_BITS)
        return result.reshape(len(result), *self.output.shape)


def resizing_step(node: "fx.Node", names: tuple[str, ...], output: IntegerTensor) -> Resize:
    """The step of an upsampling by straight lines."""
    from mpsearch.graph.layers import argument

    (source,) = (given for given in node.all_input_nodes if "shape" in given.meta)
    given: tuple[int, ...] = source.meta["shape"][2:]
    corners = bool(argument(node, "align_corners"))
    factors = argument(node, "scale_factors") if _has(node, "scale_factors") else None
    if not isinstance(factors, list | tuple):
        factors = [None] * len(given)
    found = [
        taps(n, o, corners, factor)
        for n, o, factor in zip(given, output.shape[1:], factors, strict=True)
    ]
    rows = found[0] if len(found) == 2 else ((0, 0, 0),)
    return Resize(names, output, rows, found[-1])


def _has(node: "fx.Node", name: str) -> bool:
    return any(p.name == name for p in node.target._schema.arguments)  # type: ignore[union-attr]


def taps(length: int, outputs: int, corners: bool, factor: object = None) -> Taps:
    """(lower, upper, weight of the upper) of every output, where torch reads between two inputs:
    i·(n - 1)/(o - 1) with aligned corners, else (i + 1/2)·s - 1/2 with s = 1/factor or n/o."""
    places = np.arange(outputs, dtype=np.float64)
    if corners:
        at = places * ((length - 1) / (outputs - 1) if outputs > 1 else 0.0)
    else:
        step = 1 / factor if isinstance(factor, int | float) and factor > 0 else length / outputs
        at = np.maximum((places + 0.5) * step - 0.5, 0.0)
    lower = np.minimum(at.astype(np.int64), length - 1)
    upper = np.minimum(lower + 1, length - 1)
    weight = np.rint((at - lower) * 2**WEIGHT_BITS).astype(np.int64).clip(0, 2**WEIGHT_BITS)
    return tuple(zip(lower.tolist(), upper.tolist(), weight.tolist(), strict=True))

"""Constants beside tensors: a class token in front of the others, a column of positions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpsearch.integer.fixed_point import Integers
from mpsearch.integer.graph import ComputedStep, IntegerTensor, reciprocal

if TYPE_CHECKING:
    from torch import fx


@dataclass(frozen=True)
class Beside(ComputedStep):
    """Tensors of one scale and constants, one after the other along `axis`.

    `parts`, in order: the codes of a constant, or None for the next source.
    """

    axis: int
    parts: tuple[Integers | None, ...]

    def compute(self, *sources: Integers) -> Integers:
        """Integers only."""
        remaining, samples = iter(sources), len(sources[0])
        arrays = [
            next(remaining) if part is None else np.broadcast_to(part, (samples, *part.shape))
            for part in self.parts
        ]
        result: Integers = np.concatenate(arrays, axis=self.axis + 1)
        return result


def beside(node: "fx.Node", names: tuple[str, ...], output: IntegerTensor) -> Beside | None:
    """The step of a concatenation with constants; None for one without."""
    from torch import fx

    from mpsearch.graph.layers import argument
    from mpsearch.integer.operators import sample_axis, stored_part

    (given,) = node.args[:1]
    assert isinstance(given, list | tuple)
    parts: list[Integers | None] = []
    for part in given:
        assert isinstance(part, fx.Node)
        stored = stored_part(part)
        parts.append(None if stored is None else stored_codes(stored, part, output))
    if all(part is None for part in parts):
        return None
    axis = sample_axis(node, argument(node, "dim"), len(node.meta["shape"]))
    return Beside(names, output, axis, tuple(parts))


def stored_codes(stored: "fx.Node", part: "fx.Node", output: IntegerTensor) -> Integers:
    """As the quantizer of `output` rounds real numbers, saturated."""
    from mpsearch.graph.tensors import get_tensor
    from mpsearch.integer.operators import sample_shape

    graph = stored.graph.owning_module
    assert graph is not None
    values = get_tensor(graph, str(stored.target)).cpu().numpy()
    if output.signed:
        codes = np.rint(values.astype(np.float64) / output.scale)
    else:
        inverse = np.float32(reciprocal(output))
        codes = np.rint(values.astype(np.float32) * inverse).astype(np.float64)
    clipped = np.clip(codes + output.zero_point, output.low, output.high).astype(output.dtype)
    return np.ascontiguousarray(np.broadcast_to(clipped[0], sample_shape(part)))

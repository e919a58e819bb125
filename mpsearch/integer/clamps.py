"""ReLU and ReLU6 join the step before them, which clips its result anyway."""

from collections import Counter
from dataclasses import replace
from typing import Any

from mpsearch.integer.arithmetic import Affine, Multiply, Prelu
from mpsearch.integer.functions import Lookup
from mpsearch.integer.graph import (
    Add,
    AveragePool,
    Clamp,
    Convolution,
    IntegerTensor,
    Linear,
    Mean,
    Requantize,
    Step,
)
from mpsearch.integer.norms import Normalize
from mpsearch.integer.products import MatMul


def fuse_clamps(steps: list[Step], output: IntegerTensor) -> tuple[Step, ...]:
    """The steps without the clamps that only narrow what the step before them clips to.

    Clipping to [a, b] and then to [c, d] is clipping to [clip(a), clip(b)] in [c, d].
    """
    uses = Counter(name for step in steps for name in step.sources)
    uses[output.name] += 1
    made: dict[str, int] = {}
    fused: list[Step] = []
    for step in steps:
        place = made.get(step.sources[0], -1)
        before = fused[place] if place >= 0 else None
        if (
            isinstance(step, Clamp)
            and isinstance(
                before,
                Convolution
                | Linear
                | Add
                | Requantize
                | Clamp
                | Lookup
                | Affine
                | Multiply
                | Prelu
                | Normalize
                | MatMul
                | Mean
                | AveragePool,
            )
            and getattr(before, "scaling", before) is not None
            and uses[step.sources[0]] == 1
        ):
            fused[place] = replace(before, output=step.output, **_clipped(before, step))
            made[step.output.name] = place
            continue
        made[step.output.name] = len(fused)
        fused.append(step)
    return tuple(fused)


def _clipped(before: Any, step: Clamp) -> dict[str, Any]:
    """The ends of a step, or of its scaling, with those of a clamp behind it."""
    ends = before if hasattr(before, "low") else before.scaling
    low, high = (min(max(end, step.low), step.high) for end in (ends.low, ends.high))
    if ends is before:
        return {"low": low, "high": high}
    return {"scaling": replace(ends, low=low, high=high)}

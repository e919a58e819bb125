"""Steps that read constants alone become constants: the first product of a state that starts at
zero, a gate of a stored token.

The C export keeps these steps, which its memory was planned with. LiteRT's kernels must not see
them: XNNPACK (ai-edge-litert 2.3) frees the memory of such operators twice when it runs them.
"""

from dataclasses import replace

import numpy as np

from mpsearch.integer.gathering import Fill
from mpsearch.integer.graph import ArgMax, IntegerGraph, Step
from mpsearch.integer.inference import run_all


def without_constant_steps(graph: IntegerGraph) -> IntegerGraph:
    """The same integers with a `Fill` for every step that reads what other `Fill`s give alone, and
    none that nothing reads; `graph` itself where there is no such step."""
    entry = graph.inputs[0].tensor if graph.inputs else None
    constant: dict[str, Step] = {}
    for step in graph.steps:
        if isinstance(step, Fill) and entry is not None:
            constant[step.output.name] = replace(step, sources=(entry.name,))
        elif constant.keys() >= set(step.sources) and not isinstance(step, ArgMax):
            constant[step.output.name] = step
    if all(isinstance(step, Fill) for step in constant.values()) or entry is None:
        return graph
    # What the entries hold does not matter: a row of zeros for the length of a batch.
    rows = [np.zeros((1, *e.tensor.shape), e.tensor.dtype) for e in graph.inputs]
    values = run_all(replace(graph, steps=tuple(constant.values())), *rows)
    steps = [
        Fill((entry.name,), step.output, values[step.output.name][0])
        if step.output.name in constant
        else step
        for step in graph.steps
    ]
    read = {graph.output.name} | {
        name for step in steps if not isinstance(step, Fill) for name in step.sources
    }
    kept = [step for step in steps if not isinstance(step, Fill) or step.output.name in read]
    return replace(graph, steps=tuple(kept))

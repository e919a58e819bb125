"""The nodes of an ONNX graph as steps over named values, with plain attributes.

What depends on constants only is computed here, once; a bias that an exporter writes as an addition
behind MatMul goes back into the layer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.importers.onnx.reading import array_of

Array = np.ndarray[Any, Any]
# Operators that hand a weight on: what comes out is still the tensor of that name.
_KEEPING = {"Identity", "Transpose", "Reshape", "Cast", "Squeeze", "Unsqueeze"}


@dataclass(frozen=True)
class Step:
    """One node: `attributes` are plain Python values (tensors as arrays).

    `name` is the node's own name, `scope` what its metadata say about the module that made it.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How a message names the node: `node '/conv1/Conv' (Conv)`."""
        return f"node {self.name or self.outputs[0]!r} ({self.operator})"


@dataclass(frozen=True)
class Plan:
    """What the interpreter runs: steps in order, and constants by name.

    `origins` names the initializer that a constant came from, for constants that are one under
    another shape.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    constants: Mapping[str, Array]
    origins: Mapping[str, str]
    opset: int


def steps_of(graph: Any) -> tuple[Step, ...]:
    """The nodes in the file's order, which the checker knows to be a topological one."""
    return tuple(_step(node) for node in graph.node)


def _step(node: Any) -> Step:
    return Step(
        operator=str(node.op_type),
        name=str(node.name),
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes={attribute.name: _plain(attribute) for attribute in node.attribute},
        metadata={entry.key: entry.value for entry in node.metadata_props},
    )


def _plain(attribute: Any) -> Any:
    kinds = type(attribute)
    if attribute.type == kinds.FLOAT:
        return float(attribute.f)
    if attribute.type == kinds.INT:
        return int(attribute.i)
    if attribute.type == kinds.STRING:
        return attribute.s.decode(errors="replace")
    if attribute.type == kinds.TENSOR:
        return array_of(attribute.t)
    if attribute.type == kinds.FLOATS:
        return [float(value) for value in attribute.floats]
    if attribute.type == kinds.INTS:
        return [int(value) for value in attribute.ints]
    if attribute.type == kinds.STRINGS:
        return [value.decode(errors="replace") for value in attribute.strings]
    raise InputError(f"attribute {attribute.name} holds a graph or a type without a meaning here")


def fold_constants(plan: Plan, compute: Callable[[Step, Plan], Mapping[str, Array]]) -> Plan:
    """Steps whose inputs are all constants become constants; `compute` runs one of them."""
    constants, origins = dict(plan.constants), dict(plan.origins)
    steps = []
    for step in plan.steps:
        if not all(name in constants for name in step.inputs if name):
            steps.append(step)
            continue
        current = replace(plan, constants=constants, origins=origins)
        constants.update(compute(step, current))
        if step.operator in _KEEPING:
            origins[step.outputs[0]] = origins.get(step.inputs[0], step.inputs[0])
    return replace(plan, steps=tuple(steps), constants=constants, origins=origins)


def join_biases(plan: Plan) -> Plan:
    """MatMul by a constant, then Add of a constant row: the row becomes MatMul's third input."""
    users: dict[str, list[Step]] = {}
    for step in plan.steps:
        for name in step.inputs:
            users.setdefault(name, []).append(step)
    joined: dict[int, Step] = {}
    dropped: set[int] = set()
    for step in plan.steps:
        after = users.get(step.outputs[0], []) if step.outputs else []
        if (
            step.operator != "MatMul"
            or step.inputs[1] not in plan.constants
            or len(after) != 1
            or after[0].operator != "Add"
            or step.outputs[0] in plan.outputs
        ):
            continue
        other = [name for name in after[0].inputs if name != step.outputs[0]]
        weight = plan.constants[step.inputs[1]]
        if len(other) != 1 or other[0] not in plan.constants or weight.ndim != 2:
            continue
        if plan.constants[other[0]].shape != weight.shape[1:]:
            continue
        joined[id(after[0])] = replace(
            step, inputs=(*step.inputs, other[0]), outputs=after[0].outputs
        )
        dropped.add(id(step))
    steps = tuple(joined.get(id(s), s) for s in plan.steps if id(s) not in dropped)
    return replace(plan, steps=steps)

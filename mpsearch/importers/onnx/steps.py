"""The nodes of an ONNX graph as steps over named values, with plain attributes.

What depends on constants only is computed here, once; a bias that an exporter writes as an addition
behind MatMul goes back into the layer.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.importers.onnx.reading import array_of

Array = np.ndarray[Any, Any]
# Operators that hand a weight on: what comes out is still the tensor of that name.
CODES = {"QuantizeLinear", "DequantizeLinear"}  # `quantized` sees to them
_SIZES = {"Shape", "Size"}
_KEEPING = {"Identity", "Transpose", "Reshape", "Cast", "Squeeze", "Unsqueeze"}


@dataclass(frozen=True)
class Step:
    """One node: `attributes` are plain Python values (tensors as arrays).

    `operator` has its domain in front where that is not ONNX's own: `com.microsoft.FusedConv`.
    `name` is the node's own name, `metadata` what it says about the module that made it. The
    branches of an If are attributes, too.
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
        name = self.name or next(filter(None, self.outputs), "")
        return f"node {name!r} ({self.operator})"

    @property
    def branches(self) -> "tuple[Branch, ...]":
        """The graphs of an If; none for other operators."""
        return tuple(value for value in self.attributes.values() if isinstance(value, Branch))

    def reads(self) -> Iterator[str]:
        """The values that it takes, in its branches as well."""
        yield from filter(None, self.inputs)
        for branch in self.branches:
            yield from branch.outputs
            for step in branch.steps:
                yield from step.reads()


@dataclass(frozen=True)
class Branch:
    """The graph of one branch of an If: it has no inputs and may read every value around it."""

    steps: tuple[Step, ...]
    constants: Mapping[str, Array]
    outputs: tuple[str, ...]


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
    unquantized: int = 0
    """How many steps that quantize were left out (`quantized`)."""
    left_out: tuple[str, ...] = ()
    """Outputs of the file that are the same for all data."""


def steps_of(graph: Any) -> tuple[Step, ...]:
    """The nodes in the file's order, which the checker knows to be a topological one."""
    return tuple(_step(node) for node in graph.node)


def _step(node: Any) -> Step:
    foreign = node.domain not in ("", "ai.onnx")
    return Step(
        operator=f"{node.domain}.{node.op_type}" if foreign else str(node.op_type),
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
    if attribute.type == kinds.GRAPH:
        return Branch(
            steps_of(attribute.g),
            {tensor.name: array_of(tensor) for tensor in attribute.g.initializer},
            tuple(value.name for value in attribute.g.output),
        )
    raise InputError(f"attribute {attribute.name} has a type without a meaning here")


def fold_constants(plan: Plan, compute: Callable[[Step, Plan], Mapping[str, Array]]) -> Plan:
    """Steps whose inputs are all constants become constants; `compute` runs one of them."""
    constants, origins = dict(plan.constants), dict(plan.origins)
    steps = []
    for step in plan.steps:
        apart = step.branches or step.operator in CODES
        if apart or not all(name in constants for name in step.inputs if name):
            steps.append(step)
            continue
        current = replace(plan, constants=constants, origins=origins)
        constants.update(compute(step, current))
        if step.operator in _KEEPING:
            origins[step.outputs[0]] = origins.get(step.inputs[0], step.inputs[0])
    return replace(plan, steps=tuple(steps), constants=constants, origins=origins)


def without_unused(plan: Plan) -> Plan:
    """The plan without steps that no output needs, such as the condition of an If."""
    needed = {*plan.outputs}
    steps: list[Step] = []
    for step in reversed(plan.steps):
        if needed.intersection(step.outputs):
            needed.update(step.reads())
            steps.append(step)
    return replace(plan, steps=tuple(reversed(steps)))


def without_constant_outputs(plan: Plan) -> Plan:
    """The plan without outputs that are the same for all data, such as a table of anchors.

    Sizes are no data: a length that is written for every sample follows from their number.
    Raises InputError when none is left.
    """
    data = {*plan.inputs}
    for step in plan.steps:
        if step.operator not in _SIZES and data.intersection(step.reads()):
            data.update(step.outputs)
    kept = tuple(name for name in plan.outputs if name in data)
    if not kept:
        raise InputError(
            "none of its outputs follows from the inputs' data; expected one that does"
        )
    if kept == plan.outputs:
        return plan
    left = tuple(name for name in plan.outputs if name not in data)
    return without_unused(replace(plan, outputs=kept, left_out=(*plan.left_out, *left)))


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

"""The branches of If nodes: each whose condition is known before there are data is taken.

Scripted models and converters leave If nodes whose condition follows from constants, attributes or
shapes: `x.dim() == 2`, `sr == 16000`, the squeeze of an LSTM. The steps of the branch that is taken
go in the place of the If; what the other one would have computed is never looked at.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from mpsearch.errors import InputError
from mpsearch.graph import memory_budget
from mpsearch.importers.onnx.calls import Call, Value
from mpsearch.importers.onnx.fused import plain_steps
from mpsearch.importers.onnx.integers import plain_integers
from mpsearch.importers.onnx.interpreter import (
    Transient,
    check_operators,
    compute_constant,
    last_uses,
    run_call,
)
from mpsearch.importers.onnx.quantized import as_float
from mpsearch.importers.onnx.steps import Array, Branch, Plan, Step, fold_constants, without_unused

_DEEPEST = 64  # branches inside of branches


def fold(plan: Plan) -> Plan:
    """Everything that follows from constants is computed, and If nodes among it are taken.

    Raises InputError for operators that cannot be read, in the graph and in branches taken.
    """
    for _ in range(_DEEPEST):
        plan = plain_integers(replace(plan, steps=plain_steps(plan.steps)))
        check_operators(plan.steps, plan.opset)
        folded = fold_constants(plan, compute_constant)
        plan = as_float(folded)
        known = [s for s in plan.steps if s.branches and s.inputs[0] in plan.constants]
        if not known and plan is folded:
            return without_unused(plan)
        names = _names(plan)
        constants = dict(plan.constants)
        steps: list[Step] = []
        for step in plan.steps:
            if step in known:
                branch = _taken(step, plan.constants[step.inputs[0]], names)
                constants.update(branch.constants)
                steps += branch.steps
            else:
                steps.append(step)
        plan = replace(plan, steps=tuple(steps), constants=constants)
    raise InputError(f"its If nodes are nested deeper than {_DEEPEST}")


def take_branches(plan: Plan, runs: Sequence[tuple[torch.Tensor, ...]]) -> Plan:
    """The plan without If nodes, whose conditions follow from the shapes of the inputs in `runs`.

    Raises InputError for a condition that depends on the data, or on the number of samples: that is
    where the runs disagree.
    """
    if not any(step.branches for step in plan.steps):
        return plan
    taken: list[dict[str, bool]] = []
    flat: Plan = plan
    for inputs in runs:
        flat, choices = _run(plan, inputs)
        taken.append(choices)
    for name, choice in taken[0].items():
        if any(other.get(name, choice) != choice for other in taken[1:]):
            raise InputError(
                f"node {name!r} (If): its condition follows from the number of samples; "
                "expected the same branch for every batch"
            )
    return fold(flat)


def _run(plan: Plan, inputs: tuple[torch.Tensor, ...]) -> tuple[Plan, dict[str, bool]]:
    """(the plan with the branches that these inputs take, the choices by name of the If)."""
    values: dict[str, Value] = dict(zip(plan.inputs, inputs, strict=True))
    values.update(plan.constants)
    flat = plan
    choices: dict[str, bool] = {}
    names = _names(plan)
    frees = {id(step): free for step, free in zip(plan.steps, last_uses(plan), strict=True)}
    steps: list[Step] = []
    waiting = deque(plan.steps)
    while waiting:
        step = waiting.popleft()
        if step.branches:
            condition = values.get(step.inputs[0])
            if not isinstance(condition, np.ndarray):
                raise InputError(
                    f"{step.label} is control flow: its condition {step.inputs[0]!r} depends on "
                    "the data, and one fixed graph has to do for all of them.",
                    "Export the model again without it, or give a constant to the input that "
                    "decides (--fix NAME=VALUE)",
                )
            choices[step.name or step.outputs[0]] = bool(condition.reshape(-1)[0])
            branch = _taken(step, condition, names)
            known = {**flat.constants, **branch.constants}
            inner = replace(flat, steps=plain_steps(branch.steps), constants=known)
            inner = plain_integers(inner)
            check_operators(inner.steps, plan.opset)
            flat = fold_constants(inner, compute_constant)
            values.update(flat.constants)
            waiting.extendleft(reversed(flat.steps))
            continue
        steps.append(step)
        given = tuple(values.get(name) if name else None for name in step.inputs)
        call = Call(step, given, Transient(), flat.constants, flat.origins, plan.opset)
        with torch.no_grad(), memory_budget.watched():
            values.update(zip(step.outputs, run_call(call), strict=False))
        for name in frees.get(id(step), ()):
            values.pop(name, None)
    return replace(flat, steps=tuple(steps)), choices


def _names(plan: Plan) -> set[str]:
    return {*plan.inputs, *plan.constants, *(name for s in plan.steps for name in s.outputs)}


def _taken(step: Step, condition: Array, names: set[str]) -> Branch:
    """The branch with names of its own: its outputs are called as those of the If.

    `names`, which is added to, holds those that are taken already: two branches may share theirs.
    """
    if condition.size != 1:
        raise InputError(f"{step.label}: its condition has the shape {condition.shape}")
    key = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
    branch = step.attributes.get(key)
    if not isinstance(branch, Branch) or len(branch.outputs) < len(step.outputs):
        raise InputError(f"{step.label}: damaged: it has no {key} with its outputs")
    own = [*branch.constants, *(name for inner in branch.steps for name in inner.outputs if name)]
    renamed = {name: _fresh(name, step, names) for name in own}
    made = {name for inner in branch.steps for name in inner.outputs}
    handed_on: list[Step] = []
    for inner, outer in zip(branch.outputs, step.outputs, strict=False):
        if inner in made and renamed[inner] not in step.outputs:
            renamed[inner] = outer
        else:  # a value from around the branch, or one that is returned twice
            source = renamed.get(inner, inner)
            handed_on.append(Step("Identity", step.name, (source,), (outer,)))
    return Branch(
        steps=(*_renamed(branch.steps, renamed), *handed_on),
        constants={renamed[name]: array for name, array in branch.constants.items()},
        outputs=step.outputs,
    )


def _fresh(name: str, step: Step, names: set[str]) -> str:
    found, count = name, 0
    while found in names:
        found, count = f"{step.outputs[0]}/{name}{count or ''}", count + 1
    names.add(found)
    return found


def _renamed(steps: Sequence[Step], names: Mapping[str, str]) -> Iterator[Step]:
    for step in steps:
        yield replace(
            step,
            inputs=tuple(names.get(name, name) for name in step.inputs),
            outputs=tuple(names.get(name, name) for name in step.outputs),
            attributes={
                key: _renamed_branch(value, names) if isinstance(value, Branch) else value
                for key, value in step.attributes.items()
            },
        )


def _renamed_branch(branch: Branch, names: Mapping[str, str]) -> Branch:
    """Names inside hide those around: only values from around the branch are renamed."""
    own = {*branch.constants, *(name for step in branch.steps for name in step.outputs)}
    around = {name: new for name, new in names.items() if name not in own}
    return replace(
        branch,
        steps=tuple(_renamed(branch.steps, around)),
        outputs=tuple(around.get(name, name) for name in branch.outputs),
    )

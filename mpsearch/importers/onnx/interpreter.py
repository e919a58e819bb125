"""The file's graph as an nn.Module: it runs step by step, which torch.export traces.

The module's tensors carry the file's names. Every one is made in the first run on real samples,
so that an export afterwards finds them all.
"""

import inspect
from collections.abc import Callable, Mapping, MutableMapping

import numpy as np
import torch
from torch import nn

from mpsearch.errors import InputError, first_line
from mpsearch.graph import memory_budget
from mpsearch.graph.tensors import get_tensor, set_tensor
from mpsearch.importers.onnx.calls import Call, Result, Size, Value
from mpsearch.importers.onnx.names import TensorNames, identifier
from mpsearch.importers.onnx.steps import Array, Plan, Step
from mpsearch.importers.onnx.table import handler_of

Recorder = MutableMapping[str, tuple[int, ...]]
# The target of a Reshape for the tensor that arrives, or None to take it as it is written.
Rewriter = Callable[[Step, torch.Tensor, Size], "tuple[Size, ...] | None"]


class OnnxModule(nn.Module):
    """Takes the file's inputs in order; returns its output, or a dict when it has several."""

    def __init__(self, plan: Plan, rewrite: Rewriter) -> None:
        super().__init__()
        self.plan = plan
        self.tensors = _Tensors(self)
        self._rewrite = rewrite
        self._last_use = _last_uses(plan)

        def forward(*inputs: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
            return self.run(inputs)

        # torch.export names the inputs after the function's parameters
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        names = _unique([identifier(name) for name in plan.inputs])
        parameters = [inspect.Parameter(name, kind) for name in names]
        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        self.forward = forward

    def run(
        self, inputs: tuple[torch.Tensor, ...], shapes: Recorder | None = None
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """The outputs; `shapes` is told every tensor's shape by the file's name for it."""
        values: dict[str, Value] = dict(zip(self.plan.inputs, inputs, strict=True))
        values.update(self.plan.constants)
        batch: Size = inputs[0].shape[0] if inputs[0].dim() else 1
        for index, step in enumerate(self.plan.steps):
            results = self._run_step(step, values, batch)
            for name, value in zip(step.outputs, results, strict=False):
                values[name] = value
                if shapes is not None and isinstance(value, torch.Tensor):
                    shapes[name] = tuple(value.shape)
            for name in self._last_use[index]:
                values.pop(name, None)  # an optional output may not have been made
        outputs = {name: self._output(name, values.get(name)) for name in self.plan.outputs}
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def _run_step(self, step: Step, values: Mapping[str, Value], batch: Size) -> tuple[Value, ...]:
        missing = [name for name in step.inputs if name and values.get(name) is None]
        if missing:
            raise InputError(
                f"{step.label}: it reads {missing[0]!r}, an extra output that is not computed here"
            )
        given = tuple(values[name] if name else None for name in step.inputs)
        first = given[0] if given else None
        rewritten = self._rewrite(step, first, batch) if isinstance(first, torch.Tensor) else None
        call = Call(
            step, given, self.tensors, self.plan.constants, self.plan.origins, self.plan.opset,
            rewritten,
        )  # fmt: skip
        return run_call(call)

    def _output(self, name: str, value: Value) -> torch.Tensor:
        if not isinstance(value, torch.Tensor):
            raise InputError(f"output {name!r} does not follow from the inputs' data")
        return value


def run_call(call: Call) -> tuple[Value, ...]:
    """The outputs of one operator. Raises InputError naming the node."""
    try:
        result: Result = handler_of(call)(call)
    except InputError as error:
        raise InputError(*error.lines_after(f"{call.step.label}: ")) from error
    except Exception as error:  # whatever torch and numpy raise on what does not fit
        if torch.compiler.is_exporting():
            raise
        raise InputError(f"{call.step.label}: {first_line(error)}") from error
    return result if isinstance(result, tuple) else (result,)


class _Tensors:
    """The Store of a module: tensors become its buffers under qualified names."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._names = TensorNames()
        self._paths: dict[tuple[str, str], str] = {}

    def fetch(
        self, key: tuple[str, str], wanted: str, make: Callable[[], torch.Tensor], fixed: bool
    ) -> torch.Tensor:
        known = key in self._paths
        if known and (fixed or torch.compiler.is_exporting()):
            return get_tensor(self._module, self._paths[key])
        tensor = make()
        if torch.compiler.is_exporting():
            return tensor
        if not known:
            memory_budget.reserve(tensor.nbytes, f"the weight {wanted!r:.80}")
            self._paths[key] = self._names.fresh(wanted)
        # one that is not fixed was computed from shapes: the newest run knows them best
        set_tensor(self._module, self._paths[key], tensor)
        return tensor


class Transient:
    """A Store that keeps nothing, for computing constants."""

    def fetch(
        self, key: tuple[str, str], wanted: str, make: Callable[[], torch.Tensor], fixed: bool
    ) -> torch.Tensor:
        return make()


def compute_constant(step: Step, plan: Plan) -> Mapping[str, Array]:
    """The outputs of a step over constants, as arrays."""
    values = tuple(plan.constants[name] if name else None for name in step.inputs)
    call = Call(step, values, Transient(), plan.constants, plan.origins, plan.opset)
    with torch.no_grad(), memory_budget.watched():
        results = run_call(call)
    return {
        name: value.numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        for name, value in zip(step.outputs, results, strict=False)
        if name and value is not None
    }


def _last_uses(plan: Plan) -> list[set[str]]:
    """Per step the values that nothing reads after it, so that a run holds few at a time."""
    kept: set[str] = {*plan.outputs, *plan.constants, ""}
    uses: list[set[str]] = []
    for step in reversed(plan.steps):
        names = {*step.inputs, *step.outputs} - kept
        kept |= names
        uses.append(names)
    return uses[::-1]


def _unique(names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        while name in found:
            name += "_"
        found.append(name)
    return found

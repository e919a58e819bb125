"""The file's graph as an nn.Module: it runs step by step, which torch.export traces.

The module's tensors carry the file's names. Every one is made in the first run on real samples,
so that an export afterwards finds them all.

Files that were exported for one batch size get a free one.

Exporters fold the batch into the targets of Reshape and Expand: [1, 64] for a file of one sample.
The graph runs once on the file's own batch size and once on three samples; where the arriving
tensor has grown along one dimension, the entry of the target that holds this dimension grows too.
A file in which that is a wrong reading is found by comparing three samples with each one alone.

Which operator is read by which function, and up to which version of its definition.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence

import numpy as np
import torch
from torch import nn

from mpsearch.errors import InputError, first_line
from mpsearch.graph import memory_budget
from mpsearch.graph.sample_layout import samples_mix
from mpsearch.graph.tensors import get_tensor, set_tensor
from mpsearch.importers.onnx.arranging import ARRANGING, GATHERING
from mpsearch.importers.onnx.calls import (
    Call,
    Result,
    Size,
    TensorNames,
    Value,
    identifier,
    is_symbolic,
)
from mpsearch.importers.onnx.elementwise import ELEMENTWISE, REDUCTIONS
from mpsearch.importers.onnx.normalization import NORMALIZATION
from mpsearch.importers.onnx.pooling import POOLING, RESIZING
from mpsearch.importers.onnx.recurrent import RECURRENT
from mpsearch.importers.onnx.shapes import SHAPES
from mpsearch.importers.onnx.steps import Array, Plan, Step
from mpsearch.importers.onnx.weighted import ATTENTION, WEIGHTED
from mpsearch.running.plugins import onnx_package

Handler = Callable[[Call], Result]


def _constant(call: Call) -> Result:
    for name, value in call.step.attributes.items():
        if name == "value":
            return np.asarray(value)
        if name in ("value_float", "value_floats"):
            return np.array(value, dtype=np.float32)
        if name in ("value_int", "value_ints"):
            return np.array(value, dtype=np.int64)
    raise InputError("got text or a sparse tensor; expected numbers")


OPERATORS: dict[str, Handler] = {
    "Constant": _constant,
    **ELEMENTWISE,
    **WEIGHTED,
    **NORMALIZATION,
    **POOLING,
    **REDUCTIONS,
    **ARRANGING,
    **GATHERING,
    **RESIZING,
    **RECURRENT,
    **ATTENTION,
}

# The newest definitions whose changes were read, where they are newer than opset 21.
_NEWEST = 28
_QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv",
              "QLinearMatMul", "ConvInteger", "MatMulInteger"}  # fmt: skip
_CONTROL = {"If", "Loop", "Scan", "SequenceMap"}


def handler_of(call: Call) -> Handler:
    """The function of the call's operator; shape arithmetic where no input is a tensor."""
    operator = call.step.operator
    return (
        SHAPES[operator]
        if operator in SHAPES and _is_shape_arithmetic(call)
        else OPERATORS[operator]
    )


def _is_shape_arithmetic(call: Call) -> bool:
    """All inputs are known, none is a parameter, and the result's own shape has no batch in it."""
    arrays = [value for value in call.values if isinstance(value, np.ndarray)]
    if any(isinstance(value, torch.Tensor) for value in call.values):
        return False
    if call.step.operator in ("Expand", "Reshape") and is_symbolic(call.host(1)):
        return False
    return not any(array.dtype.kind == "f" and array.size > 1 for array in arrays)


def check_operators(steps: Iterable[Step], domains: Iterable[str], opset: int) -> None:
    """Raise InputError that lists everything that cannot be read, with one node for each."""
    defs = onnx_package("reading an ONNX file").defs
    problems: dict[str, str] = {}
    for step, domain in zip(steps, domains, strict=True):
        name = step.operator
        if name in _QUANTIZED:
            raise InputError(
                f"it is quantized already ({step.label}); expected the float model that it was "
                "made from"
            )
        if domain not in ("", "ai.onnx"):
            problems.setdefault(f"{domain}.{name}", f"{step.label}")
        elif name not in OPERATORS:
            problems.setdefault(name, step.label)
        elif defs.get_schema(name, opset, "").since_version > _NEWEST:
            problems.setdefault(f"{name} of opset {opset}", step.label)
    if not problems:
        return
    listed = ", ".join(f"{name} ({label})" for name, label in list(problems.items())[:12])
    more = f" and {len(problems) - 12} more" if len(problems) > 12 else ""
    if set(problems) & _CONTROL:
        way = "export it again with fixed control flow (torch.onnx.export of a traced model)"
    elif any("." in name for name in problems):
        way = "export it again without runtime-specific optimizations or custom operators"
    else:
        way = "docs/onnx-import.md lists what can be read"
    raise InputError(f"it uses operators that cannot be read: {listed}{more}.", f"To go on: {way}")


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


Shape = tuple[int, ...]


class BatchRewriter:
    """Targets with the batch in them, by the name of the step's output.

    `learn` is told the shapes of a run on the file's own batch size; from then on a constant target
    whose tensor has grown is rewritten, and `targets` collects what was done.
    """

    def __init__(self, plan: Plan, batch: int, fixed: bool) -> None:
        self._plan, self._batch, self._fixed = plan, batch, fixed
        self._shapes: Mapping[str, Shape] | None = None
        self._ahead: dict[str, int] = {}
        self.targets: dict[str, tuple[tuple[int, bool], ...]] = {}

    def learn(self, shapes: Mapping[str, Shape]) -> None:
        """The shapes of all tensors at the file's own batch size."""
        self._shapes = shapes

    def __call__(self, step: Step, x: torch.Tensor, batch: Size) -> tuple[Size, ...] | None:
        """The target for `x`, or None to take it as the file has it."""
        if self._shapes is None:
            return None
        name = step.outputs[0]
        if step.operator != "Reshape":
            self._ahead[name] = self._ahead.get(step.inputs[0], 1)
            return None
        if name not in self.targets and not torch.compiler.is_exporting():
            found = self._target(step, tuple(int(size) for size in x.shape))
            if found is not None:
                self.targets[name] = found
        entries = self.targets.get(name)
        if entries is None:
            return None
        return tuple(size * batch if grows else size for size, grows in entries)

    def _target(self, step: Step, now: Shape) -> tuple[tuple[int, bool], ...] | None:
        assert self._shapes is not None
        before = self._shapes.get(step.inputs[0])
        target = self._plan.constants.get(step.inputs[1])
        if target is None or before is None or before == now or len(before) != len(now):
            return None
        written = [int(size) for size in target.reshape(-1)]
        if not self._fixed and (-1 in written or math.prod(written) == math.prod(now)):
            return None  # the file leaves the batch free itself
        target_before = self._shapes[step.outputs[0]]
        ahead = self._ahead.get(step.inputs[0], 1)
        place = place_of_batch(before, now, target_before, self._batch, ahead)
        if place is None:
            return None
        first = math.prod(before[: _grown(before, now)[0]]) * ahead
        self._ahead[step.outputs[0]] = first // math.prod(target_before[:place])
        return tuple(
            (size // self._batch, True) if index == place else (size, False)
            for index, size in enumerate(target_before)
        )


def _grown(before: Shape, now: Shape) -> list[int]:
    return [axis for axis, (old, new) in enumerate(zip(before, now, strict=True)) if old != new]


def place_of_batch(
    before: Shape, now: Shape, target: Shape, batch: int, ahead: int = 1
) -> int | None:
    """Which entry of a Reshape's target has the batch as a factor; None when that cannot be told.

    `before` and `now` are the arriving shapes at the file's batch size and another one: for
    (1, 8, 4) and (3, 8, 4) the target (1, 32) has it in entry 0. `ahead` counts the positions that
    come before the batch in the dimension that grew: (T·N, C) has T ahead of N. Of two
    possible entries the last is not taken: features stay together.
    """
    grew = _grown(before, now)
    if len(grew) != 1:
        return None
    start = math.prod(before[: grew[0]])
    first, end = start * ahead, start * before[grew[0]]
    starts = [math.prod(target[:index]) for index in range(len(target) + 1)]
    inside = [i for i in range(len(target)) if starts[i] >= first and starts[i + 1] <= end]
    alone = [i for i in inside if target[i] == batch]
    if alone:
        return alone[0]
    # merged with a neighbour: heads behind the batch, or positions in front of it
    holding = [i for i in range(len(target)) if starts[i] <= first < starts[i + 1]]
    if not holding:
        return None
    place = holding[0]
    if starts[place] == first and 0 < place == len(target) - 1:
        place -= 1
    return place if target[place] % batch == 0 else None


def check_rows(run: "torch.nn.Module", examples: Sequence[torch.Tensor]) -> None:
    """Several samples together must give what each gives alone. Raises InputError otherwise."""
    with torch.no_grad():
        if samples_mix(run, examples):
            raise InputError(
                "it was exported for one batch size, and its samples mix when there are more.",
                "Export it again with a free batch dimension (dynamic_axes or dynamic_shapes of "
                "torch.onnx.export)",
            )

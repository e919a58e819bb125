"""The file's graph as an nn.Module: it runs step by step, which torch.export traces.

The module's tensors carry the file's names. Every one is made in the first run on real samples,
so that an export afterwards finds them all.

Which operator is read by which function, and up to which version of its definition.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import nn

from mpsearch.errors import InputError, first_line
from mpsearch.graph import memory_budget
from mpsearch.graph.border import moved
from mpsearch.graph.exporting import (
    BRANCHES_ON_DATA,
    CONSTANT_BATCH,
    FIXED_BATCH,
    NOT_EXPORTED,
)
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
from mpsearch.importers.onnx.spectral import SPECTRAL
from mpsearch.importers.onnx.steps import CODES, Array, Plan, Step
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


def _codes(call: Call) -> Result:
    raise InputError("got a step that quantizes in a branch; expected none there")


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
    **SPECTRAL,
    **ATTENTION,
}
_LEFT = dict.fromkeys(CODES, _codes)

# The newest definitions whose changes were read, where they are newer than opset 21.
_NEWEST = 28
_QUANTIZED = re.compile(r"QLinear|QGemm|Quantize|Integer$")
_CONTROL = {"Loop", "Scan", "SequenceMap"}


def handler_of(call: Call) -> Handler:
    """The function of the call's operator; shape arithmetic where no input is a tensor."""
    operator = call.step.operator
    return (
        SHAPES[operator]
        if operator in SHAPES and _is_shape_arithmetic(call)
        else (OPERATORS | _LEFT)[operator]
    )


def _is_shape_arithmetic(call: Call) -> bool:
    """All inputs are known, none is a parameter, and the result's own shape has no batch in it."""
    arrays = [value for value in call.values if isinstance(value, np.ndarray)]
    if any(isinstance(value, torch.Tensor) for value in call.values):
        return False
    if call.step.operator in ("Expand", "Reshape") and is_symbolic(call.host(1)):
        return False
    return not any(array.dtype.kind == "f" and array.size > 1 for array in arrays)


def check_operators(steps: Iterable[Step], opset: int) -> None:
    """Raise InputError that lists everything that cannot be read, with one node for each."""
    defs = onnx_package("reading an ONNX file").defs
    problems: dict[str, str] = {}
    for step in steps:
        name = step.operator
        if name == "If" or name in CODES:
            continue
        if _QUANTIZED.search(name):
            raise InputError(
                f"it is quantized already ({step.label}); expected the float model that it was "
                "made from"
            )
        if name not in OPERATORS:
            problems.setdefault(name, step.label)
        elif defs.has(name, opset, "") and defs.get_schema(name, opset, "").since_version > _NEWEST:
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


class _Seen:
    """Labels of nodes, for messages; torch.export puts back attributes of the module itself."""

    current = ""
    """The one that runs."""
    fixing = ""
    """The one that made a constant of the batch."""


class OnnxModule(nn.Module):
    """Takes the file's inputs in order; returns its output, or a dict when it has several.

    All of them have their samples along the first dimension; in the file they lie along that of
    `input_dims` and `output_dims`, where these name another one.
    """

    samples_first = True

    def __init__(
        self, plan: Plan, rewrite: Rewriter, input_dims: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        self.plan = plan
        self.input_dims = dict(input_dims or {})
        self.output_dims: dict[str, int] = {}
        self._seen = _Seen()
        self.meta: dict[str, Any] = {}
        self.tensors = _Tensors(self)
        self._rewrite = rewrite
        self._last_use = last_uses(plan)

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
        values: dict[str, Value] = {
            name: moved(x, 0, self.input_dims.get(name, 0))
            for name, x in zip(self.plan.inputs, inputs, strict=True)
        }
        values.update(self.plan.constants)
        batch: Size = inputs[0].shape[0] if inputs[0].dim() else 1
        for index, step in enumerate(self.plan.steps):
            self._seen.current = step.label
            results = self._run_step(step, values, batch)
            for name, value in zip(step.outputs, results, strict=False):
                values[name] = value
                if shapes is not None and isinstance(value, torch.Tensor):
                    shapes[name] = tuple(value.shape)
            for name in self._last_use[index]:
                values.pop(name, None)  # an optional output may not have been made
            if isinstance(batch, torch.SymInt) and batch.node.maybe_as_int() is not None:
                self._seen.fixing = self._seen.fixing or step.label
        outputs = {name: self._output(name, values.get(name)) for name in self.plan.outputs}
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def reworded(self, error: InputError) -> InputError:
        """What torch.export said of a module of Python, as of a file: the node and the way out."""
        text = error.lines[0]
        if text.startswith((CONSTANT_BATCH, FIXED_BATCH)):
            node = f"{self._seen.fixing} makes" if self._seen.fixing else "its nodes make"
            return InputError(
                f"{node} a constant of the number of samples.",
                "Export it again with a free batch dimension (dynamic_axes or dynamic_shapes of "
                "torch.onnx.export)",
            )
        if text == BRANCHES_ON_DATA:
            return InputError(
                f"{self._seen.current}: its result has another form for other data; expected one "
                "fixed graph for all of them"
            )
        if text.startswith(NOT_EXPORTED):
            return InputError(f"{self._seen.current}: {text.removeprefix(NOT_EXPORTED)}")
        return error

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
        return moved(value, self.output_dims.get(name, 0), 0)


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
    results = result if isinstance(result, tuple) else (result,)
    # numpy makes numbers of arrays without dimensions
    return tuple(np.asarray(r) if isinstance(r, np.generic) else r for r in results)


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


def last_uses(plan: Plan) -> list[set[str]]:
    """Per step the values that nothing reads after it, so that a run holds few at a time."""
    kept: set[str] = {*plan.outputs, *plan.constants, ""}
    uses: list[set[str]] = []
    for step in reversed(plan.steps):
        names = {*step.reads(), *step.outputs} - kept
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

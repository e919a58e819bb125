"""Which operator is read by which function, and up to which version of its definition."""

from collections.abc import Callable, Iterable

import numpy as np
import torch

from mpsearch.errors import InputError
from mpsearch.importers.onnx.arranging import ARRANGING, GATHERING
from mpsearch.importers.onnx.calls import Call, Result, is_symbolic
from mpsearch.importers.onnx.elementwise import ELEMENTWISE, REDUCTIONS
from mpsearch.importers.onnx.normalization import NORMALIZATION
from mpsearch.importers.onnx.pooling import POOLING, RESIZING
from mpsearch.importers.onnx.recurrent import RECURRENT
from mpsearch.importers.onnx.shapes import SHAPES
from mpsearch.importers.onnx.steps import Step
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

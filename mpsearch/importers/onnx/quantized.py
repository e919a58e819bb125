"""A file with QuantizeLinear and DequantizeLinear, read as the float network that it stands for.

Weights are what their codes stand for, (code − zero point) · scale. Between layers a pair of both
steps rounds and saturates, which mpsearch will choose anew: it is left out. Where codes end at zero
it also is the ReLU that its writer took out for it, and one is put in its place.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mpsearch.errors import InputError
from mpsearch.importers.onnx.steps import Array, Plan, Step

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
# What codes may go through: it takes and gives codes of the same scale.
_OF_CODES = {
    _DEQUANTIZE, "MaxPool", "GlobalMaxPool", "Reshape", "Flatten", "Transpose", "Squeeze",
    "Unsqueeze", "Slice", "Split", "Gather", "DepthToSpace", "SpaceToDepth", "Identity",
}  # fmt: skip
_NOT_NEGATIVE = {"Relu", "Clip", "Sigmoid", "HardSigmoid", "Softmax", "Abs"}
NOTE = (
    "it is quantized: read as a float network, its weights as their codes and scales say, without "
    "the {count} steps that quantize in between; the float model from before is the better start"
)


def as_float(plan: Plan) -> Plan:
    """The plan without steps that quantize, which are counted; the plan itself without any.

    Raises InputError for scales that are not constant or one per block, and for codes that other
    steps than DequantizeLinear read.
    """
    known = [step.operator for step in plan.steps]
    if _QUANTIZE not in known and _DEQUANTIZE not in known:
        return plan
    constants, origins = dict(plan.constants), dict(plan.origins)
    makers = {step.outputs[0]: step for step in plan.steps}
    renamed: dict[str, str] = {}
    steps: list[Step] = []
    count = 0
    for step in plan.steps:
        source = renamed.get(step.inputs[0], step.inputs[0]) if step.inputs else ""
        if step.operator == _DEQUANTIZE and source in constants:
            made_from_codes = makers.get(step.inputs[0]) is None
            constants[step.outputs[0]] = (
                _values(step, constants) if made_from_codes else constants[source]
            )
            origins[step.outputs[0]] = origins.get(source, source)
        elif step.operator in (_QUANTIZE, _DEQUANTIZE):
            count += step.operator == _QUANTIZE
            bounds = _saturation(step, constants, makers) if step.operator == _QUANTIZE else None
            if bounds is not None:
                steps.append(Step("Clip", step.name, (source,), (step.outputs[0],), bounds))
            elif step.outputs[0] in plan.outputs:
                steps.append(Step("Identity", step.name, (source,), (step.outputs[0],)))
            else:
                renamed[step.outputs[0]] = source
        else:
            inputs = tuple(renamed.get(name, name) for name in step.inputs)
            steps.append(replace(step, inputs=inputs))
    _check_readers(plan)
    return replace(
        plan,
        steps=tuple(steps),
        constants=constants,
        origins=origins,
        unquantized=plan.unquantized + max(1, count),
    )


def _check_readers(plan: Plan) -> None:
    codes = {step.outputs[0]: step for step in plan.steps if step.operator == _QUANTIZE}
    read = {(name, step.operator) for step in plan.steps for name in step.reads()}
    for name, step in codes.items():
        others = [kind for read_name, kind in read if read_name == name and kind not in _OF_CODES]
        if others or name in plan.outputs:
            raise InputError(
                f"it is quantized already ({step.label}: its codes go to "
                f"{others[0] if others else 'an output'}); expected the float model that it was "
                "made from, or DequantizeLinear behind it"
            )


def _values(step: Step, constants: Mapping[str, Array]) -> Array:
    """(codes − zero point) · scale, with one scale for all or one along an axis."""
    codes, scale, zero = _quantizer(step, constants)
    axis = step.attributes.get("axis", 1)
    shape = [1] * codes.ndim
    if scale.size > 1:
        if not -codes.ndim <= axis < codes.ndim or codes.shape[axis] != scale.size:
            raise InputError(f"{step.label}: got {scale.size} scales for codes {codes.shape}")
        shape[axis] = scale.size
    scale, zero = (x.reshape(shape) if x.size > 1 else x.reshape(-1)[0] for x in (scale, zero))
    return np.asarray((codes.astype(np.int64) - zero) * scale, dtype=np.float32)


def _quantizer(step: Step, constants: Mapping[str, Array]) -> tuple[Array, Array, Array]:
    if step.attributes.get("block_size", 0):
        raise InputError(f"{step.label}: got scales per block; expected one or one per channel")
    parts = [constants.get(name) for name in step.inputs[1:3] if name]
    scale = parts[0] if parts else None
    zero = parts[1] if len(parts) > 1 else np.zeros((), dtype=np.int64)
    if scale is None or zero is None or scale.size not in (1, max(1, scale.size)):
        raise InputError(f"{step.label}: its scale depends on the data; expected a constant one")
    codes = constants.get(step.inputs[0], np.zeros(()))
    return codes, scale, zero.astype(np.int64)


def _saturation(
    step: Step, constants: Mapping[str, Array], makers: Mapping[str, Step]
) -> dict[str, float] | None:
    """The ReLU, or ReLU6, that the codes do the work of; None where they reach below zero."""
    _, scale, zero = _quantizer(step, constants)
    name = step.inputs[2] if len(step.inputs) > 2 else ""
    kind = constants[name].dtype if name else np.dtype(np.int64)  # unsigned ones are int64 here
    lowest, highest = (-128, 127) if kind == np.int8 else (0, 255)
    maker = makers.get(step.inputs[0])
    if (maker is not None and maker.operator in _NOT_NEGATIVE) or not (zero == lowest).all():
        return None
    top = float(((highest - zero) * scale).max())
    is_six = abs(top - 6) <= float(scale.max())
    return {"min": 0.0, "max": 6.0} if is_six else {"min": 0.0}
